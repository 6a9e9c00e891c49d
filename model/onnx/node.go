package onnx

import (
	"fmt"
	"math"
	"slices"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/onnx/onnxpb"
)

// node is one node while it is imported.
type node struct {
	*onnxpb.NodeProto
	*attributes
	im *importer
}

// operators are the importers of the supported operators.
var operators map[string]func(*node) error

func init() {
	operators = map[string]func(*node) error{
		"Conv": readConv, "Gemm": readGemm, "MatMul": readMatMul, "BatchNormalization": readBatchNorm,
		"Relu": unary(model.ReLU), "Sigmoid": unary(model.Sigmoid), "Tanh": unary(model.Tanh), "HardSwish": unary(model.HardSwish),
		"LeakyRelu": readLeakyReLU, "Clip": readClip, "HardSigmoid": readHardSigmoid, "Softmax": readSoftmax,
		"MaxPool": readMaxPool, "AveragePool": readAveragePool,
		"GlobalAveragePool": readGlobalAverage, "GlobalMaxPool": readGlobalMax, "ReduceMean": readReduceMean,
		"Add": readAdd, "Sum": readSum, "Sub": readSub, "Mul": readMul, "Div": readDiv, "Concat": readConcat,
		"Flatten": readFlatten, "Reshape": readReshape, "Squeeze": readSqueeze, "Unsqueeze": readUnsqueeze,
		"Transpose": readTranspose, "Pad": readPad, "Dropout": readDropout, "Identity": readIdentity,
		"Constant": readConstant, "ConstantOfShape": readConstantOfShape, "Shape": readShape, "Gather": readGather, "Cast": readCast,
		"QuantizeLinear": readQuantize, "DequantizeLinear": readDequantize,
	}
}

// name of input i; "" if it is absent.
func (n *node) in(i int) string {
	if i < len(n.Input) {
		return n.Input[i]
	}
	return ""
}

// arity checks the number of inputs.
func (n *node) arity(least, most int) error {
	if len(n.Input) < least || len(n.Input) > most {
		return fmt.Errorf("%w: %d inputs: want %d to %d", ErrFormat, len(n.Input), least, most)
	}
	return nil
}

func (n *node) isConstant(i int) bool { return n.im.constants[n.in(i)] != nil }

// value gives input i, which must be computed from the network's input.
func (n *node) value(i int) (value, error) {
	name := n.in(i)
	if v, ok := n.im.values[name]; ok {
		if v.hardSigmoid {
			return value{}, errHardSigmoid
		}
		if v.bytes != nil {
			return value{}, fmt.Errorf("%w: input %q is bytes: want a DequantizeLinear before it", ErrUnsupported, name)
		}
		return v, nil
	}
	if n.isConstant(i) {
		return value{}, fmt.Errorf("%w: input %q is constant", ErrUnsupported, name)
	}
	return value{}, n.undefined(i)
}

// undefined explains why input i is nothing.
func (n *node) undefined(i int) error {
	if n.im.extra[n.in(i)] {
		return fmt.Errorf("%w: input %d %q is another node's second output", ErrUnsupported, i, n.in(i))
	}
	return fmt.Errorf("%w: input %d %q is not defined before", ErrFormat, i, n.in(i))
}

// optional gives input i as a constant, nil if it is absent.
func (n *node) optional(i int) (*constant, error) {
	name := n.in(i)
	if c := n.im.constants[name]; c != nil || name == "" {
		return c, nil
	}
	if _, ok := n.im.values[name]; ok {
		return nil, fmt.Errorf("%w: input %d %q is computed: want a constant", ErrUnsupported, i, name)
	}
	return nil, n.undefined(i)
}

// floats gives input i as a constant of floats, nil if it is absent.
func (n *node) floats(i int) (*constant, error) {
	c, err := n.optional(i)
	if c != nil && c.isInt() {
		return nil, fmt.Errorf("%w: input %d %q holds integers: want floats", ErrUnsupported, i, n.in(i))
	}
	return c, err
}

// ints gives input i as a list of integers, nil if it is absent.
func (n *node) intInput(i int) ([]int, error) {
	c, err := n.optional(i)
	if c == nil || err != nil {
		return nil, err
	}
	if !c.isInt() || len(c.dims) > 1 {
		return nil, fmt.Errorf("%w: input %d %q: want a list of integers", ErrFormat, i, n.in(i))
	}
	out := make([]int, len(c.ints))
	for k, v := range c.ints {
		if v > math.MaxInt32 || v < math.MinInt32 {
			return nil, fmt.Errorf("%w: input %d %q holds %d", ErrUnsupported, i, n.in(i), v)
		}
		out[k] = int(v)
	}
	return out, nil
}

