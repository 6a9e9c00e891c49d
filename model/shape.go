package model

import (
	"fmt"
	"math"
	"slices"
)

// Shapes infers the output shape of every layer, checking inputs on the way.
func (g *Graph) Shapes() ([]Shape, error) {
	if err := g.Input.Check(); err != nil {
		return nil, fmt.Errorf("input: %w", err)
	}
	if len(g.Input) == 0 {
		return nil, fmt.Errorf("input: %w: no dimensions", ErrShape)
	}
	shapes := make([]Shape, len(g.Layers))
	names := make(map[string]bool, len(g.Layers))
	for i := range g.Layers {
		l := &g.Layers[i]
		if l.Name == "" || names[l.Name] {
			return nil, fmt.Errorf("%w: layer %d: name %q is empty or taken", ErrGraph, i, l.Name)
		}
		names[l.Name] = true
		in := make([]Shape, len(l.Inputs))
		for k, j := range l.Inputs {
			switch {
			case j == Input:
				in[k] = g.Input
			case j >= 0 && j < i:
				in[k] = shapes[j]
			default:
				return nil, fmt.Errorf("%w: layer %q: input %d: want an earlier layer", ErrGraph, l.Name, j)
			}
		}
		s, err := OutputShape(l.Op, in...)
		if err == nil {
			err = s.Check()
		}
		if err != nil {
			return nil, fmt.Errorf("layer %q: %w", l.Name, err)
		}
		shapes[i] = s
	}
	return shapes, nil
}

// OutputShape is the shape that op gives for the shapes of its inputs.
func OutputShape(op Op, in ...Shape) (Shape, error) {
	if op == nil {
		return nil, fmt.Errorf("%w: no operator", ErrGraph)
	}
	if err := checkArity(op, len(in)); err != nil {
		return nil, err
	}
	x := in[0]
	if len(x) == 0 {
		return nil, fmt.Errorf("%w: %s of no dimensions: want 1 or more", ErrShape, op.Kind())
	}
	switch o := op.(type) {
	case Conv:
		return o.output(x)
	case Dense:
		return o.output(x)
	case MaxPool:
		return poolOutput(o.Kind(), o.Kernel, o.Stride, o.Pad, x)
	case AvgPool:
		return poolOutput(o.Kind(), o.Kernel, o.Stride, o.Pad, x)
	case GlobalAvgPool:
		if err := wantImage(o.Kind(), x); err != nil {
			return nil, err
		}
		return Shape{x[2]}, nil
	case Add:
		if !x.Equal(in[1]) {
			return nil, fmt.Errorf("%w: add of %v and %v: want equal shapes", ErrShape, []int(x), []int(in[1]))
		}
		return slices.Clone(x), nil
	case Concat:
		return concatOutput(in)
	case Flatten:
		return Shape{x.Elements()}, nil
	case Reshape:
		if err := o.Shape.Check(); err != nil {
			return nil, err
		}
		if len(o.Shape) == 0 {
			return nil, fmt.Errorf("%w: reshape to no dimensions: want 1 or more", ErrShape)
		}
		if o.Shape.Elements() != x.Elements() {
			return nil, fmt.Errorf("%w: reshape of %v to %v: want as many elements", ErrShape, []int(x), []int(o.Shape))
		}
		return slices.Clone(o.Shape), nil
	case Pad:
		if err := wantImage(o.Kind(), x); err != nil {
			return nil, err
		}
		if err := o.Pad.check(); err != nil {
			return nil, err
		}
		return Shape{x[0] + o.Pad.Top + o.Pad.Bottom, x[1] + o.Pad.Left + o.Pad.Right, x[2]}, nil
	case Activation:
		return slices.Clone(x), o.check()
	case Dropout:
		if !(o.Rate >= 0 && o.Rate < 1) {
			return nil, fmt.Errorf("%w: dropout rate %v: want 0 or more and below 1", ErrGraph, o.Rate)
		}
		return slices.Clone(x), nil
	case BatchNorm:
		if !(o.Epsilon > 0 && o.Epsilon <= 1) {
			return nil, fmt.Errorf("%w: batch-norm epsilon %v: want more than 0 and at most 1", ErrGraph, o.Epsilon)
		}
		if !(o.Momentum >= 0 && o.Momentum <= 1) {
			return nil, fmt.Errorf("%w: batch-norm momentum %v: want 0 to 1", ErrGraph, o.Momentum)
		}
		return slices.Clone(x), nil
	case Softmax:
		return slices.Clone(x), nil
	}
	return nil, fmt.Errorf("%w: unknown operator %q", ErrGraph, op.Kind())
}

