package safetensors

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/espalier-ml/espalier/model"
)

// A checkpoint's names: parameters are model.<layer>.<parameter>, anything else that
// travels with them (masks, optimizer statistics) is extra.<name>.
const (
	structureKey   = "espalier.structure"
	reservedPrefix = "espalier."
	modelPrefix    = "model."
	extraPrefix    = "extra."
)

// WriteGraph writes a checkpoint: the graph with its structure, further tensors by
// name, and metadata, whose keys must not begin with "espalier.". Equal content gives
// equal bytes. Errors wrap ErrName, the graph's sentinels or the writer's error.
func WriteGraph(w io.Writer, g *model.Graph, extra map[string]*model.Tensor, meta map[string]string) error {
	if err := g.Validate(); err != nil {
		return err
	}
	if err := g.WantFloat(); err != nil {
		return err
	}
	structure, err := model.MarshalStructure(g)
	if err != nil {
		return err
	}
	f := &File{Tensors: map[string]*model.Tensor{}, Meta: map[string]string{structureKey: string(structure)}}
	for k, v := range meta {
		if strings.HasPrefix(k, reservedPrefix) {
			return fmt.Errorf("%w: metadata %q: want no key that begins with %q", ErrName, k, reservedPrefix)
		}
		f.Meta[k] = v
	}
	for _, l := range g.Layers {
		for p, t := range l.Params {
			f.Tensors[paramName(l.Name, p)] = t
		}
	}
	for name, t := range extra {
		f.Tensors[extraPrefix+name] = t
	}
	return Write(w, f)
}

func paramName(layer, param string) string { return modelPrefix + layer + "." + param }

// Checkpoint is what WriteGraph wrote.
type Checkpoint struct {
	Graph *model.Graph
	Extra map[string]*model.Tensor
	Meta  map[string]string
}

// ReadGraph reads a checkpoint. Every parameter of the structure must be there with
// its shape, and no tensor that belongs to neither the graph nor the extras. Errors
// are Read's, and the graph's sentinels.
func ReadGraph(r io.Reader, limits Limits) (*Checkpoint, error) {
	f, err := Read(r, limits)
	if err != nil {
		return nil, err
	}
	structure, ok := f.Meta[structureKey]
	if !ok {
		return nil, fmt.Errorf("%w: no %s in the metadata", ErrCorrupt, structureKey)
	}
	g, err := model.UnmarshalStructure([]byte(structure))
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrCorrupt, structureKey, err)
	}
	delete(f.Meta, structureKey)
	c := &Checkpoint{Graph: g, Extra: map[string]*model.Tensor{}, Meta: f.Meta}
	if err := c.takeParams(f.Tensors); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(f.Tensors)) {
		short, ok := strings.CutPrefix(name, extraPrefix)
		if !ok {
			return nil, fmt.Errorf("%w: tensor %q belongs to no layer", ErrCorrupt, name)
		}
		c.Extra[short] = f.Tensors[name]
	}
	if err := g.Validate(); err != nil {
		return nil, err
	}
	return c, nil
}

// takeParams moves the parameters from tensors into the graph.
func (c *Checkpoint) takeParams(tensors map[string]*model.Tensor) error {
	shapes, err := c.Graph.Shapes()
	if err != nil {
		return err
	}
	for i := range c.Graph.Layers {
		l := &c.Graph.Layers[i]
		l.Params = map[string]*model.Tensor{}
		want := model.ParamShapes(l.Op, c.Graph.InputShapes(i, shapes)[0])
		for _, p := range slices.Sorted(maps.Keys(want)) {
			name := paramName(l.Name, p)
			t, ok := tensors[name]
			if !ok {
				return fmt.Errorf("%w: tensor %q is missing", ErrCorrupt, name)
			}
			l.Params[p] = t
			delete(tensors, name)
		}
	}
	return nil
}
