package model

import (
	"fmt"
	"maps"
	"slices"
)

// ParamShapes gives the shape of each parameter that op has for an input of
// shape in. Operators without parameters give an empty map.
func ParamShapes(op Op, in Shape) map[string]Shape {
	switch o := op.(type) {
	case Conv:
		m := map[string]Shape{Weight: {o.Kernel[0], o.Kernel[1], in[2] / o.Groups, o.Out}}
		if o.Bias {
			m[Bias] = Shape{o.Out}
		}
		return m
	case Dense:
		m := map[string]Shape{Weight: {in[0], o.Out}}
		if o.Bias {
			m[Bias] = Shape{o.Out}
		}
		return m
	case BatchNorm:
		c := Shape{in[len(in)-1]}
		return map[string]Shape{Scale: c, Shift: c, Mean: c, Variance: c}
	}
	return map[string]Shape{}
}

// InputShapes gives the shapes of layer i's inputs, from the result of Shapes.
func (g *Graph) InputShapes(i int, shapes []Shape) []Shape {
	in := make([]Shape, len(g.Layers[i].Inputs))
	for k, j := range g.Layers[i].Inputs {
		if j == Input {
			in[k] = g.Input
		} else {
			in[k] = shapes[j]
		}
	}
	return in
}

func (g *Graph) checkParams(i int, shapes []Shape) error {
	l := &g.Layers[i]
	want := ParamShapes(l.Op, g.InputShapes(i, shapes)[0])
	for _, name := range l.ParamNames() {
		if _, ok := want[name]; !ok {
			return fmt.Errorf("%w: layer %q: %s has no parameter %q", ErrGraph, l.Name, l.Op.Kind(), name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		t, s := l.Params[name], want[name]
		if t == nil {
			return fmt.Errorf("%w: layer %q: parameter %q is missing", ErrGraph, l.Name, name)
		}
		if err := t.Check(); err != nil {
			return fmt.Errorf("layer %q: parameter %q: %w", l.Name, name, err)
		}
		if !t.Shape.Equal(s) {
			return fmt.Errorf("%w: layer %q: parameter %q is %v: want %v", ErrShape, l.Name, name, []int(t.Shape), []int(s))
		}
	}
	return nil
}
