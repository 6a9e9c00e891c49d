package infer

import (
	"fmt"
	"math"
	"slices"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/kernel"
)

// lowering turns a graph into steps.
type lowering struct {
	g      *model.Graph
	shapes []model.Shape
	uses   [][]int // live readers of each layer
	live   []bool
	value  map[int]int // by layer
	sizes  []int       // of values, for one example
	steps  []step
	info   []Layer
	done   []bool         // layers that were fused into an earlier one
	alias  map[string]int // values by the names of layers that only name them anew
}

const inputValue = 0

func lower(g *model.Graph) (*lowering, error) {
	shapes, err := g.Shapes()
	if err != nil {
		return nil, err
	}
	l := &lowering{g: g, shapes: shapes, value: map[int]int{model.Input: inputValue}, sizes: []int{g.Input.Elements()}, done: make([]bool, len(g.Layers)),
		alias: map[string]int{}}
	l.reach()
	for i := range g.Layers {
		if !l.live[i] || l.done[i] {
			continue
		}
		from := len(l.steps)
		last, err := l.layer(i)
		if err != nil {
			return nil, fmt.Errorf("layer %q: %w", g.Layers[i].Name, err)
		}
		if len(l.steps) > from {
			l.info = append(l.info, l.describe(i, last))
		}
	}
	if out := len(g.Layers) - 1; l.value[out] == inputValue {
		v := l.result(out)
		l.steps = append(l.steps, &copyStep{unary{inputValue, v}, l.sizes[v]})
		l.info = append(l.info, l.describe(out, out))
	}
	return l, nil
}

// reach marks what the output depends on and who reads what.
func (l *lowering) reach() {
	n := len(l.g.Layers)
	l.live = make([]bool, n)
	l.live[n-1] = true
	for i := n - 1; i >= 0; i-- {
		for _, j := range l.g.Layers[i].Inputs {
			if l.live[i] && j != model.Input {
				l.live[j] = true
			}
		}
	}
	l.uses = l.g.Consumers()
	for i, u := range l.uses {
		l.uses[i] = slices.DeleteFunc(u, func(j int) bool { return !l.live[j] })
	}
}

// result makes the value of layer i.
func (l *lowering) result(i int) int {
	l.sizes = append(l.sizes, l.shapes[i].Elements())
	l.value[i] = len(l.sizes) - 1
	return l.value[i]
}

// next gives the only reader of layer i, or false.
func (l *lowering) next(i int) (int, bool) {
	if len(l.uses[i]) != 1 {
		return 0, false
	}
	j := l.uses[i][0]
	return j, len(l.g.Layers[j].Inputs) == 1
}

// absorb fuses a ReLU that is the only reader of layer i; it returns the layer
// whose value the step then computes.
func (l *lowering) absorb(i int) (last int, act kernel.Activation) {
	j, ok := l.next(i)
	if !ok {
		return i, kernel.None
	}
	a, ok := l.g.Layers[j].Op.(model.Activation)
	if !ok {
		return i, kernel.None
	}
	switch a.Func {
	case model.ReLU:
		act = kernel.ReLU
	case model.ReLU6:
		act = kernel.ReLU6
	default:
		return i, kernel.None
	}
	l.done[j] = true
	return j, act
}

// layer lowers layer i, with what can be fused to it; last is the layer whose
// value it computes.
func (l *lowering) layer(i int) (last int, err error) {
	lay := &l.g.Layers[i]
	in, is := l.value[lay.Inputs[0]], l.g.InputShapes(i, l.shapes)[0]
	size := l.shapes[i].Elements()
	last = i
	var s step
	switch o := lay.Op.(type) {
	case model.Conv:
		return l.conv(i, o, model.Pad2D{}, in, is)
	case model.Dense:
		return l.dense(i, o, in, is)
	case model.BatchNorm:
		scale, shift := affine(lay, o)
		var act kernel.Activation
		last, act = l.absorb(i)
		s = &affineStep{unary{in, l.result(last)}, narrow(scale), narrow(shift), size / len(scale), act}
	case model.MaxPool:
		var k *kernel.Pool
		k, err = kernel.NewPool(poolShape(is, o.Kernel, o.Stride, o.Pad, false))
		s = &maxPoolStep{unary{in, l.result(i)}, k}
	case model.AvgPool:
		var k *kernel.Pool
		k, err = kernel.NewPool(poolShape(is, o.Kernel, o.Stride, o.Pad, o.CountPad))
		s = &avgPoolStep{unary{in, l.result(i)}, k}
	case model.GlobalAvgPool:
		s = &globalAvgStep{unary{in, l.result(i)}, is[0] * is[1], is[2]}
	case model.Activation:
		switch o.Func {
		case model.ReLU:
			s = &rectifyStep{unary{in, l.result(i)}, size, kernel.ReLU}
		case model.ReLU6:
			s = &rectifyStep{unary{in, l.result(i)}, size, kernel.ReLU6}
		default:
			s = &functionStep{unary{in, l.result(i)}, size, function(o)}
		}
	case model.Softmax:
		s = &softmaxStep{unary{in, l.result(i)}, size, is[len(is)-1]}
	case model.Add:
		var act kernel.Activation
		last, act = l.absorb(i)
		s = &addStep{in, l.value[lay.Inputs[1]], l.result(last), size, act}
	case model.Concat:
		s = l.concat(i)
	case model.Pad:
		if j, ok := l.next(i); ok {
			if c, ok := l.g.Layers[j].Op.(model.Conv); ok {
				l.done[j] = true
				return l.conv(j, c, o.Pad, in, is)
			}
		}
		s = &padStep{unary{in, l.result(i)}, o.Pad, is[0], is[1], is[2], size}
	case model.Flatten, model.Reshape, model.Dropout:
		l.value[i], l.alias[lay.Name] = in, in
		return i, nil
	default:
		return i, fmt.Errorf("%w: operator %q", ErrGraph, lay.Op.Kind())
	}
	l.steps = append(l.steps, s)
	return last, err
}

