package onnx

import (
	"fmt"
	"math"

	"github.com/espalier-ml/espalier/model"
)

// integers are the ranges of the types that a QuantizeLinear gives.
var integers = map[int32]struct{ lo, hi float64 }{typeUint8: {0, 255}, typeInt8: {-128, 127}}

// quantParams are the scales and zeros of a node, one of each or one per index of axis.
type quantParams struct {
	scale []float32
	zero  []int64
	typ   int32 // of zero, and so of the integers
	axis  int   // as in the file
}

// quantParams reads inputs 1 and 2 and the attributes of a QuantizeLinear or
// DequantizeLinear.
func (n *node) quantParams() (quantParams, error) {
	p := quantParams{typ: typeUint8, axis: n.int("axis", 1)}
	n.only("saturate", 1)
	n.only("block_size", 0)
	n.only("output_dtype", 0)
	if err := n.arity(2, 3); err != nil {
		return p, err
	}
	s, err := n.floats(1)
	if err != nil {
		return p, err
	}
	if s == nil || len(s.dims) > 1 || len(s.floats) == 0 {
		return p, fmt.Errorf("%w: scale %q: want one number, or a list", ErrUnsupported, n.in(1))
	}
	p.scale, p.zero = s.floats, make([]int64, len(s.floats))
	for _, v := range p.scale {
		if !(v > 0 && v <= math.MaxFloat32) {
			return p, fmt.Errorf("%w: scale %v: want a finite number above 0", ErrUnsupported, v)
		}
	}
	z, err := n.optional(2)
	if z == nil || err != nil {
		return p, err
	}
	if !z.isInt() || len(z.ints) != len(s.floats) {
		return p, fmt.Errorf("%w: zero point %q: want as many integers as scales", ErrFormat, n.in(2))
	}
	p.zero, p.typ = z.ints, z.typ
	return p, nil
}

// at gives index k's scale and zero, for a constant of the given dimensions of which
// element i is at index(i).
func (p *quantParams) index(dims []int) (func(i int) int, error) {
	if len(p.scale) == 1 {
		return func(int) int { return 0 }, nil
	}
	axis := p.axis
	if axis < 0 {
		axis += len(dims)
	}
	if axis < 0 || axis >= len(dims) || dims[axis] != len(p.scale) {
		return nil, fmt.Errorf("%w: %d scales along axis %d of %v", ErrFormat, len(p.scale), p.axis, dims)
	}
	p.axis = axis
	inner := elements(dims[axis+1:])
	return func(i int) int { return i / inner % len(p.scale) }, nil
}

// readQuantize: what an int8 network's weights are made of, or how a value becomes
// bytes.
func readQuantize(n *node) error {
	p, err := n.quantParams()
	if err != nil {
		return err
	}
	limits, ok := integers[p.typ]
	if !ok {
		return fmt.Errorf("%w: bytes of type %s: want UINT8 or INT8", ErrUnsupported, typeName(p.typ))
	}
	if n.isConstant(0) {
		c, err := n.floats(0)
		if err != nil {
			return err
		}
		at, err := p.index(c.dims)
		if err != nil {
			return err
		}
		q := &constant{dims: c.dims, ints: make([]int64, len(c.floats)), typ: p.typ}
		for i, v := range c.floats {
			k := at(i)
			r := math.RoundToEven(float64(v)/float64(p.scale[k])) + float64(p.zero[k])
			q.ints[i] = int64(min(limits.hi, max(limits.lo, r)))
		}
		return n.isConst(q, nil)
	}
	v, err := n.value(0)
	if err != nil {
		return err
	}
	if len(p.scale) != 1 {
		return fmt.Errorf("%w: %d scales of a computed value: want one", ErrUnsupported, len(p.scale))
	}
	a := p.affine()
	if err := n.im.roundsTo(v, a); err != nil {
		return err
	}
	v.bytes = &a
	return n.is(v, nil)
}

// affine is the first scale and zero, for bytes without a sign.
func (p *quantParams) affine() model.Affine {
	zero := p.zero[0]
	if p.typ == typeInt8 {
		zero += 128
	}
	return model.Affine{Scale: p.scale[0], Zero: uint8(zero)}
}

// roundsTo notes that value v becomes bytes.
func (im *importer) roundsTo(v value, a model.Affine) error {
	if v.layer == model.Input {
		if had := im.quant.Input; had.Scale > 0 && had != a {
			return fmt.Errorf("%w: the input becomes bytes in two ways", ErrUnsupported)
		}
		im.quant.Input = a
		return nil
	}
	name := im.graph.Layers[v.layer].Name
	if had, ok := im.quant.Layers[name]; ok && had != a {
		return fmt.Errorf("%w: the output of %q becomes bytes in two ways", ErrUnsupported, name)
	}
	im.quant.Layers[name] = a
	return nil
}

// readDequantize: weights as the numbers that they stand for, or a value that was bytes.
func readDequantize(n *node) error {
	p, err := n.quantParams()
	if err != nil {
		return err
	}
	if n.isConstant(0) {
		return n.isConst(n.dequantized(p))
	}
	v, ok := n.im.values[n.in(0)]
	if !ok {
		return n.undefined(0)
	}
	if v.bytes == nil {
		return fmt.Errorf("%w: input %q is not bytes", ErrFormat, n.in(0))
	}
	if len(p.scale) != 1 || p.affine() != *v.bytes {
		return fmt.Errorf("%w: bytes of scale %v and zero %d are read with scale %v and zero %d",
			ErrUnsupported, v.bytes.Scale, v.bytes.Zero, p.scale[0], p.affine().Zero)
	}
	v.bytes = nil
	return n.is(v, nil)
}

// dequantized turns a constant of integers into floats. Of int8 with zeros of 0 the
// scales are kept.
func (n *node) dequantized(p quantParams) (*constant, error) {
	c, err := n.optional(0)
	if err != nil {
		return nil, err
	}
	if !c.isInt() {
		return nil, fmt.Errorf("%w: input %q holds floats: want integers", ErrFormat, n.in(0))
	}
	at, err := p.index(c.dims)
	if err != nil {
		return nil, err
	}
	f := &constant{dims: c.dims, floats: make([]float32, len(c.ints))}
	symmetric := c.typ == typeInt8
	for i, v := range c.ints {
		k := at(i)
		f.floats[i] = float32(float64(v-p.zero[k]) * float64(p.scale[k]))
		symmetric = symmetric && p.zero[k] == 0
	}
	if symmetric {
		f.scale, f.axis = p.scale, p.axis
	}
	return f, nil
}

// channels gives a scale for each index of axis; nil if there are none.
func (c *constant) channels(axis int) []float32 {
	if len(c.scale) > 1 && c.axis != axis || len(c.scale) == 0 || axis >= len(c.dims) {
		return nil
	}
	out := make([]float32, c.dims[axis])
	for i := range out {
		out[i] = c.scale[i%len(c.scale)]
	}
	return out
}

// weightBytes notes that the weights of the layer added last are bytes with these
// scales, if there are any.
func (im *importer) weightBytes(scale []float32) {
	if scale != nil {
		im.quant.Weights[im.graph.Layers[len(im.graph.Layers)-1].Name] = scale
	}
}
