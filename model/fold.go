package model

import (
	"math"
	"slices"
)

// FoldBatchNorm returns a copy of g for inference in which every batch normalisation
// that is the only reader of a convolution or fully connected layer is folded into
// that layer's weight and bias: w·s and (b - mean)·s + shift with
// s = scale/√(variance + epsilon), computed in float64. The layer keeps its name.
// Other batch normalisations stay. The error is Validate's.
func FoldBatchNorm(g *Graph) (*Graph, error) {
	if err := g.Validate(); err != nil {
		return nil, err
	}
	g = g.Clone()
	drop := make([]bool, len(g.Layers))
	consumers := g.Consumers()
	for i := range g.Layers {
		bn, ok := g.Layers[i].Op.(BatchNorm)
		if !ok {
			continue
		}
		j := g.Layers[i].Inputs[0]
		if j == Input || len(consumers[j]) != 1 {
			continue
		}
		if folded, ok := foldInto(g.Layers[j], g.Layers[i].Params, bn.Epsilon); ok {
			// It takes the place of the batch normalisation, so that the graph's last
			// layer stays its last.
			g.Layers[i], drop[j] = folded, true
		}
	}
	remove(g, drop)
	g.SettleQuant()
	return g, g.Validate()
}

func foldInto(l Layer, bn map[string]*Tensor, epsilon float32) (Layer, bool) {
	switch o := l.Op.(type) {
	case Conv:
		o.Bias = true
		l.Op = o
	case Dense:
		o.Bias = true
		l.Op = o
	default:
		return l, false
	}
	w, b := l.Params[Weight], l.Params[Bias]
	n := w.Shape[len(w.Shape)-1]
	if b == nil {
		b = NewTensor(n)
		l.Params[Bias] = b
	}
	s := make([]float64, n)
	for c := range s {
		s[c] = float64(bn[Scale].Data[c]) / math.Sqrt(float64(bn[Variance].Data[c])+float64(epsilon))
		b.Data[c] = float32((float64(b.Data[c])-float64(bn[Mean].Data[c]))*s[c] + float64(bn[Shift].Data[c]))
	}
	for i, v := range w.Data {
		w.Data[i] = float32(float64(v) * s[i%n])
	}
	return l, true
}

// Simplify returns a copy of g without what inference does not need: dropout, and
// layers whose output nobody reads. The error is Validate's.
func Simplify(g *Graph) (*Graph, error) {
	if err := g.Validate(); err != nil {
		return nil, err
	}
	g = g.Clone()
	last := len(g.Layers) - 1
	drop, to := make([]bool, len(g.Layers)), make([]int, len(g.Layers))
	for i := range g.Layers {
		l := &g.Layers[i]
		for k, j := range l.Inputs {
			if j != Input {
				l.Inputs[k] = to[j]
			}
		}
		to[i] = i
		if _, ok := l.Op.(Dropout); ok && i < last {
			drop[i], to[i] = true, l.Inputs[0]
		}
	}
	// A dropout at the very end goes with the layer before it taking its place.
	if _, ok := g.Layers[last].Op.(Dropout); ok {
		if j := g.Layers[last].Inputs[0]; j != Input && len(readers(g, drop, j)) == 1 {
			g.Layers[last], drop[j] = g.Layers[j], true
		}
	}
	markDead(g, drop)
	remove(g, drop)
	g.SettleQuant()
	return g, g.Validate()
}

// readers lists the layers not dropped that read layer j.
func readers(g *Graph, drop []bool, j int) []int {
	var out []int
	for i, l := range g.Layers {
		if !drop[i] && slices.Contains(l.Inputs, j) {
			out = append(out, i)
		}
	}
	return out
}

// markDead drops the layers from which no path leads to the output.
func markDead(g *Graph, drop []bool) {
	live := make([]bool, len(g.Layers))
	live[len(live)-1] = true
	for i := len(g.Layers) - 1; i >= 0; i-- {
		for _, j := range g.Layers[i].Inputs {
			if j != Input && live[i] {
				live[j] = true
			}
		}
		drop[i] = drop[i] || !live[i]
	}
}

// remove takes the dropped layers out; none of the others may read one.
func remove(g *Graph, drop []bool) {
	to := make([]int, len(g.Layers))
	var keep []Layer
	for i, l := range g.Layers {
		if drop[i] {
			continue
		}
		for k, j := range l.Inputs {
			if j != Input {
				l.Inputs[k] = to[j]
			}
		}
		to[i] = len(keep)
		keep = append(keep, l)
	}
	g.Layers = keep
}
