package onnx

import (
	"fmt"
	"slices"

	"github.com/espalier-ml/espalier/model"
)

// affineEpsilon is lost beside a variance of 1 in float32, so that a batch
// normalisation with it is scale·x + shift.
const affineEpsilon = 1e-12

// scaleShift adds the layer scale·x + shift, per channel; finish folds it into
// the layer before where it can. A nil slice means no change.
func (n *node) scaleShift(x value, scale, shift []float32) error {
	channels := x.shape[len(x.shape)-1]
	if err := n.im.spend(4 * channels); err != nil {
		return err
	}
	fill := func(v float32) []float32 { return slices.Repeat([]float32{v}, channels) }
	if scale == nil {
		scale = fill(1)
	}
	if shift == nil {
		shift = fill(0)
	}
	params := map[string]*model.Tensor{
		model.Scale: x.perChannel(scale), model.Shift: x.perChannel(shift),
		model.Mean: x.perChannel(fill(0)), model.Variance: x.perChannel(fill(1)),
	}
	n.im.affine[len(n.im.graph.Layers)] = true
	return n.sameShape(model.BatchNorm{Epsilon: affineEpsilon, Momentum: 0.1}, params, x)
}

// channelConstant broadcasts input i, a constant, to one number per channel of x.
func (n *node) channelConstant(i int, x value) ([]float32, error) {
	c, err := n.floats(i)
	if err != nil {
		return nil, err
	}
	axis := x.channelAxis()
	if c == nil || axis < 0 || len(c.floats) == 0 {
		return nil, fmt.Errorf("%w: arithmetic of %v with a constant", ErrUnsupported, x.dims)
	}
	size := x.dims[axis]
	if len(c.floats) != 1 {
		// Dimensions are aligned at the end.
		at := len(c.dims) - (len(x.dims) - axis)
		if len(c.floats) != size || at < 0 || c.dims[at] != size || len(c.dims) > n.rank(x) {
			return nil, fmt.Errorf("%w: arithmetic of %v with a constant of %v: want one number, or one per channel", ErrUnsupported, x.dims, c.dims)
		}
	}
	if err := n.im.spend(size); err != nil {
		return nil, err
	}
	out := make([]float32, size)
	for k := range out {
		out[k] = c.floats[k%len(c.floats)]
	}
	return out, nil
}

// operands sorts the two inputs: a computed one, and the index of a constant one
// or -1 if both are computed.
func (n *node) operands() (x value, constant int, err error) {
	if err := n.arity(2, 2); err != nil {
		return value{}, 0, err
	}
	switch {
	case n.isConstant(1):
		x, err = n.value(0)
		return x, 1, err
	case n.isConstant(0):
		x, err = n.value(1)
		return x, 0, err
	}
	x, err = n.value(0)
	return x, -1, err
}

func readAdd(n *node) error {
	x, c, err := n.operands()
	if err != nil {
		return err
	}
	if c < 0 {
		y, err := n.value(1)
		if err != nil {
			return err
		}
		return n.is(n.add(x, y))
	}
	shift, err := n.channelConstant(c, x)
	if err != nil {
		return err
	}
	return n.scaleShift(x, nil, shift)
}

// add sums two computed values of the same shape and order.
func (n *node) add(x, y value) (value, error) {
	if err := n.im.spend(len(x.perm)); err != nil { // comparing orders takes as long
		return value{}, err
	}
	if !slices.Equal(x.dims, y.dims) || x.image != y.image || !x.shape.Equal(y.shape) || !slices.Equal(x.perm, y.perm) {
		return value{}, fmt.Errorf("%w: sum of %v and %v: want the same dimensions and layout", ErrUnsupported, x.dims, y.dims)
	}
	out, err := n.im.emit(n, model.Add{}, nil, x, y)
	return x.sameOrder(out.layer), err
}

func readSum(n *node) error {
	if err := n.arity(1, 64); err != nil {
		return err
	}
	sum, err := n.value(0)
	for i := 1; i < len(n.Input) && err == nil; i++ {
		var y value
		if y, err = n.value(i); err == nil {
			sum, err = n.add(sum, y)
		}
	}
	return n.is(sum, err)
}

