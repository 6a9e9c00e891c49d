// Package modeltest holds what tests of the model rooms share: a plain evaluator of
// every operator, to be trusted because it is short, and random graphs.
package modeltest

import (
	"fmt"
	"math"
	"slices"

	"github.com/espalier-ml/espalier/model"
)

// Run evaluates g on one example x (g.Input, channels last) and returns the output
// of every layer. Sums are in float64, in index order; each layer's output is
// rounded to float32 once. Batch normalisation uses the running statistics and
// dropout passes its input on, as in inference.
func Run(g *model.Graph, x []float32) ([][]float32, error) {
	if err := g.Validate(); err != nil {
		return nil, err
	}
	if len(x) != g.Input.Elements() {
		return nil, fmt.Errorf("%w: %d values for input %v", model.ErrShape, len(x), []int(g.Input))
	}
	shapes, err := g.Shapes()
	if err != nil {
		return nil, err
	}
	outs := make([][]float32, len(g.Layers))
	for i := range g.Layers {
		l := &g.Layers[i]
		in := make([][]float32, len(l.Inputs))
		for k, j := range l.Inputs {
			in[k] = x
			if j != model.Input {
				in[k] = outs[j]
			}
		}
		out := make([]float32, shapes[i].Elements())
		apply(l, g.InputShapes(i, shapes), in, shapes[i], out)
		outs[i] = out
	}
	return outs, nil
}

// Output is the last of Run's outputs.
func Output(g *model.Graph, x []float32) ([]float32, error) {
	outs, err := Run(g, x)
	if err != nil {
		return nil, err
	}
	return outs[len(outs)-1], nil
}

func apply(l *model.Layer, is []model.Shape, in [][]float32, os model.Shape, out []float32) {
	x := in[0]
	switch o := l.Op.(type) {
	case model.Conv:
		conv(o, l.Params, is[0], x, os, out)
	case model.Dense:
		dense(l.Params, x, out)
	case model.MaxPool:
		pool(o.Kernel, o.Stride, o.Pad, is[0], x, os, out, maximum)
	case model.AvgPool:
		pool(o.Kernel, o.Stride, o.Pad, is[0], x, os, out, func(window []float64) float64 {
			n := len(window)
			if o.CountPad {
				n = o.Kernel[0] * o.Kernel[1]
			}
			return sum(window) / float64(n)
		})
	case model.GlobalAvgPool:
		pool([2]int{is[0][0], is[0][1]}, [2]int{1, 1}, model.Pad2D{}, is[0], x, model.Shape{1, 1, is[0][2]}, out, func(w []float64) float64 {
			return sum(w) / float64(len(w))
		})
	case model.BatchNorm:
		p, c := l.Params, os[len(os)-1]
		for i, v := range x {
			k := i % c
			n := (float64(v) - float64(p[model.Mean].Data[k])) / math.Sqrt(float64(p[model.Variance].Data[k])+float64(o.Epsilon))
			out[i] = float32(n*float64(p[model.Scale].Data[k]) + float64(p[model.Shift].Data[k]))
		}
	case model.Activation:
		for i, v := range x {
			out[i] = float32(activate(o, float64(v)))
		}
	case model.Softmax:
		c := os[len(os)-1]
		for i := 0; i < len(x); i += c {
			softmax(x[i:i+c], out[i:i+c])
		}
	case model.Add:
		for i, v := range x {
			out[i] = v + in[1][i]
		}
	case model.Concat:
		concat(is, in, os, out)
	case model.Pad:
		for y := range is[0][0] {
			row := is[0][1] * is[0][2]
			copy(out[((y+o.Pad.Top)*os[1]+o.Pad.Left)*os[2]:], x[y*row:(y+1)*row])
		}
	case model.Flatten, model.Reshape, model.Dropout:
		copy(out, x)
	default:
		panic(fmt.Sprintf("modeltest: operator %T", o))
	}
}

func conv(o model.Conv, p map[string]*model.Tensor, is model.Shape, x []float32, os model.Shape, out []float32) {
	w := p[model.Weight].Data
	gi, gout := is[2]/o.Groups, os[2]/o.Groups
	for oy := range os[0] {
		for ox := range os[1] {
			for oc := range os[2] {
				acc := 0.0
				for ky := range o.Kernel[0] {
					for kx := range o.Kernel[1] {
						y, xx := oy*o.Stride[0]+ky*o.Dilation[0]-o.Pad.Top, ox*o.Stride[1]+kx*o.Dilation[1]-o.Pad.Left
						if y < 0 || y >= is[0] || xx < 0 || xx >= is[1] {
							continue
						}
						for k := range gi {
							ic := oc/gout*gi + k
							acc += float64(x[(y*is[1]+xx)*is[2]+ic]) * float64(w[((ky*o.Kernel[1]+kx)*gi+k)*os[2]+oc])
						}
					}
				}
				if o.Bias {
					acc += float64(p[model.Bias].Data[oc])
				}
				out[(oy*os[1]+ox)*os[2]+oc] = float32(acc)
			}
		}
	}
}

func dense(p map[string]*model.Tensor, x, out []float32) {
	w, b := p[model.Weight].Data, p[model.Bias]
	for j := range out {
		acc := 0.0
		for i, v := range x {
			acc += float64(v) * float64(w[i*len(out)+j])
		}
		if b != nil {
			acc += float64(b.Data[j])
		}
		out[j] = float32(acc)
	}
}

func pool(kernel, stride [2]int, pad model.Pad2D, is model.Shape, x []float32, os model.Shape, out []float32, reduce func([]float64) float64) {
	window := make([]float64, 0, kernel[0]*kernel[1])
	for oy := range os[0] {
		for ox := range os[1] {
			for c := range os[2] {
				window = window[:0]
				for ky := range kernel[0] {
					for kx := range kernel[1] {
						y, xx := oy*stride[0]+ky-pad.Top, ox*stride[1]+kx-pad.Left
						if y >= 0 && y < is[0] && xx >= 0 && xx < is[1] {
							window = append(window, float64(x[(y*is[1]+xx)*is[2]+c]))
						}
					}
				}
				out[(oy*os[1]+ox)*os[2]+c] = float32(reduce(window))
			}
		}
	}
}

func maximum(w []float64) float64 { return slices.Max(w) }

func sum(w []float64) float64 {
	s := 0.0
	for _, v := range w {
		s += v
	}
	return s
}

func activate(a model.Activation, v float64) float64 {
	switch a.Func {
	case model.ReLU:
		return max(v, 0)
	case model.ReLU6:
		return min(max(v, 0), 6)
	case model.LeakyReLU:
		if v < 0 {
			return v * float64(a.Alpha)
		}
		return v
	case model.Sigmoid:
		return 1 / (1 + math.Exp(-v))
	case model.Tanh:
		return math.Tanh(v)
	case model.HardSwish:
		return v * min(max(v+3, 0), 6) / 6
	}
	panic("modeltest: activation " + string(a.Func))
}

func softmax(x, out []float32) {
	top, total := slices.Max(x), 0.0
	for _, v := range x {
		total += math.Exp(float64(v - top))
	}
	for i, v := range x {
		out[i] = float32(math.Exp(float64(v-top)) / total)
	}
}

func concat(is []model.Shape, in [][]float32, os model.Shape, out []float32) {
	c, at := os[len(os)-1], 0
	for k, s := range is {
		ck := s[len(s)-1]
		for i := 0; i*ck < len(in[k]); i++ {
			copy(out[i*c+at:], in[k][i*ck:(i+1)*ck])
		}
		at += ck
	}
}
