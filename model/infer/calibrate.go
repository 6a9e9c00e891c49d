package infer

import (
	"context"
	"fmt"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/quantize"
)

// Quantize makes an int8 network of a float32 one: its weights are rounded, and its
// activations become bytes by what they are on some examples (a few hundred will do).
// The copy that it returns has no batch normalisation that could be folded. The error
// wraps model.ErrQuant where nothing of the graph can be computed on bytes.
func Quantize(ctx context.Context, g *model.Graph, src Examples, indices []int32) (*model.Graph, error) {
	g, err := quantize.Prepare(g)
	if err != nil {
		return nil, err
	}
	input, layers, err := calibrate(ctx, g, src, indices)
	if err != nil {
		return nil, err
	}
	return quantize.Graph(g, input, layers)
}

// calibrate finds how a graph's input and its activations become bytes.
func calibrate(ctx context.Context, g *model.Graph, src Examples, indices []int32) (input model.Affine, layers map[string]model.Affine, err error) {
	if len(indices) == 0 {
		return input, nil, fmt.Errorf("%w: no examples to calibrate on", ErrLength)
	}
	p, err := Compile(g, Options{Batch: calibrateBatch, apart: true})
	if err != nil {
		return input, nil, err
	}
	c := &calibration{p: p, seen: make([]quantize.Observer, len(p.prog.sizes))}
	for _, look := range []func(o *quantize.Observer, x []float32) error{
		(*quantize.Observer).Range,
		func(o *quantize.Observer, x []float32) error { o.Count(x); return nil },
	} {
		if err := c.pass(ctx, src, indices, look); err != nil {
			return input, nil, err
		}
	}
	if input, err = c.seen[inputValue].Affine(); err != nil {
		return input, nil, fmt.Errorf("input: %w", err)
	}
	layers = map[string]model.Affine{}
	for i, st := range p.prog.steps {
		if layers[p.prog.info[i].last()], err = c.seen[*st.output()].Affine(); err != nil {
			return input, nil, fmt.Errorf("layer %q: %w", p.prog.info[i].Name, err)
		}
	}
	return input, layers, nil
}

// last is the name of the layer whose output a step computes.
func (l *Layer) last() string {
	if n := len(l.Fused); n > 0 {
		return l.Fused[n-1]
	}
	return l.Name
}

// calibrateBatch is the number of examples of one run of calibrate.
const calibrateBatch = 16

type calibration struct {
	p    *Plan
	seen []quantize.Observer // by value
}

// pass looks at every value on every example.
func (c *calibration) pass(ctx context.Context, src Examples, indices []int32, look func(*quantize.Observer, []float32) error) error {
	p, f := c.p, c.p.frames[0]
	in, out := p.InputSize(), p.OutputSize()
	x, y, labels := make([]float32, p.chunk*in), make([]float32, p.chunk*out), make([]int32, p.chunk)
	for len(indices) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(p.chunk, len(indices))
		src.Batch(x[:n*in], labels[:n], indices[:n])
		indices = indices[n:]
		f.values[inputValue], f.values[p.prog.out] = x, y
		if err := look(&c.seen[inputValue], x[:n*in]); err != nil {
			return fmt.Errorf("input: %w", err)
		}
		for i, s := range p.prog.steps {
			if err := s.run(f, n); err != nil {
				return fmt.Errorf("layer %q: %w", p.prog.info[i].Name, err)
			}
			v := *s.output()
			if err := look(&c.seen[v], f.values[v][:n*p.prog.sizes[v]]); err != nil {
				return fmt.Errorf("layer %q: %w", p.prog.info[i].Name, err)
			}
		}
	}
	return nil
}
