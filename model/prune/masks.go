package prune

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/espalier-ml/espalier/model"
)

// Masks say, for some layers of a graph, which weights are held at zero. The zero
// value holds none.
type Masks struct {
	keep map[string][]bool // by layer, in the order of the weight's values
}

// Set gives a layer's mask: true for each weight that is kept. The slice is not copied.
func (m *Masks) Set(layer string, keep []bool) {
	if m.keep == nil {
		m.keep = map[string][]bool{}
	}
	m.keep[layer] = keep
}

// Of gives a layer's mask, nil if all its weights are kept. It must not be changed.
func (m *Masks) Of(layer string) []bool {
	if m == nil {
		return nil
	}
	return m.keep[layer]
}

// Layers lists the layers that have a mask, sorted.
func (m *Masks) Layers() []string {
	if m == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(m.keep))
}

// Sparsity is the fraction of weights held at zero in the layers that have a mask.
func (m *Masks) Sparsity() float64 {
	held, all := 0, 0
	for _, name := range m.Layers() {
		for _, k := range m.keep[name] {
			if all++; !k {
				held++
			}
		}
	}
	if all == 0 {
		return 0
	}
	return float64(held) / float64(all)
}

// Check verifies that every mask is as long as its layer's weight. Errors wrap ErrWeights.
func (m *Masks) Check(g *model.Graph) error {
	for _, name := range m.Layers() {
		i, ok := g.Index(name)
		if !ok {
			return fmt.Errorf("%w: mask of layer %q: the graph has no such layer", ErrWeights, name)
		}
		w := g.Layers[i].Params[model.Weight]
		if w == nil {
			return fmt.Errorf("%w: mask of layer %q: it has no weight", ErrWeights, name)
		}
		if len(w.Data) != len(m.keep[name]) {
			return fmt.Errorf("%w: mask of layer %q: %d values: want %d", ErrWeights, name, len(m.keep[name]), len(w.Data))
		}
	}
	return nil
}

// Apply sets the masked weights of g to zero, as training does after every step.
// Errors are Check's; then g is unchanged.
func (m *Masks) Apply(g *model.Graph) error {
	if err := m.Check(g); err != nil {
		return err
	}
	for _, name := range m.Layers() {
		i, _ := g.Index(name)
		data := g.Layers[i].Params[model.Weight].Data
		for k, keep := range m.keep[name] {
			if !keep {
				data[k] = 0
			}
		}
	}
	return nil
}

// ByParameter gives the masks by layer and parameter, as training takes them. The slices
// are shared.
func (m *Masks) ByParameter() map[string]map[string][]bool {
	out := map[string]map[string][]bool{}
	for _, name := range m.Layers() {
		out[name] = map[string][]bool{model.Weight: m.keep[name]}
	}
	return out
}

// maskPrefix begins the names of masks among a checkpoint's extras.
const maskPrefix = "mask."

// Tensors gives the masks as tensors of 0 and 1, to travel in a checkpoint.
func (m *Masks) Tensors() map[string]*model.Tensor {
	out := map[string]*model.Tensor{}
	for _, name := range m.Layers() {
		t := model.NewTensor(len(m.keep[name]))
		for k, keep := range m.keep[name] {
			if keep {
				t.Data[k] = 1
			}
		}
		out[maskPrefix+name] = t
	}
	return out
}

// MasksFrom takes the masks out of a checkpoint's extras, ignoring other tensors, and
// checks them against the checkpoint's graph. Errors wrap ErrWeights.
func MasksFrom(extra map[string]*model.Tensor, g *model.Graph) (*Masks, error) {
	m := &Masks{}
	for key, t := range extra {
		name, ok := strings.CutPrefix(key, maskPrefix)
		if !ok {
			continue
		}
		keep := make([]bool, len(t.Data))
		for k, v := range t.Data {
			if v != 0 && v != 1 {
				return nil, fmt.Errorf("%w: mask of layer %q: value %v: want 0 or 1", ErrWeights, name, v)
			}
			keep[k] = v == 1
		}
		m.Set(name, keep)
	}
	return m, m.Check(g)
}