func (l *lowering) concat(i int) step {
	s := &concatStep{out: l.result(i)}
	for k, is := range l.g.InputShapes(i, l.shapes) {
		w := is[len(is)-1]
		s.in, s.width = append(s.in, l.value[l.g.Layers[i].Inputs[k]]), append(s.width, w)
		s.rows, s.total = is.Elements()/w, s.total+w
	}
	return s
}

// conv lowers a convolution whose input gets extra padding first.
func (l *lowering) conv(i int, o model.Conv, extra model.Pad2D, in int, is model.Shape) (int, error) {
	k, err := kernel.NewConv(kernel.ConvShape{H: is[0], W: is[1], IC: is[2], OC: o.Out, KH: o.Kernel[0], KW: o.Kernel[1],
		StrideH: o.Stride[0], StrideW: o.Stride[1], DilationH: o.Dilation[0], DilationW: o.Dilation[1],
		PadTop: o.Pad.Top + extra.Top, PadLeft: o.Pad.Left + extra.Left, PadBottom: o.Pad.Bottom + extra.Bottom,
		PadRight: o.Pad.Right + extra.Right, Groups: o.Groups})
	if err != nil {
		return i, err
	}
	last, w, bias := l.fold(i, o.Out)
	q := l.bytesOf(i, last)
	last, act := l.absorb(last)
	l.steps = append(l.steps, &convStep{unary: unary{in, l.result(last)}, k: k, w: w, bias: bias, act: act, bytes: q})
	return last, nil
}

func (l *lowering) dense(i int, o model.Dense, in int, is model.Shape) (int, error) {
	k, err := kernel.NewDense(is[0], o.Out)
	if err != nil {
		return i, err
	}
	last, w, bias := l.fold(i, o.Out)
	q := l.bytesOf(i, last)
	last, act := l.absorb(last)
	l.steps = append(l.steps, &denseStep{unary: unary{in, l.result(last)}, k: k, w: w, bias: bias, act: act, bytes: q})
	return last, nil
}

// bytesOf gives the int8 weights of layer i, unless what was folded into them up to
// layer last changed them, or the graph has none.
func (l *lowering) bytesOf(i, last int) *int8Weights {
	q, scale, ok := l.g.WeightBytes(i)
	if !ok || last != i {
		return nil
	}
	return &int8Weights{q, scale}
}

// fold multiplies the batch normalisations that follow layer i, each the only
// reader, into its weights and bias. The last dimension of weights is out.
func (l *lowering) fold(i, out int) (last int, w, bias []float32) {
	p := l.g.Layers[i].Params
	w = slices.Clone(p[model.Weight].Data)
	if b := p[model.Bias]; b != nil {
		bias = slices.Clone(b.Data)
	}
	last = i
	for {
		j, ok := l.next(last)
		if !ok {
			return last, w, bias
		}
		o, ok := l.g.Layers[j].Op.(model.BatchNorm)
		if !ok {
			return last, w, bias
		}
		scale, shift := affine(&l.g.Layers[j], o)
		for k := range w {
			w[k] = float32(float64(w[k]) * scale[k%out])
		}
		if bias == nil {
			bias = make([]float32, out)
		}
		for k := range bias {
			bias[k] = float32(float64(bias[k])*scale[k] + shift[k])
		}
		l.done[j] = true
		last = j
	}
}

// affine is batch normalisation as y = x*scale + shift.
func affine(l *model.Layer, o model.BatchNorm) (scale, shift []float64) {
	p := l.Params
	for i, v := range p[model.Variance].Data {
		s := float64(p[model.Scale].Data[i]) / math.Sqrt(float64(v)+float64(o.Epsilon))
		scale = append(scale, s)
		shift = append(shift, float64(p[model.Shift].Data[i])-float64(p[model.Mean].Data[i])*s)
	}
	return scale, shift
}

func narrow(x []float64) []float32 {
	y := make([]float32, len(x))
	for i, v := range x {
		y[i] = float32(v)
	}
	return y
}

func poolShape(s model.Shape, kern, stride [2]int, p model.Pad2D, count bool) kernel.PoolShape {
	return kernel.PoolShape{H: s[0], W: s[1], C: s[2], KH: kern[0], KW: kern[1], StrideH: stride[0], StrideW: stride[1],
		PadTop: p.Top, PadLeft: p.Left, PadBottom: p.Bottom, PadRight: p.Right, CountPad: count}
}

// describe is what Plan.Layers says of a step that computes layers i to last.
func (l *lowering) describe(i, last int) Layer {
	d := Layer{Name: l.g.Layers[i].Name, Kind: l.g.Layers[i].Op.Kind(), Kernel: "plain", Output: slices.Clone(l.shapes[last])}
	switch l.g.Layers[i].Op.(type) {
	case model.Conv, model.Dense:
		d.Kernel = KernelDense
	}
	var fused []string
	for j := last; j > i; {
		fused = append(fused, l.g.Layers[j].Name)
		j = l.g.Layers[j].Inputs[0]
	}
	slices.Reverse(fused)
	d.Fused = fused
	return d
}
