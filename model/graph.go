package model

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Sentinels of this package. Each wrapped error names the layer, the field, its
// value and what would be right.
var (
	// ErrShape: a shape, or the number of values for it, is wrong.
	ErrShape = errors.New("invalid shape")
	// ErrGraph: the graph's structure is wrong.
	ErrGraph = errors.New("invalid graph")
)

// Input is the index that stands for the graph's input in Layer.Inputs.
const Input = -1

// Names of parameters.
const (
	Weight   = "weight"
	Bias     = "bias"
	Scale    = "scale"
	Shift    = "shift"
	Mean     = "mean"
	Variance = "variance"
)

// Graph is a network: layers in topological order, the last one the output.
// A Graph owns its tensors; Clone before changing a shared one.
type Graph struct {
	Name   string
	Input  Shape // of one example, channels last
	Layers []Layer
	Meta   map[string]string // lineage and input normalisation, as files carry it
	Quant  *Quant            // of an int8 network; else nil
}

// Keys of Graph.Meta that every file format keeps.
const (
	MetaMean    = "input.mean" // comma-separated, per channel: x = (raw - mean) / std
	MetaStd     = "input.std"  // comma-separated, per channel
	MetaClasses = "classes"    // comma-separated names of the outputs
	MetaTrial   = "trial"      // the trial that made this model
	MetaJob     = "job"        // the job that made this model
	MetaLineage = "lineage"    // how it was made, as JSON
)

// Layer is one operator with its inputs and parameters.
type Layer struct {
	Name   string // unique in the graph, not empty
	Op     Op
	Inputs []int // indices of earlier layers, or Input
	Params map[string]*Tensor
}

// Clone returns a deep copy.
func (g *Graph) Clone() *Graph {
	c := &Graph{Name: g.Name, Input: slices.Clone(g.Input), Layers: slices.Clone(g.Layers), Meta: maps.Clone(g.Meta), Quant: g.Quant.Clone()}
	for i := range c.Layers {
		l := &c.Layers[i]
		l.Inputs = slices.Clone(l.Inputs)
		if l.Params == nil {
			continue
		}
		l.Params = make(map[string]*Tensor, len(l.Params))
		for k, t := range g.Layers[i].Params {
			l.Params[k] = t.Clone()
		}
	}
	return c
}

// ParamNames lists a layer's parameters in a fixed order.
func (l *Layer) ParamNames() []string { return slices.Sorted(maps.Keys(l.Params)) }

// Index finds a layer by name; -2 and false if there is none.
func (g *Graph) Index(name string) (int, bool) {
	for i := range g.Layers {
		if g.Layers[i].Name == name {
			return i, true
		}
	}
	return -2, false
}

// Consumers lists, for every layer, the layers that read its output, in order.
func (g *Graph) Consumers() [][]int {
	out := make([][]int, len(g.Layers))
	for i, l := range g.Layers {
		for _, in := range l.Inputs {
			if n := len(out[max(in, 0)]); in != Input && (n == 0 || out[in][n-1] != i) {
				out[in] = append(out[in], i)
			}
		}
	}
	return out
}

// Validate checks structure, shapes and parameters of the whole graph.
func (g *Graph) Validate() error {
	if len(g.Layers) == 0 {
		return fmt.Errorf("%w: no layers", ErrGraph)
	}
	shapes, err := g.Shapes()
	if err != nil {
		return err
	}
	for i := range g.Layers {
		if err := g.checkParams(i, shapes); err != nil {
			return err
		}
	}
	if g.Quant != nil {
		return g.checkQuant()
	}
	return nil
}
