package onnx

import (
	"fmt"
	"slices"

	"github.com/espalier-ml/espalier/model"
)

// reshape gives v the dimensions dims. Only where ONNX's order of elements and
// the layer's agree with one of the layouts is that possible.
func (n *node) reshape(v value, dims []int) (value, error) {
	if elements(dims) != elements(v.dims) {
		return value{}, fmt.Errorf("%w: reshape of %v to %v", ErrFormat, v.dims, dims)
	}
	if slices.Equal(dims, v.dims) && (v.image || slices.Equal(v.dims, v.shape) && len(dims) != 3) {
		return v, nil
	}
	if err := n.im.spend(elements(dims)); err != nil { // an order may be written out
		return value{}, err
	}
	have := v.order()
	if len(dims) == 1 {
		if len(v.shape) != 1 {
			var err error
			if v, err = n.im.emit(n, model.Flatten{}, nil, v); err != nil {
				return v, err
			}
		}
		v.image, v.dims, v.perm = false, dims, have
		return v, nil
	}
	want := model.Shape(dims)
	image := len(dims) == 3 && slices.Equal(have, imagePerm(dims[1], dims[2], dims[0]))
	if image {
		want = model.Shape{dims[1], dims[2], dims[0]}
	} else if have != nil {
		return value{}, fmt.Errorf("%w: reshape of %v to %v: want a layout in which channels stay together", ErrUnsupported, v.dims, dims)
	}
	if !v.shape.Equal(want) {
		var err error
		if v, err = n.im.emit(n, model.Reshape{Shape: slices.Clone(want)}, nil, v); err != nil {
			return v, err
		}
	}
	return value{layer: v.layer, shape: want, dims: slices.Clone(dims), image: image}, nil
}

func readFlatten(n *node) error {
	if err := n.arity(1, 1); err != nil {
		return err
	}
	x, err := n.value(0)
	if err != nil {
		return err
	}
	if axis := n.int("axis", 1); !n.im.batched || axis != 1 && axis != 1-n.rank(x) {
		return fmt.Errorf("%w: attribute %q is %d: want 1", ErrUnsupported, "axis", axis)
	}
	return n.is(n.reshape(x, []int{elements(x.dims)}))
}

func readReshape(n *node) error {
	if err := n.arity(2, 2); err != nil {
		return err
	}
	to, err := n.intInput(1)
	if err != nil {
		return err
	}
	keepZero := n.int("allowzero", 0) == 0
	if !keepZero && slices.Contains(to, 0) {
		return fmt.Errorf("%w: reshape to %v: no elements", ErrUnsupported, to)
	}
	if c := n.im.constants[n.in(0)]; c != nil {
		dims, err := resolve(c.dims, to, keepZero)
		if err != nil {
			return err
		}
		return n.isConst(c.reshaped(dims))
	}
	x, err := n.value(0)
	if err != nil {
		return err
	}
	if !n.im.batched {
		dims, err := resolve(x.dims, to, keepZero)
		if err != nil {
			return err
		}
		return n.is(n.reshape(x, dims))
	}
	batch := max(n.im.batch, 1)
	dims, err := resolve(append([]int{batch}, x.dims...), to, keepZero)
	if err != nil {
		return err
	}
	if len(dims) < 2 || dims[0] != batch {
		return fmt.Errorf("%w: reshape to %v: want the batch of %d to stay first", ErrUnsupported, to, batch)
	}
	return n.is(n.reshape(x, dims[1:]))
}

// resolve works out a reshape's dimensions: 0 keeps, -1 is what is left.
func resolve(from, to []int, keepZero bool) ([]int, error) {
	dims, free, product := slices.Clone(to), -1, 1
	for i, d := range to {
		switch {
		case d == 0 && keepZero && i < len(from):
			dims[i] = from[i]
		case d == -1 && free < 0:
			free = i
			continue
		case d < 1:
			return nil, fmt.Errorf("%w: reshape of %v to %v", ErrFormat, from, to)
		}
		if product > model.MaxElements/max(dims[i], 1) {
			return nil, fmt.Errorf("%w: reshape of %v to %v", ErrFormat, from, to)
		}
		product *= dims[i]
	}
	if free >= 0 && product > 0 {
		dims[free] = elements(from) / product
		product *= dims[free]
	}
	if product != elements(from) {
		return nil, fmt.Errorf("%w: reshape of %v to %v", ErrFormat, from, to)
	}
	return dims, nil
}

// axes reads the axes of Squeeze and Unsqueeze: an attribute until opset 12, then
// an input.
func (n *node) axes() ([]int, error) {
	if n.im.opset >= 13 {
		return n.intInput(1)
	}
	return n.ints("axes", -1, nil), nil
}

// dimsOf gives the dimensions of input 0, the batch included as 0.
func (n *node) dimsOf() (dims []int, v value, c *constant, err error) {
	if c = n.im.constants[n.in(0)]; c != nil {
		return c.dims, v, c, nil
	}
	if v, err = n.value(0); err == nil && n.im.batched {
		return append([]int{0}, v.dims...), v, nil, nil
	}
	return v.dims, v, nil, err
}

// isReshaped names the result of giving input 0 other dimensions, in which the
// batch is 0 and must come first.
func (n *node) isReshaped(dims []int, v value, c *constant) error {
	if c != nil {
		return n.isConst(c.reshaped(dims))
	}
	if n.im.batched {
		if len(dims) < 2 || dims[0] != 0 {
			return fmt.Errorf("%w: dimensions %v: want the batch to stay first, before others", ErrUnsupported, dims)
		}
		dims = dims[1:]
	}
	if len(dims) == 0 {
		return fmt.Errorf("%w: a scalar", ErrUnsupported)
	}
	return n.is(n.reshape(v, dims))
}

