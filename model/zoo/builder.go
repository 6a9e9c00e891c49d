package zoo

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/espalier-ml/espalier/model"
)

// builder appends layers to a graph, each reading the previous one unless told
// otherwise. The first error sticks; graph reports it.
type builder struct {
	g     *model.Graph
	shape []model.Shape // of each layer's output
	count map[string]int
	err   error
}

func newBuilder(name string, input model.Shape) (*builder, error) {
	if err := input.Check(); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrInput, name, err)
	}
	if len(input) != 1 && len(input) != 3 {
		return nil, fmt.Errorf("%w: %s: input %v: want {height, width, channels} or {features}", ErrInput, name, []int(input))
	}
	g := &model.Graph{Name: name, Input: slices.Clone(input)}
	return &builder{g: g, count: map[string]int{}}, nil
}

// last is the index of the newest layer, or model.Input.
func (b *builder) last() int { return len(b.g.Layers) - 1 }

// out is the output shape of layer i.
func (b *builder) out(i int) model.Shape {
	if i == model.Input {
		return b.g.Input
	}
	return b.shape[i]
}

// add appends op under a name made of prefix and a running number; inputs default
// to the newest layer. It returns the new layer's index.
func (b *builder) add(prefix string, op model.Op, inputs ...int) int {
	b.count[prefix]++
	return b.named(prefix+strconv.Itoa(b.count[prefix]), op, inputs...)
}

func (b *builder) named(name string, op model.Op, inputs ...int) int {
	if b.err != nil {
		return model.Input
	}
	if len(inputs) == 0 {
		inputs = []int{b.last()}
	}
	in := make([]model.Shape, len(inputs))
	for k, i := range inputs {
		in[k] = b.out(i)
	}
	s, err := model.OutputShape(op, in...)
	if err == nil {
		err = s.Check()
	}
	if err != nil {
		b.err = fmt.Errorf("%w: %s: input %v: layer %q: %w", ErrInput, b.g.Name, []int(b.g.Input), name, err)
		return model.Input
	}
	b.g.Layers = append(b.g.Layers, model.Layer{Name: name, Op: op, Inputs: inputs})
	b.shape = append(b.shape, s)
	return b.last()
}

// conv is a convolution with bias and Keras' "same" padding.
func (b *builder) conv(out, kh, kw, stride int) {
	b.add("conv", b.sameConv(out, kh, kw, stride, 1))
}

// depthwise is a depthwise 3×3 convolution with bias and "same" padding.
func (b *builder) depthwise(stride int) int {
	c := b.channels()
	return b.add("dw", b.sameConv(c, 3, 3, stride, c))
}

func (b *builder) sameConv(out, kh, kw, stride, groups int) model.Conv {
	s := b.out(b.last())
	op := model.Conv{Out: out, Kernel: [2]int{kh, kw}, Stride: [2]int{stride, stride}, Dilation: [2]int{1, 1}, Groups: groups, Bias: true}
	if len(s) == 3 {
		op.Pad = samePad(s, op.Kernel, op.Stride, op.Dilation)
	}
	return op
}

func (b *builder) channels() int {
	s := b.out(b.last())
	return s[len(s)-1]
}

func (b *builder) validConv(out, k, pad int) {
	b.add("conv", model.Conv{Out: out, Kernel: [2]int{k, k}, Stride: [2]int{1, 1}, Dilation: [2]int{1, 1},
		Pad: model.Pad2D{Top: pad, Left: pad, Bottom: pad, Right: pad}, Groups: 1, Bias: true})
}

func (b *builder) norm() int { return b.add("bn", model.BatchNorm{Epsilon: 1e-3, Momentum: 0.1}) }

func (b *builder) relu() int { return b.add("relu", model.Activation{Func: model.ReLU}) }

func (b *builder) normRelu() int {
	b.norm()
	return b.relu()
}

func (b *builder) maxPool() {
	b.add("pool", model.MaxPool{Kernel: [2]int{2, 2}, Stride: [2]int{2, 2}})
}

func (b *builder) dense(out int) { b.add("fc", model.Dense{Out: out, Bias: true}) }

// flatten does nothing to a vector.
func (b *builder) flatten() {
	if len(b.out(b.last())) != 1 {
		b.add("flatten", model.Flatten{})
	}
}

// graph initialises the parameters and returns the finished graph.
func (b *builder) graph(seed uint64) (*model.Graph, error) {
	if b.err != nil {
		return nil, b.err
	}
	if err := initialise(b.g, seed); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrInput, b.g.Name, err)
	}
	return b.g, b.g.Validate()
}

// samePad is the padding with which the output is ceil(input/stride) long; the odd
// pixel goes to the bottom and right, as in TensorFlow.
func samePad(in model.Shape, kernel, stride, dilation [2]int) model.Pad2D {
	var before, after [2]int
	for d := range 2 {
		out := (in[d] + stride[d] - 1) / stride[d]
		total := max((out-1)*stride[d]+(kernel[d]-1)*dilation[d]+1-in[d], 0)
		before[d], after[d] = total/2, total-total/2
	}
	return model.Pad2D{Top: before[0], Left: before[1], Bottom: after[0], Right: after[1]}
}
