package onnx

import (
	"fmt"
	"slices"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/onnx/onnxpb"
)

func readConstant(n *node) error {
	if err := n.arity(0, 0); err != nil {
		return err
	}
	switch {
	case n.has("value"):
		p := n.get("value", onnxpb.AttributeProto_TENSOR)
		if n.err != nil {
			return n.err
		}
		return n.isConst(newConstant(p.T))
	case n.has("value_float"):
		return n.isConst(&constant{floats: []float32{n.float("value_float", 0)}}, nil)
	case n.has("value_int"):
		return n.isConst(&constant{ints: []int64{int64(n.int("value_int", 0))}}, nil)
	case n.has("value_floats"):
		if p := n.get("value_floats", onnxpb.AttributeProto_FLOATS); p != nil {
			return n.isConst(&constant{dims: []int{len(p.Floats)}, floats: slices.Clone(p.Floats)}, nil)
		}
	case n.has("value_ints"):
		if p := n.get("value_ints", onnxpb.AttributeProto_INTS); p != nil {
			return n.isConst(&constant{dims: []int{len(p.Ints)}, ints: slices.Clone(p.Ints)}, nil)
		}
	default:
		return fmt.Errorf("%w: no value", ErrFormat)
	}
	return n.err
}

// readConstantOfShape: a tensor of one repeated number, 0 unless given.
func readConstantOfShape(n *node) error {
	if err := n.arity(1, 1); err != nil {
		return err
	}
	c, err := n.optional(0)
	if err != nil {
		return err
	}
	if c == nil || !c.isInt() || len(c.dims) > 1 {
		return fmt.Errorf("%w: shape %q: want a list of integers", ErrFormat, n.in(0))
	}
	dims, err := checkDims(c.ints)
	if err != nil {
		return err
	}
	fill := &constant{dims: []int{1}, floats: []float32{0}}
	if p := n.get("value", onnxpb.AttributeProto_TENSOR); p != nil {
		if fill, err = newConstant(p.T); err != nil {
			return err
		}
		if elements(fill.dims) != 1 {
			return fmt.Errorf("%w: attribute %q of %v: want one number", ErrFormat, "value", fill.dims)
		}
	}
	if int64(elements(dims)) > n.im.left {
		return n.im.spend(elements(dims))
	}
	out := &constant{dims: dims}
	if fill.isInt() {
		out.ints = slices.Repeat(fill.ints, elements(dims))
	} else {
		out.floats = slices.Repeat(fill.floats, elements(dims))
	}
	return n.isConst(out, nil)
}

// readShape gives the dimensions of a value as a constant; a symbolic batch
// counts as 1, which Reshape takes for the batch again.
func readShape(n *node) error {
	if err := n.arity(1, 1); err != nil {
		return err
	}
	n.only("start", 0)
	if n.has("end") {
		return fmt.Errorf("%w: attribute %q", ErrUnsupported, "end")
	}
	dims, _, c, err := n.dimsOf()
	if err != nil {
		return err
	}
	out := &constant{dims: []int{len(dims)}, ints: []int64{}}
	for i, d := range dims {
		if i == 0 && c == nil && n.im.batched {
			d = max(n.im.batch, 1)
		}
		out.ints = append(out.ints, int64(d))
	}
	return n.isConst(out, nil)
}

// readGather picks elements of a constant list of integers, or reorders features.
func readGather(n *node) error {
	if err := n.arity(2, 2); err != nil {
		return err
	}
	if _, ok := n.im.values[n.in(0)]; ok {
		return n.reorder()
	}
	n.only("axis", 0)
	from, err := n.intInput(0)
	if err != nil {
		return err
	}
	at, err := n.optional(1)
	if err != nil {
		return err
	}
	if from == nil || at == nil || !at.isInt() {
		return fmt.Errorf("%w: gather from %q: want constant integers", ErrUnsupported, n.in(0))
	}
	out := &constant{dims: at.dims, ints: make([]int64, len(at.ints))}
	for i, k := range at.ints {
		if k < 0 {
			k += int64(len(from))
		}
		if k < 0 || k >= int64(len(from)) {
			return fmt.Errorf("%w: index %d of %d", ErrFormat, at.ints[i], len(from))
		}
		out.ints[i] = int64(from[k])
	}
	return n.isConst(out, nil)
}

// reorder is a gather of every feature of a vector once: it only changes where
// they are seen.
func (n *node) reorder() error {
	x, err := n.vector(0)
	if err != nil {
		return err
	}
	if _, err := n.axis(x, n.int("axis", 0)); err != nil {
		return err
	}
	index, err := n.intInput(1)
	if err != nil {
		return err
	}
	if err := n.im.spend(len(index)); err != nil {
		return err
	}
	if len(index) != x.dims[0] {
		return fmt.Errorf("%w: gather of %d features: want each of %d once", ErrUnsupported, len(index), x.dims[0])
	}
	perm, seen, plain := make([]int32, len(index)), make([]bool, len(index)), true
	for i, j := range index {
		if j < 0 {
			j += x.dims[0]
		}
		if j < 0 || j >= x.dims[0] || seen[j] {
			return fmt.Errorf("%w: gather of feature %d: want each of %d once", ErrUnsupported, index[i], x.dims[0])
		}
		seen[j], perm[i] = true, int32(j)
		if x.perm != nil {
			perm[i] = x.perm[j]
		}
		plain = plain && perm[i] == int32(i)
	}
	if x.perm = perm; plain {
		x.perm = nil
	}
	return n.is(x, nil)
}

// readCast: integers to integers and floats to floats are what they were.
func readCast(n *node) error {
	if err := n.arity(1, 1); err != nil {
		return err
	}
	to := int32(n.int("to", 0))
	n.int("saturate", 1) // for types that are refused
	float := to == typeFloat || to == typeDouble
	if !float && to != typeInt32 && to != typeInt64 {
		return fmt.Errorf("%w: cast to %s", ErrUnsupported, typeName(to))
	}
	if c := n.im.constants[n.in(0)]; c != nil {
		if c.isInt() == float {
			return fmt.Errorf("%w: cast between integers and floats", ErrUnsupported)
		}
		return n.isConst(c, nil)
	}
	if to != typeFloat {
		return fmt.Errorf("%w: cast of a computed value to %s", ErrUnsupported, typeName(to))
	}
	return n.is(n.value(0))
}

// concatConstants joins lists of integers.
func (n *node) concatConstants() error {
	n.only("axis", 0)
	out := &constant{ints: []int64{}}
	for i := range n.Input {
		v, err := n.intInput(i)
		if err != nil {
			return err
		}
		for _, x := range v {
			out.ints = append(out.ints, int64(x))
		}
	}
	if len(out.ints) > model.MaxLayers {
		return fmt.Errorf("%w: list of %d integers", ErrTooLarge, len(out.ints))
	}
	out.dims = []int{len(out.ints)}
	return n.isConst(out, nil)
}