func readSqueeze(n *node) error {
	if err := n.arity(1, 2); err != nil {
		return err
	}
	axes, err := n.axes()
	if err != nil {
		return err
	}
	dims, v, c, err := n.dimsOf()
	if err != nil {
		return err
	}
	drop := make([]bool, len(dims))
	for _, a := range axes {
		if a < 0 {
			a += len(dims)
		}
		if a < 0 || a >= len(dims) || dims[a] != 1 {
			return fmt.Errorf("%w: squeeze of %v along %v", ErrUnsupported, dims, axes)
		}
		drop[a] = true
	}
	out := []int{}
	for i, d := range dims {
		if !drop[i] && (axes != nil || d != 1) {
			out = append(out, d)
		}
	}
	return n.isReshaped(out, v, c)
}

func readUnsqueeze(n *node) error {
	if err := n.arity(1, 2); err != nil {
		return err
	}
	axes, err := n.axes()
	if err != nil {
		return err
	}
	dims, v, c, err := n.dimsOf()
	if err != nil {
		return err
	}
	rank := len(dims) + len(axes)
	if rank > maxRank {
		return fmt.Errorf("%w: %d dimensions: want at most %d", ErrUnsupported, rank, maxRank)
	}
	out := make([]int, rank)
	for _, a := range axes {
		if a < 0 {
			a += rank
		}
		if a < 0 || a >= rank || out[a] != 0 {
			return fmt.Errorf("%w: unsqueeze of %v along %v", ErrFormat, dims, axes)
		}
		out[a] = 1
	}
	taken := 0
	for i := range out {
		if out[i] == 0 {
			out[i] = dims[taken]
			taken++
		}
	}
	return n.isReshaped(out, v, c)
}

// readTranspose: between {C, H, W} and {H, W, C} it changes how a value is seen,
// and nothing else; so does moving dimensions of 1.
func readTranspose(n *node) error {
	if err := n.arity(1, 1); err != nil {
		return err
	}
	dims, v, c, err := n.dimsOf()
	if err != nil {
		return err
	}
	backwards := make([]int, len(dims))
	for i := range backwards {
		backwards[i] = len(dims) - 1 - i
	}
	perm := n.ints("perm", len(dims), backwards)
	if sorted := slices.Sorted(slices.Values(perm)); n.err != nil || !slices.Equal(sorted, slices.Sorted(slices.Values(backwards))) {
		return fmt.Errorf("%w: attribute %q is %v for %d dimensions", ErrFormat, "perm", perm, len(dims))
	}
	if c != nil {
		return n.isConst(c.transposed(perm), nil)
	}
	seen := v
	switch {
	case v.image && slices.Equal(perm, []int{0, 2, 3, 1}):
		seen.image, seen.dims = false, v.shape
		return n.is(seen, nil)
	case !v.image && len(v.shape) == 3 && slices.Equal(v.dims, v.shape) && slices.Equal(perm, []int{0, 3, 1, 2}):
		seen.image, seen.dims = true, []int{v.shape[2], v.shape[0], v.shape[1]}
		return n.is(seen, nil)
	}
	moved, last := make([]int, len(dims)), -1
	for i, p := range perm {
		moved[i] = dims[p]
		if dims[p] == 1 {
			continue
		}
		if p < last {
			return fmt.Errorf("%w: attribute %q is %v for %v: want one that changes between channels first and last", ErrUnsupported, "perm", perm, v.dims)
		}
		last = p
	}
	return n.isReshaped(moved, v, nil)
}

func readConcat(n *node) error {
	if err := n.arity(1, 1024); err != nil {
		return err
	}
	if n.isConstant(0) {
		return n.concatConstants()
	}
	parts := make([]value, len(n.Input))
	for i := range parts {
		v, err := n.value(i)
		if err == nil && len(v.dims) == 3 && len(v.shape) == 1 {
			v, err = n.image(i)
		}
		if err != nil {
			return err
		}
		parts[i] = v
	}
	out := parts[0]
	axis, err := n.axis(out, n.int("axis", 1))
	if err != nil {
		return err
	}
	for _, v := range parts {
		if v.image != out.image || len(v.dims) != len(out.dims) || v.channelAxis() != axis {
			return fmt.Errorf("%w: concat of %v and %v along axis %d: want the channels of the same layout", ErrUnsupported, out.dims, v.dims, axis)
		}
	}
	if len(parts) == 1 {
		return n.is(out, nil)
	}
	y, err := n.im.emit(n, model.Concat{}, nil, parts...)
	if err != nil {
		return err
	}
	y.image = out.image
	if y.image {
		y.dims = []int{y.shape[2], y.shape[0], y.shape[1]}
	}
	if y.perm, err = n.concatOrder(parts); err != nil {
		return err
	}
	return n.is(y, nil)
}

// concatOrder joins the orders of vectors; nil if all are plain.
func (n *node) concatOrder(parts []value) ([]int32, error) {
	if !slices.ContainsFunc(parts, func(v value) bool { return v.perm != nil }) {
		return nil, nil
	}
	var perm []int32
	for _, v := range parts {
		if err := n.im.spend(v.dims[0]); err != nil {
			return nil, err
		}
		at := len(perm)
		for i := range v.dims[0] {
			j := int32(i)
			if v.perm != nil {
				j = v.perm[i]
			}
			perm = append(perm, int32(at)+j)
		}
	}
	return perm, nil
}