func checkArity(op Op, n int) error {
	switch op.(type) {
	case Add:
		if n != 2 {
			return fmt.Errorf("%w: add has %d inputs: want 2", ErrGraph, n)
		}
	case Concat:
		if n < 2 {
			return fmt.Errorf("%w: concat has %d inputs: want 2 or more", ErrGraph, n)
		}
	default:
		if n != 1 {
			return fmt.Errorf("%w: %s has %d inputs: want 1", ErrGraph, op.Kind(), n)
		}
	}
	return nil
}

func (a Activation) check() error {
	if f := float64(a.Alpha); math.IsNaN(f) || math.IsInf(f, 0) {
		return fmt.Errorf("%w: activation %q: alpha %v: want a finite number", ErrGraph, a.Func, a.Alpha)
	}
	switch a.Func {
	case ReLU, ReLU6, LeakyReLU, Sigmoid, Tanh, HardSwish:
		return nil
	}
	return fmt.Errorf("%w: activation %q: want relu, relu6, leaky-relu, sigmoid, tanh or hard-swish", ErrGraph, a.Func)
}

// maxWindow bounds kernels, strides, dilations and pads of untrusted graphs.
const maxWindow = 1 << 12

func (p Pad2D) check() error {
	for _, v := range []int{p.Top, p.Left, p.Bottom, p.Right} {
		if v < 0 || v > maxWindow {
			return fmt.Errorf("%w: padding %+v: want 0 to %d", ErrShape, p, maxWindow)
		}
	}
	return nil
}

func wantImage(kind string, x Shape) error {
	if len(x) != 3 {
		return fmt.Errorf("%w: %s of %v: want {height, width, channels}", ErrShape, kind, []int(x))
	}
	return nil
}

// window is the output length of a sliding window along one dimension.
func window(in, kernel, stride, dilation, before, after int) (int, error) {
	for _, v := range []int{kernel, stride, dilation} {
		if v < 1 || v > maxWindow {
			return 0, fmt.Errorf("%w: kernel %d, stride %d, dilation %d: want each 1 to %d", ErrShape, kernel, stride, dilation, maxWindow)
		}
	}
	span := (kernel-1)*dilation + 1
	if total := in + before + after; total >= span {
		return (total-span)/stride + 1, nil
	}
	return 0, fmt.Errorf("%w: window of %d over %d: want an input at least as long", ErrShape, span, in+before+after)
}

func (o Conv) output(x Shape) (Shape, error) {
	if err := wantImage(o.Kind(), x); err != nil {
		return nil, err
	}
	if err := o.Pad.check(); err != nil {
		return nil, err
	}
	if o.Out < 1 || o.Groups < 1 || x[2]%o.Groups != 0 || o.Out%o.Groups != 0 {
		return nil, fmt.Errorf("%w: conv of %d channels to %d in %d groups: want groups to divide both", ErrShape, x[2], o.Out, o.Groups)
	}
	h, err := window(x[0], o.Kernel[0], o.Stride[0], o.Dilation[0], o.Pad.Top, o.Pad.Bottom)
	if err != nil {
		return nil, err
	}
	w, err := window(x[1], o.Kernel[1], o.Stride[1], o.Dilation[1], o.Pad.Left, o.Pad.Right)
	return Shape{h, w, o.Out}, err
}

func (o Dense) output(x Shape) (Shape, error) {
	if len(x) != 1 {
		return nil, fmt.Errorf("%w: dense of %v: want {features}; flatten first", ErrShape, []int(x))
	}
	if o.Out < 1 {
		return nil, fmt.Errorf("%w: dense to %d features: want 1 or more", ErrShape, o.Out)
	}
	return Shape{o.Out}, nil
}

func poolOutput(kind string, kernel, stride [2]int, pad Pad2D, x Shape) (Shape, error) {
	if err := wantImage(kind, x); err != nil {
		return nil, err
	}
	if err := pad.check(); err != nil {
		return nil, err
	}
	if pad.Top >= kernel[0] || pad.Bottom >= kernel[0] || pad.Left >= kernel[1] || pad.Right >= kernel[1] {
		return nil, fmt.Errorf("%w: %s padding %+v: want less than the kernel %v", ErrShape, kind, pad, kernel)
	}
	h, err := window(x[0], kernel[0], stride[0], 1, pad.Top, pad.Bottom)
	if err != nil {
		return nil, err
	}
	w, err := window(x[1], kernel[1], stride[1], 1, pad.Left, pad.Right)
	return Shape{h, w, x[2]}, err
}

func concatOutput(in []Shape) (Shape, error) {
	out := slices.Clone(in[0])
	last := len(out) - 1
	for _, s := range in[1:] {
		if len(s) != len(out) || !s[:last].Equal(out[:last]) {
			return nil, fmt.Errorf("%w: concat of %v and %v: want shapes equal but for the channels", ErrShape, []int(out), []int(s))
		}
		out[last] += s[last]
		if err := out.Check(); err != nil {
			return nil, err
		}
	}
	return out, nil
}
