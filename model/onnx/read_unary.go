package onnx

import (
	"fmt"
	"math"

	"github.com/espalier-ml/espalier/model"
)

var errHardSigmoid = fmt.Errorf("%w: HardSigmoid on its own: want it times its own input, as in HardSwish", ErrUnsupported)

func unary(f model.Func) func(*node) error {
	return func(n *node) error {
		if err := n.arity(1, 1); err != nil {
			return err
		}
		return n.activation(model.Activation{Func: f})
	}
}

func (n *node) activation(a model.Activation) error {
	x, err := n.value(0)
	if err != nil {
		return err
	}
	return n.sameShape(a, nil, x)
}

func readLeakyReLU(n *node) error {
	if err := n.arity(1, 1); err != nil {
		return err
	}
	return n.activation(model.Activation{Func: model.LeakyReLU, Alpha: n.float("alpha", 0.01)})
}

// readClip: [0, 6] is ReLU6, [0, ∞) is ReLU, and no bound is nothing.
func readClip(n *node) error {
	if err := n.arity(1, 3); err != nil {
		return err
	}
	lo, hi := float32(math.Inf(-1)), float32(math.Inf(1))
	if n.im.opset < 11 {
		lo, hi = n.float("min", -math.MaxFloat32), n.float("max", math.MaxFloat32)
	}
	for i, bound := range []*float32{&lo, &hi} {
		c, err := n.floats(i + 1)
		if err != nil {
			return err
		}
		if c != nil && len(c.floats) != 1 {
			return fmt.Errorf("%w: bound %q of %v: want one number", ErrFormat, n.in(i+1), c.dims)
		}
		if c != nil {
			*bound = c.floats[0]
		}
	}
	open := hi >= math.MaxFloat32
	switch {
	case lo == 0 && hi == 6:
		return n.activation(model.Activation{Func: model.ReLU6})
	case lo == 0 && open:
		return n.activation(model.Activation{Func: model.ReLU})
	case lo <= -math.MaxFloat32 && open:
		return n.is(n.value(0))
	}
	return fmt.Errorf("%w: clip to [%v, %v]: want [0, 6] or [0, infinity)", ErrUnsupported, lo, hi)
}

// readHardSigmoid remembers max(0, min(1, x/6 + 1/2)) until it is multiplied by x.
func readHardSigmoid(n *node) error {
	if err := n.arity(1, 1); err != nil {
		return err
	}
	x, err := n.value(0)
	if err != nil {
		return err
	}
	alpha, beta := n.float("alpha", 0.2), n.float("beta", 0.5)
	if math.Abs(float64(alpha)-1.0/6) > 1e-6 || beta != 0.5 {
		return fmt.Errorf("%w: alpha %v, beta %v: want 1/6 and 1/2, as in HardSwish", ErrUnsupported, alpha, beta)
	}
	x.hardSigmoid = true
	return n.is(x, nil)
}

// readSoftmax: over one axis from opset 13 on, before over all from axis on.
func readSoftmax(n *node) error {
	if err := n.arity(1, 1); err != nil {
		return err
	}
	x, err := n.value(0)
	if err != nil {
		return err
	}
	absent := -1
	if n.im.opset < 13 {
		absent = 1
	}
	axis, err := n.axis(x, n.int("axis", absent))
	if err != nil {
		return err
	}
	over := []int{x.dims[axis]}
	if n.im.opset < 13 {
		over = x.dims[axis:]
	}
	if c := x.channelAxis(); c < 0 || elements(over) != x.dims[c] || x.dims[axis] != x.dims[c] && elements(over) != 1 || axis != c && x.dims[c] != 1 {
		return fmt.Errorf("%w: softmax over %v of %v: want the channels alone", ErrUnsupported, over, x.dims)
	}
	return n.sameShape(model.Softmax{}, nil, x)
}

func readDropout(n *node) error {
	if err := n.arity(1, 3); err != nil {
		return err
	}
	rate := n.float("ratio", 0.5)
	n.int("seed", 0)     // has no meaning in inference
	n.only("is_test", 1) // opset 6
	if n.im.opset >= 12 {
		c, err := n.floats(1)
		if err != nil {
			return err
		}
		if c != nil {
			if len(c.floats) != 1 {
				return fmt.Errorf("%w: ratio of %v: want one number", ErrFormat, c.dims)
			}
			rate = c.floats[0]
		}
		if n.in(2) != "" {
			return fmt.Errorf("%w: training mode %q", ErrUnsupported, n.in(2))
		}
	}
	x, err := n.value(0)
	if err != nil {
		return err
	}
	return n.sameShape(model.Dropout{Rate: rate}, nil, x)
}

func readIdentity(n *node) error {
	if err := n.arity(1, 1); err != nil {
		return err
	}
	if c := n.im.constants[n.in(0)]; c != nil {
		return n.isConst(c, nil)
	}
	v, ok := n.im.values[n.in(0)]
	if !ok {
		_, err := n.value(0)
		return err
	}
	return n.is(v, nil)
}