// is names the node's output.
func (n *node) is(v value, err error) error {
	if err == nil {
		err = n.im.checkNew(n.Output[0])
	}
	if err != nil {
		return err
	}
	n.im.values[n.Output[0]] = v
	return nil
}

// isConst names the node's output as a constant.
func (n *node) isConst(c *constant, err error) error {
	if err != nil {
		return err
	}
	return n.im.define(n.Output[0], c)
}

// sameShape adds a layer that treats every element, or channel, alike.
func (n *node) sameShape(op model.Op, params map[string]*model.Tensor, v value) error {
	out, err := n.im.emit(n, op, params, v)
	return n.is(v.sameOrder(out.layer), err)
}

// rank of v in ONNX, with the batch.
func (n *node) rank(v value) int {
	if n.im.batched {
		return len(v.dims) + 1
	}
	return len(v.dims)
}

// axis turns an axis of ONNX into an index of v.dims.
func (n *node) axis(v value, axis int) (int, error) {
	rank := n.rank(v)
	a := axis
	if a < 0 {
		a += rank
	}
	if a < 0 || a >= rank {
		return 0, fmt.Errorf("%w: axis %d of %d dimensions", ErrFormat, axis, rank)
	}
	if n.im.batched {
		a--
	}
	if a < 0 {
		return 0, fmt.Errorf("%w: axis %d is the batch", ErrUnsupported, axis)
	}
	return a, nil
}

// image gives input i as {H, W, C}.
func (n *node) image(i int) (value, error) {
	v, err := n.value(i)
	if err != nil || v.image {
		return v, err
	}
	if len(v.dims) == 3 {
		if v, err = n.reshape(v, v.dims); err != nil || v.image {
			return v, err
		}
		return v, fmt.Errorf("%w: input %q is channels last here", ErrUnsupported, n.in(i))
	}
	return v, fmt.Errorf("%w: input %q has %d dimensions: want an image of 4 {N, C, H, W}", ErrUnsupported, n.in(i), n.rank(v))
}

// vector gives input i as one row of features.
func (n *node) vector(i int) (value, error) {
	v, err := n.value(i)
	if err == nil && !v.isVector() {
		err = fmt.Errorf("%w: input %q has %d dimensions: want {N, features}", ErrUnsupported, n.in(i), n.rank(v))
	}
	return v, err
}

// window gives kernel, strides, dilations and padding of a sliding window over v.
// A zero kernel is taken from the attribute.
func (n *node) window(v value, kernel []int) (k, stride, dilation [2]int, pad model.Pad2D, err error) {
	kernel = n.ints("kernel_shape", 2, kernel)
	s, d := n.ints("strides", 2, []int{1, 1}), n.ints("dilations", 2, []int{1, 1})
	p := n.ints("pads", 4, []int{0, 0, 0, 0})
	auto := n.string("auto_pad", "NOTSET")
	if n.err != nil {
		return k, stride, dilation, pad, n.err
	}
	if kernel == nil {
		return k, stride, dilation, pad, fmt.Errorf("%w: attribute %q is missing", ErrFormat, "kernel_shape")
	}
	if least := slices.Min(slices.Concat(kernel, s, d)); least < 1 {
		return k, stride, dilation, pad, fmt.Errorf("%w: kernel %v, strides %v, dilations %v: want 1 or more", ErrFormat, kernel, s, d)
	}
	k, stride, dilation = [2]int(kernel), [2]int(s), [2]int(d)
	switch auto {
	case "NOTSET":
		return k, stride, dilation, model.Pad2D{Top: p[0], Left: p[1], Bottom: p[2], Right: p[3]}, nil
	case "VALID":
		return k, stride, dilation, pad, nil
	case "SAME_UPPER", "SAME_LOWER":
		top, bottom := samePad(v.shape[0], k[0], s[0], d[0], auto == "SAME_LOWER")
		left, right := samePad(v.shape[1], k[1], s[1], d[1], auto == "SAME_LOWER")
		return k, stride, dilation, model.Pad2D{Top: top, Left: left, Bottom: bottom, Right: right}, nil
	}
	return k, stride, dilation, pad, fmt.Errorf("%w: attribute %q is %q", ErrFormat, "auto_pad", auto)
}

// samePad splits the padding that gives ceil(in/stride) outputs.
func samePad(in, kernel, stride, dilation int, lower bool) (before, after int) {
	total := max(((in+stride-1)/stride-1)*stride+(kernel-1)*dilation+1-in, 0)
	before, after = total/2, total-total/2
	if lower {
		before, after = after, before
	}
	return before, after
}
