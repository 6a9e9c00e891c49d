package quantize

import (
	"fmt"

	"github.com/espalier-ml/espalier/model"
)

// Prepare returns a copy of g as int8 networks have it: dropout and what nobody reads
// is gone, batch normalisations are folded into the layer before them, and a padding is
// part of the convolution that alone reads it. The error is Validate's, or says that g
// is an int8 network already.
func Prepare(g *model.Graph) (*model.Graph, error) {
	if err := g.WantFloat(); err != nil {
		return nil, err
	}
	g, err := model.Simplify(g)
	if err != nil {
		return nil, err
	}
	if g, err = model.FoldBatchNorm(g); err != nil {
		return nil, err
	}
	consumers := g.Consumers()
	for i := range g.Layers {
		c, ok := g.Layers[i].Op.(model.Conv)
		j := g.Layers[i].Inputs[0]
		if !ok || j == model.Input || len(consumers[j]) != 1 {
			continue
		}
		if p, ok := g.Layers[j].Op.(model.Pad); ok {
			c.Pad.Top, c.Pad.Left = c.Pad.Top+p.Pad.Top, c.Pad.Left+p.Pad.Left
			c.Pad.Bottom, c.Pad.Right = c.Pad.Bottom+p.Pad.Bottom, c.Pad.Right+p.Pad.Right
			g.Layers[i].Op, g.Layers[i].Inputs[0] = c, g.Layers[j].Inputs[0]
		}
	}
	return model.Simplify(g)
}

// Graph makes an int8 network of a prepared one, given how its activations become bytes:
// those of the input, and of the outputs of layers by name, as far as they are known.
// Every layer with weights between two known ones is computed on bytes; its weights and
// bias are rounded. The error wraps model.ErrQuant where no layer is.
func Graph(g *model.Graph, input model.Affine, layers map[string]model.Affine) (*model.Graph, error) {
	g = g.Clone()
	known := &model.Quant{Input: input, Layers: layers}
	if err := known.Check(); err != nil {
		return nil, err
	}
	r := &rounding{g: g, known: known, consumers: g.Consumers(),
		out: &model.Quant{Layers: map[string]model.Affine{}, Weights: map[string][]float32{}}}
	for i := range g.Layers {
		r.layer(i)
	}
	if len(r.out.Weights) == 0 {
		return nil, fmt.Errorf("%w: no convolution or fully connected layer can be computed on bytes", model.ErrQuant)
	}
	g.Quant = r.out
	return g, g.Validate()
}

// rounding makes the layers of a graph int8, one after the other.
type rounding struct {
	g         *model.Graph
	known     *model.Quant
	consumers [][]int
	out       *model.Quant // what is in bytes
}

// bytes is how value i is in bytes so far.
func (r *rounding) bytes(i int) (model.Affine, bool) {
	if i == model.Input {
		return r.out.Input, r.out.Input.Scale > 0
	}
	a, ok := r.out.Layers[r.g.Layers[i].Name]
	return a, ok
}

// affine is how value i is in bytes, or would be.
func (r *rounding) affine(i int) (model.Affine, bool) {
	if a, ok := r.bytes(i); ok {
		return a, true
	}
	if i == model.Input {
		return r.known.Input, r.known.Input.Scale > 0
	}
	l := &r.g.Layers[i]
	if a := r.known.Layers[l.Name]; a.Scale > 0 {
		return a, true
	}
	switch l.Op.(type) {
	case model.Flatten, model.Reshape: // the same numbers
		return r.affine(l.Inputs[0])
	}
	return model.Affine{}, false
}

func (r *rounding) set(i int, a model.Affine) {
	if i == model.Input {
		r.out.Input = a
	} else {
		r.out.Layers[r.g.Layers[i].Name] = a
	}
}

func (r *rounding) layer(i int) {
	l := &r.g.Layers[i]
	switch l.Op.(type) {
	case model.MaxPool, model.Flatten, model.Reshape: // bytes stay bytes
		if a, ok := r.bytes(l.Inputs[0]); ok {
			r.set(i, a)
		}
	case model.Conv, model.Dense:
		end := r.g.ByteEnd(i, r.consumers)
		x, okX := r.affine(l.Inputs[0])
		y, okY := r.affine(end)
		if !okX || !okY {
			return
		}
		if scale, ok := round(l, x); ok {
			r.out.Weights[l.Name] = scale
			r.set(l.Inputs[0], x)
			r.set(end, y)
		}
	}
}

// round makes weights and bias the numbers that integers stand for; false where 32 bits
// have no room for the bias.
func round(l *model.Layer, in model.Affine) (scale []float32, ok bool) {
	w, bias := l.Params[model.Weight], l.Params[model.Bias]
	q, scale := Weights(w.Data, w.Shape[len(w.Shape)-1])
	if bias != nil {
		b := bias.Clone()
		for i, v := range b.Data {
			unit := model.BiasUnit(in.Scale, scale[i])
			n, ok := model.BiasUnits(v, unit)
			if !ok {
				return nil, false
			}
			b.Data[i] = float32(float64(n) * float64(unit))
		}
		copy(bias.Data, b.Data)
	}
	for i, v := range q {
		w.Data[i] = float32(v) * scale[i%len(scale)]
	}
	return scale, true
}
