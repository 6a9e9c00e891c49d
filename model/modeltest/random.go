package modeltest

import (
	"fmt"
	"math/rand/v2"

	"github.com/espalier-ml/espalier/model"
)

// Graph makes a small valid random graph from seed: convolutions (also depthwise and
// grouped, strided, dilated, padded), batch normalisation, activations, pools,
// residual adds, concats, pads, reshapes and dropout on an image, then a flatten or
// global pool and fully connected layers to a few outputs, at times with softmax.
// Parameters are random, variances positive.
func Graph(seed uint64) *model.Graph {
	r := rand.New(rand.NewPCG(seed, 0x657370))
	c := 1 + r.IntN(4)
	g := &model.Graph{Name: fmt.Sprintf("random-%d", seed), Input: model.Shape{5 + r.IntN(6), 5 + r.IntN(6), c}}
	b := &random{g: g, r: r}
	for range 2 + r.IntN(7) {
		b.imageLayer()
	}
	switch r.IntN(4) {
	case 0:
		b.add(model.GlobalAvgPool{})
	case 1:
		b.add(model.Reshape{Shape: model.Shape{b.shape().Elements()}})
	default:
		b.add(model.Flatten{})
	}
	for range r.IntN(3) {
		b.add(model.Dense{Out: 1 + r.IntN(9), Bias: r.IntN(4) > 0})
		b.vectorLayer()
	}
	b.add(model.Dense{Out: 1 + r.IntN(5), Bias: r.IntN(4) > 0})
	if r.IntN(3) == 0 {
		b.add(model.Softmax{})
	}
	Fill(g, seed)
	return g
}

// Example is a random input of g.
func Example(g *model.Graph, seed uint64) []float32 {
	r := rand.New(rand.NewPCG(seed, 0x696e))
	x := make([]float32, g.Input.Elements())
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

// Fill gives every layer of a structurally valid graph random parameters. It panics
// on a graph whose shapes are wrong.
func Fill(g *model.Graph, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 0x66696c6c))
	shapes, err := g.Shapes()
	if err != nil {
		panic(err)
	}
	for i := range g.Layers {
		l := &g.Layers[i]
		l.Params = map[string]*model.Tensor{}
		want := model.ParamShapes(l.Op, g.InputShapes(i, shapes)[0])
		for _, name := range []string{model.Weight, model.Bias, model.Scale, model.Shift, model.Mean, model.Variance} {
			s, ok := want[name]
			if !ok {
				continue
			}
			t := model.NewTensor(s...)
			for k := range t.Data {
				t.Data[k] = float32(0.5 * r.NormFloat64())
				if name == model.Variance {
					t.Data[k] = 0.1 + t.Data[k]*t.Data[k]
				}
			}
			l.Params[name] = t
		}
	}
}

type random struct {
	g *model.Graph
	r *rand.Rand
}

func (b *random) last() int { return len(b.g.Layers) - 1 }

func (b *random) shape() model.Shape { return b.shapes()[b.last()+1] }

// shapes lists the input's shape, then every layer's.
func (b *random) shapes() []model.Shape {
	s, err := b.g.Shapes()
	if err != nil {
		panic(err)
	}
	return append([]model.Shape{b.g.Input}, s...)
}

func (b *random) add(op model.Op, inputs ...int) int {
	if len(inputs) == 0 {
		inputs = []int{b.last()}
	}
	b.g.Layers = append(b.g.Layers, model.Layer{Name: fmt.Sprintf("%s-%d", op.Kind(), len(b.g.Layers)), Op: op, Inputs: inputs})
	return b.last()
}

func (b *random) conv(out, groups int) model.Conv {
	s, pick := b.shape(), func(limit int) int { return 1 + b.r.IntN(min(limit, 3)) }
	o := model.Conv{Out: out, Groups: groups, Kernel: [2]int{pick(s[0]), pick(s[1])}, Stride: [2]int{1, 1}, Dilation: [2]int{1, 1}, Bias: b.r.IntN(4) > 0}
	o.Pad = model.Pad2D{Top: b.r.IntN(3), Left: b.r.IntN(3), Bottom: b.r.IntN(3), Right: b.r.IntN(3)}
	if s[0] > 5 && s[1] > 5 {
		o.Stride = [2]int{1 + b.r.IntN(2), 1 + b.r.IntN(2)}
		o.Dilation = [2]int{1 + b.r.IntN(2), 1 + b.r.IntN(2)}
	}
	return o
}