func readSub(n *node) error {
	x, c, err := n.operands()
	if err != nil {
		return err
	}
	if c < 0 {
		return fmt.Errorf("%w: difference of two computed values", ErrUnsupported)
	}
	v, err := n.channelConstant(c, x)
	if err != nil {
		return err
	}
	if c == 0 { // constant − x
		return n.scaleShift(x, slices.Repeat([]float32{-1}, len(v)), v)
	}
	return n.scaleShift(x, nil, scaled(v, -1))
}

func readMul(n *node) error {
	if len(n.Input) == 2 && !n.isConstant(0) && !n.isConstant(1) {
		return n.hardSwish()
	}
	x, c, err := n.operands()
	if err != nil {
		return err
	}
	v, err := n.channelConstant(c, x)
	if err != nil {
		return err
	}
	return n.scaleShift(x, v, nil)
}

// hardSwish recognises x · hardSigmoid(x).
func (n *node) hardSwish() error {
	a, okA := n.im.values[n.in(0)]
	b, okB := n.im.values[n.in(1)]
	if !okA || !okB {
		return fmt.Errorf("%w: input %q or %q is not defined before", ErrFormat, n.in(0), n.in(1))
	}
	if a.layer != b.layer || a.hardSigmoid == b.hardSigmoid {
		return fmt.Errorf("%w: product of two computed values", ErrUnsupported)
	}
	a.hardSigmoid = false
	return n.sameShape(model.Activation{Func: model.HardSwish}, nil, a)
}

func readDiv(n *node) error {
	x, c, err := n.operands()
	if err != nil {
		return err
	}
	if c != 1 {
		return fmt.Errorf("%w: division by a computed value", ErrUnsupported)
	}
	v, err := n.channelConstant(c, x)
	if err != nil {
		return err
	}
	for i, d := range v {
		v[i] = 1 / d
	}
	return n.scaleShift(x, v, nil)
}

// foldAffine folds scale·x + shift into the convolution or fully connected layer
// before it, where that has no other reader.
func (im *importer) foldAffine() {
	layers := im.graph.Layers
	consumers := im.graph.Consumers()
	for i := range layers {
		if !im.affine[i] || layers[i].Inputs[0] == model.Input {
			continue
		}
		j := layers[i].Inputs[0]
		if len(consumers[j]) != 1 {
			continue
		}
		scale, shift := layers[i].Params[model.Scale].Data, layers[i].Params[model.Shift].Data
		into := layers[j]
		switch o := into.Op.(type) {
		case model.Conv:
			o.Bias = true
			into.Op = o
		case model.Dense:
			o.Bias = true
			into.Op = o
		default:
			continue
		}
		b := into.Params[model.Bias]
		if b == nil {
			b = model.NewTensor(len(scale))
			into.Params[model.Bias] = b
		}
		for c := range b.Data {
			b.Data[c] = b.Data[c]*scale[c] + shift[c]
		}
		w := into.Params[model.Weight].Data
		for k := range w {
			w[k] *= scale[k%len(scale)]
		}
		if a, ok := im.quant.Layers[layers[i].Name]; ok {
			im.quant.Layers[into.Name] = a
		}
		layers[i] = into // the old place is dead now
		im.affine[i] = false
	}
}

// dropDead removes the layers from which no path leads to the last one.
func (im *importer) dropDead() {
	g := im.graph
	live := make([]bool, len(g.Layers))
	live[len(live)-1] = true
	for i := len(g.Layers) - 1; i >= 0; i-- {
		for _, j := range g.Layers[i].Inputs {
			if live[i] && j != model.Input {
				live[j] = true
			}
		}
	}
	to, kept := make([]int, len(g.Layers)), 0
	affine := map[int]bool{}
	for i, l := range g.Layers {
		if !live[i] {
			continue
		}
		for k, j := range l.Inputs {
			if j != model.Input {
				l.Inputs[k] = to[j]
			}
		}
		to[i] = kept
		affine[kept] = im.affine[i]
		g.Layers[kept] = l
		kept++
	}
	g.Layers, im.affine = slices.Clip(g.Layers[:kept]), affine
}
