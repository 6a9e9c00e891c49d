package onnx

import (
	"fmt"
	"math"

	"github.com/espalier-ml/espalier/model"
)

// readConv: X {N, C, H, W}, W {OC, C/group, KH, KW}, B {OC}.
func readConv(n *node) error {
	if err := n.arity(2, 3); err != nil {
		return err
	}
	x, err := n.image(0)
	if err != nil {
		return err
	}
	w, err := n.floats(1)
	if err != nil {
		return err
	}
	if w == nil || len(w.dims) != 4 || elements(w.dims) == 0 {
		return fmt.Errorf("%w: weight %q: want 4 dimensions", ErrFormat, n.in(1))
	}
	b, err := n.floats(2)
	if err != nil {
		return err
	}
	kernel, stride, dilation, pad, err := n.window(x, w.dims[2:])
	if err != nil {
		return err
	}
	op := model.Conv{Out: w.dims[0], Kernel: kernel, Stride: stride, Dilation: dilation, Pad: pad, Groups: n.int("group", 1), Bias: b != nil}
	if kernel != [2]int(w.dims[2:]) || op.Groups < 1 || w.dims[1]*op.Groups != x.shape[2] {
		return fmt.Errorf("%w: weight %v for %d channels in %d groups with kernel %v", ErrFormat, w.dims, x.shape[2], op.Groups, kernel)
	}
	params := map[string]*model.Tensor{model.Weight: w.tensor(2, 3, 1, 0)}
	if b != nil {
		if elements(b.dims) != op.Out {
			return fmt.Errorf("%w: bias %v: want %d", ErrFormat, b.dims, op.Out)
		}
		params[model.Bias] = &model.Tensor{Shape: model.Shape{op.Out}, Data: b.tensor().Data}
	}
	y, err := n.im.emit(n, op, params, x)
	if err == nil {
		n.im.weightBytes(w.channels(0))
		y.image, y.dims = true, []int{y.shape[2], y.shape[0], y.shape[1]}
	}
	return n.is(y, err)
}

// dense adds a fully connected layer with weight w {in, out}; the rows follow the
// order in which the layer before really has its elements.
func (n *node) dense(x value, w *constant, bias []float32) error {
	if len(w.dims) != 2 || w.dims[0] != x.dims[0] || w.dims[1] < 1 {
		return fmt.Errorf("%w: weight %v for %d features", ErrFormat, w.dims, x.dims[0])
	}
	in, out := w.dims[0], w.dims[1]
	t := model.NewTensor(in, out)
	for i := range in {
		j := i
		if x.perm != nil {
			j = int(x.perm[i])
		}
		copy(t.Data[j*out:(j+1)*out], w.floats[i*out:(i+1)*out])
	}
	params := map[string]*model.Tensor{model.Weight: t}
	if bias != nil {
		params[model.Bias] = &model.Tensor{Shape: model.Shape{out}, Data: bias}
	}
	y, err := n.im.emit(n, model.Dense{Out: out, Bias: bias != nil}, params, x)
	if err == nil {
		n.im.weightBytes(w.channels(1))
	}
	return n.is(y, err)
}

// readGemm: alpha·A·B + beta·C.
func readGemm(n *node) error {
	if err := n.arity(2, 3); err != nil {
		return err
	}
	x, err := n.vector(0)
	if err != nil {
		return err
	}
	if !n.im.batched {
		return fmt.Errorf("%w: input %q has 1 dimension: want 2", ErrFormat, n.in(0))
	}
	n.only("transA", 0)
	n.only("broadcast", 1) // opset 6
	alpha, beta, transB := n.float("alpha", 1), n.float("beta", 1), n.int("transB", 0)
	w, err := n.floats(1)
	if err != nil {
		return err
	}
	if w == nil || len(w.dims) != 2 {
		return fmt.Errorf("%w: weight %q: want 2 dimensions", ErrFormat, n.in(1))
	}
	if transB != 0 {
		w = w.transposed([]int{1, 0})
	}
	if alpha != 1 {
		w = &constant{dims: w.dims, floats: scaled(w.floats, alpha)}
	}
	c, err := n.floats(2)
	if err != nil {
		return err
	}
	var bias []float32
	if c != nil {
		if bias, err = perFeature(c, w.dims[1]); err != nil {
			return err
		}
		bias = scaled(bias, beta)
	}
	return n.dense(x, w, bias)
}

func scaled(v []float32, by float32) []float32 {
	out := make([]float32, len(v))
	for i, x := range v {
		out[i] = x * by
	}
	return out
}

// perFeature broadcasts a constant of {}, {1}, {size}, {1, size}, … to size.
func perFeature(c *constant, size int) ([]float32, error) {
	if size > model.MaxElements || len(c.floats) != 1 && (len(c.floats) != size || c.dims[len(c.dims)-1] != size) {
		return nil, fmt.Errorf("%w: constant of %v added to %d features: want one number for each", ErrUnsupported, c.dims, size)
	}
	out := make([]float32, size)
	for i := range out {
		out[i] = c.floats[i%len(c.floats)]
	}
	return out, nil
}

// readMatMul: {N, in} times a constant {in, out}.
func readMatMul(n *node) error {
	if err := n.arity(2, 2); err != nil {
		return err
	}
	x, err := n.vector(0)
	if err != nil {
		return err
	}
	w, err := n.floats(1)
	if err != nil {
		return err
	}
	if w == nil || len(w.dims) != 2 {
		return fmt.Errorf("%w: weight %q: want 2 dimensions", ErrUnsupported, n.in(1))
	}
	return n.dense(x, w, nil)
}

// readBatchNorm: X, scale, B, mean, var, each but X {C}.
func readBatchNorm(n *node) error {
	if err := n.arity(5, 5); err != nil {
		return err
	}
	x, err := n.value(0)
	if err != nil {
		return err
	}
	n.only("training_mode", 0)
	n.only("is_test", 1) // opset 6
	n.only("spatial", 1)
	op := model.BatchNorm{Epsilon: n.float("epsilon", 1e-5), Momentum: complement(n.float("momentum", 0.9))}
	if !n.im.batched || x.channelAxis() != 0 {
		return fmt.Errorf("%w: input %q of %v: want {N, C} or {N, C, H, W}", ErrUnsupported, n.in(0), x.dims)
	}
	params := map[string]*model.Tensor{}
	for i, name := range []string{model.Scale, model.Shift, model.Mean, model.Variance} {
		c, err := n.floats(i + 1)
		if err != nil {
			return err
		}
		if c == nil || len(c.dims) != 1 || c.dims[0] != x.dims[0] {
			return fmt.Errorf("%w: %s %q: want %d numbers", ErrFormat, name, n.in(i+1), x.dims[0])
		}
		params[name] = x.perChannel(c.floats)
	}
	return n.sameShape(op, params, x)
}

// complement is 1 - v to six digits, so that it undoes itself.
func complement(v float32) float32 {
	return float32(math.Round((1-float64(v))*1e6) / 1e6)
}

// perChannel orders numbers given by ONNX's channels as the layer has them.
func (v value) perChannel(data []float32) *model.Tensor {
	t := model.NewTensor(len(data))
	for i, x := range data {
		if v.perm != nil {
			i = int(v.perm[i])
		}
		t.Data[i] = x
	}
	return t
}
