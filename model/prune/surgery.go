package prune

import (
	"fmt"
	"maps"
	"slices"

	"github.com/espalier-ml/espalier/model"
)

// Rebuild carries out a plan on a copy of g. Removed channels are gone: from their
// producers' filters and biases, from what follows them channel by channel (batch
// normalisation, depthwise convolutions), and from their consumers' inputs, through
// flattening, concatenation and addition. Masked weights are zero; the masks, cut to
// the new shapes, are returned for training to hold. What the rebuilt graph computes is
// exactly what g computes when nobody reads the removed channels. Errors wrap ErrPlan,
// ErrWeights or the graph's sentinels.
func Rebuild(g *model.Graph, plan *Plan) (*model.Graph, *Masks, error) {
	a, err := analyse(g)
	if err != nil {
		return nil, nil, err
	}
	if err := plan.Masks.Check(g); err != nil {
		return nil, nil, err
	}
	s, err := a.surgery(plan)
	if err != nil {
		return nil, nil, err
	}
	out := g.Clone()
	masks := &Masks{}
	for i := range out.Layers {
		s.cut(i, &out.Layers[i])
		l := &g.Layers[i]
		if keep := plan.Masks.Of(l.Name); keep != nil {
			masks.Set(l.Name, slice(keep, s.axes(i, l.Params[model.Weight].Shape)))
		}
	}
	if err := masks.Apply(out); err != nil {
		return nil, nil, err
	}
	if err := out.Validate(); err != nil {
		return nil, nil, fmt.Errorf("rebuild: %w", err)
	}
	return out, masks, nil
}

// surgery knows which channels of each layer's output stay.
type surgery struct {
	a     *analysis
	input []int
	kept  [][]int // by layer: indices along the last dimension of its output, ascending
}

func (a *analysis) surgery(plan *Plan) (*surgery, error) {
	stays := make([][]bool, len(a.groups))
	for k := range a.groups {
		stays[k] = make([]bool, a.groups[k].Channels)
		for c := range stays[k] {
			stays[k][c] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(plan.Keep)) {
		k := slices.IndexFunc(a.groups, func(g Group) bool { return g.Name == name })
		if k < 0 {
			return nil, fmt.Errorf("%w: keep of %q: the graph has no such group", ErrPlan, name)
		}
		if err := a.groups[k].mark(plan.Keep[name], stays[k]); err != nil {
			return nil, err
		}
	}
	s := &surgery{a: a, kept: make([][]int, len(a.out))}
	for c := range a.input {
		s.input = append(s.input, c)
	}
	for i, labels := range a.out {
		for c, l := range labels {
			// Only the input's own channels belong to no group.
			if p, ok := a.at[a.find(l)]; !ok || stays[p.group][p.channel] {
				s.kept[i] = append(s.kept[i], c)
			}
		}
		if len(s.kept[i]) == 0 {
			return nil, fmt.Errorf("%w: layer %q would lose all its channels: want one or more to stay", ErrPlan, a.g.Layers[i].Name)
		}
	}
	return s, nil
}

// mark sets stays to the channels in keep.
func (g *Group) mark(keep []int, stays []bool) error {
	clear(stays)
	for n, c := range keep {
		if c < 0 || c >= g.Channels || (n > 0 && c <= keep[n-1]) {
			return fmt.Errorf("%w: group %q: keep[%d] is %d: want ascending channels below %d", ErrPlan, g.Name, n, c, g.Channels)
		}
		stays[c] = true
	}
	if len(keep) < g.Channels && !g.Prunable {
		return fmt.Errorf("%w: group %q: %d of %d channels kept: want all, they cannot be removed", ErrPlan, g.Name, len(keep), g.Channels)
	}
	return nil
}

// keptInputs are the channels that stay of what layer i reads first.
func (s *surgery) keptInputs(i int) []int {
	if j := s.a.g.Layers[i].Inputs[0]; j != model.Input {
		return s.kept[j]
	}
	return s.input
}

// axes gives, for each dimension of layer i's weight, the indices that stay; nil: all.
func (s *surgery) axes(i int, shape model.Shape) []axis {
	out := make([]axis, len(shape))
	for d, n := range shape {
		out[d] = axis{n: n}
	}
	switch o := s.a.g.Layers[i].Op.(type) {
	case model.Conv:
		if o.Groups == 1 {
			out[2].keep = s.keptInputs(i)
		}
		out[3].keep = s.kept[i]
	case model.Dense:
		out[0].keep = s.keptInputs(i)
		out[1].keep = s.kept[i]
	}
	return out
}

// cut takes the removed channels out of layer i's operator and parameters.
func (s *surgery) cut(i int, l *model.Layer) {
	out := s.kept[i]
	switch o := l.Op.(type) {
	case model.Conv:
		if o.Groups > 1 {
			o.Groups = len(out) / (o.Out / o.Groups)
		}
		o.Out = len(out)
		l.Op = o
	case model.Dense:
		o.Out = len(out)
		l.Op = o
	case model.Reshape:
		o.Shape = slices.Clone(o.Shape)
		o.Shape[len(o.Shape)-1] = len(out)
		l.Op = o
	}
	for name, t := range l.Params {
		axes := []axis{{n: t.Shape[0], keep: out}}
		if name == model.Weight {
			axes = s.axes(i, t.Shape)
		}
		cut := &model.Tensor{Data: slice(t.Data, axes)}
		for _, x := range axes {
			cut.Shape = append(cut.Shape, x.len())
		}
		l.Params[name] = cut
	}
}

// axis is one dimension of n, of which the indices in keep stay; nil: all.
type axis struct {
	n    int
	keep []int
}

func (x axis) len() int {
	if x.keep == nil {
		return x.n
	}
	return len(x.keep)
}

// slice takes the sub-array of what stays, in row-major order.
func slice[T any](data []T, axes []axis) []T {
	size := 1
	for _, x := range axes {
		size *= x.len()
	}
	return appendSlice(make([]T, 0, size), data, axes)
}

func appendSlice[T any](out, data []T, axes []axis) []T {
	x := axes[0]
	step := len(data) / x.n
	if x.keep == nil && len(axes) == 1 {
		return append(out, data...)
	}
	for k := range x.len() {
		i := k
		if x.keep != nil {
			i = x.keep[k]
		}
		if len(axes) == 1 {
			out = append(out, data[i])
		} else {
			out = appendSlice(out, data[i*step:(i+1)*step], axes[1:])
		}
	}
	return out
}