func (b *random) activation() model.Activation {
	all := []model.Func{model.ReLU, model.ReLU6, model.LeakyReLU, model.Sigmoid, model.Tanh, model.HardSwish}
	a := model.Activation{Func: all[b.r.IntN(len(all))]}
	if a.Func == model.LeakyReLU {
		a.Alpha = 0.1
	}
	return a
}

func (b *random) imageLayer() {
	s := b.shape()
	c := s[2]
	switch b.r.IntN(13) {
	case 0, 1, 2:
		b.add(b.conv(1+b.r.IntN(8), 1))
	case 3: // depthwise, at times with a multiplier
		b.add(b.conv(c*(1+b.r.IntN(2)), c))
	case 4: // grouped: make the channels a multiple first
		n := 2 + b.r.IntN(3)
		b.add(b.conv(n*(1+b.r.IntN(3)), 1))
		b.add(b.conv(n*(1+b.r.IntN(3)), n))
	case 5:
		b.add(model.BatchNorm{Epsilon: 1e-3, Momentum: 0.1})
	case 6:
		b.add(b.activation())
	case 7:
		if s[0] > 3 && s[1] > 3 {
			b.add(model.MaxPool{Kernel: [2]int{2, 2}, Stride: [2]int{1 + b.r.IntN(2), 2}, Pad: model.Pad2D{Left: b.r.IntN(2)}})
		}
	case 8:
		if s[0] > 3 && s[1] > 3 {
			b.add(model.AvgPool{Kernel: [2]int{2, 2}, Stride: [2]int{2, 1 + b.r.IntN(2)}, Pad: model.Pad2D{Bottom: b.r.IntN(2)}, CountPad: b.r.IntN(2) == 0})
		}
	case 9, 10:
		b.join(b.r.IntN(3) == 0)
	case 11:
		b.add(model.Pad{Pad: model.Pad2D{Top: b.r.IntN(2), Right: b.r.IntN(2)}})
	case 12:
		if b.r.IntN(2) == 0 {
			b.add(model.Reshape{Shape: model.Shape{s[1], s[0], c}})
		} else {
			b.add(model.Dropout{Rate: 0.3})
		}
	}
}

// join adds or concatenates the newest output with an earlier one; where no earlier
// one has the shape, with a new convolution's.
func (b *random) join(concat bool) {
	all := b.shapes()
	at, s := b.last(), b.shape()
	var fits []int
	for i, o := range all[:len(all)-1] {
		if len(o) == 3 && o[0] == s[0] && o[1] == s[1] && (concat || o[2] == s[2]) {
			fits = append(fits, i-1)
		}
	}
	other := 0
	if len(fits) > 0 && b.r.IntN(4) > 0 {
		other = fits[b.r.IntN(len(fits))]
	} else {
		other = b.add(model.Conv{Out: s[2], Kernel: [2]int{1, 1}, Stride: [2]int{1, 1}, Dilation: [2]int{1, 1}, Groups: 1}, at)
	}
	if concat {
		b.add(model.Concat{}, at, other)
		return
	}
	b.add(model.Add{}, at, other)
}

func (b *random) vectorLayer() {
	switch b.r.IntN(5) {
	case 0:
		b.add(model.BatchNorm{Epsilon: 1e-3, Momentum: 0.1})
	case 1:
		b.add(model.Dropout{Rate: 0.5})
	case 2:
		at, n := b.last(), b.shape()[0]
		b.add(model.Add{}, at, b.add(model.Dense{Out: n, Bias: true}, at))
	case 3:
		at := b.last()
		b.add(model.Concat{}, b.add(model.Dense{Out: 2}, at), at)
	default:
		b.add(b.activation())
	}
}
