package onnx

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/onnx/onnxpb"
)

// constant is a tensor known when reading: floats, or integers.
type constant struct {
	dims   []int
	floats []float32
	ints   []int64
	typ    int32 // of integers in the file, as far as it matters: INT8, UINT8 or INT32

	// scale says of floats that were int8 what they are multiples of: all of one
	// number, or of one for each index of axis.
	scale []float32
	axis  int
}

func (c *constant) isInt() bool { return c.floats == nil }

func elements(dims []int) int {
	n := 1
	for _, d := range dims {
		n *= d
	}
	return n
}

// maxRank bounds the number of dimensions.
const maxRank = 8

// checkDims refuses negative dimensions and absurd products; 0 is allowed.
func checkDims(dims []int64) ([]int, error) {
	if len(dims) > maxRank {
		return nil, fmt.Errorf("%w: %d dimensions: want at most %d", ErrUnsupported, len(dims), maxRank)
	}
	out := make([]int, len(dims))
	n := int64(1)
	for i, d := range dims {
		if d < 0 || d > model.MaxElements {
			return nil, fmt.Errorf("%w: dimension %d of %v: want 0 to %d", ErrFormat, d, dims, model.MaxElements)
		}
		if d > 0 && n > model.MaxElements/d {
			return nil, fmt.Errorf("%w: %v has more than %d elements", ErrTooLarge, dims, model.MaxElements)
		}
		n *= max(d, 1)
		out[i] = int(d)
	}
	return out, nil
}

const (
	typeFloat  = int32(onnxpb.TensorProto_FLOAT)
	typeDouble = int32(onnxpb.TensorProto_DOUBLE)
	typeInt32  = int32(onnxpb.TensorProto_INT32)
	typeInt64  = int32(onnxpb.TensorProto_INT64)
)

func typeName(t int32) string { return onnxpb.TensorProto_DataType(t).String() }

// newConstant decodes a tensor of floats, doubles or integers of 8, 32 or 64 bits.
// It keeps no reference to t.
func newConstant(t *onnxpb.TensorProto) (*constant, error) {
	if t == nil {
		return nil, fmt.Errorf("%w: tensor is missing", ErrFormat)
	}
	fail := func(err error) (*constant, error) { return nil, fmt.Errorf("tensor %q: %w", t.Name, err) }
	if t.DataLocation != 0 || len(t.ExternalData) > 0 {
		return fail(fmt.Errorf("%w: data in another file", ErrUnsupported))
	}
	if t.Segment != nil {
		return fail(fmt.Errorf("%w: segment of a larger tensor", ErrUnsupported))
	}
	dims, err := checkDims(t.Dims)
	if err != nil {
		return fail(err)
	}
	c := &constant{dims: dims, typ: t.DataType}
	width, listed := 0, 0
	switch t.DataType {
	case typeFloat:
		width, listed = 4, len(t.FloatData)
	case typeDouble:
		width, listed = 8, len(t.DoubleData)
	case typeInt32:
		width, listed = 4, len(t.Int32Data)
	case typeInt8, typeUint8:
		width, listed = 1, len(t.Int32Data)
	case typeInt64:
		width, listed = 8, len(t.Int64Data)
	default:
		return fail(fmt.Errorf("%w: type %s: want FLOAT, DOUBLE, INT8, UINT8, INT32 or INT64", ErrUnsupported, typeName(t.DataType)))
	}
	n := elements(dims)
	raw := len(t.RawData) > 0
	if raw && len(t.RawData) != n*width || !raw && listed != n {
		return fail(fmt.Errorf("%w: %d bytes or %d values for dimensions %v: want %d values", ErrFormat, len(t.RawData), listed, dims, n))
	}
	if raw {
		c.fromRaw(t.DataType, t.RawData, n)
	} else {
		c.fromLists(t, n)
	}
	return c, nil
}

func (c *constant) fromRaw(typ int32, b []byte, n int) {
	le := binary.LittleEndian
	if typ == typeFloat || typ == typeDouble {
		c.floats = make([]float32, n)
	} else {
		c.ints = make([]int64, n)
	}
	for i := range n {
		switch typ {
		case typeFloat:
			c.floats[i] = math.Float32frombits(le.Uint32(b[4*i:]))
		case typeDouble:
			c.floats[i] = float32(math.Float64frombits(le.Uint64(b[8*i:])))
		case typeInt32:
			c.ints[i] = int64(int32(le.Uint32(b[4*i:])))
		case typeInt8:
			c.ints[i] = int64(int8(b[i]))
		case typeUint8:
			c.ints[i] = int64(b[i])
		case typeInt64:
			c.ints[i] = int64(le.Uint64(b[8*i:]))
		}
	}
}

func (c *constant) fromLists(t *onnxpb.TensorProto, n int) {
	switch t.DataType {
	case typeFloat:
		c.floats = append(make([]float32, 0, n), t.FloatData...)
	case typeDouble:
		c.floats = make([]float32, n)
		for i, v := range t.DoubleData {
			c.floats[i] = float32(v)
		}
	case typeInt32, typeInt8, typeUint8:
		c.ints = make([]int64, n)
		for i, v := range t.Int32Data {
			c.ints[i] = int64(v)
		}
	case typeInt64:
		c.ints = append(make([]int64, 0, n), t.Int64Data...)
	}
}

// reshaped shares the values.
func (c *constant) reshaped(dims []int) (*constant, error) {
	if elements(dims) != elements(c.dims) {
		return nil, fmt.Errorf("%w: reshape of a constant of %v to %v", ErrFormat, c.dims, dims)
	}
	return &constant{dims: dims, floats: c.floats, ints: c.ints, typ: c.typ}, nil
}

// transposed permutes the dimensions: dimension i of the result is perm[i] of c.
func (c *constant) transposed(perm []int) *constant {
	rank := len(c.dims)
	stride := make([]int, rank)
	for i, n := rank-1, 1; i >= 0; i-- {
		stride[i] = n
		n *= c.dims[i]
	}
	out := &constant{dims: make([]int, rank), typ: c.typ, scale: c.scale, axis: slices.Index(perm, c.axis)}
	for i, p := range perm {
		out.dims[i] = c.dims[p]
	}
	n := elements(c.dims)
	from := make([]int, n)
	index := make([]int, rank)
	for i := range from {
		for k, p := range perm {
			from[i] += index[k] * stride[p]
		}
		for k := rank - 1; k >= 0; k-- {
			if index[k]++; index[k] < out.dims[k] {
				break
			}
			index[k] = 0
		}
	}
	if c.isInt() {
		out.ints = make([]int64, n)
	} else {
		out.floats = make([]float32, n)
	}
	for i, j := range from {
		if c.isInt() {
			out.ints[i] = c.ints[j]
		} else {
			out.floats[i] = c.floats[j]
		}
	}
	return out
}

// tensor gives the floats, reordered from ONNX's dimensions, as a parameter.
func (c *constant) tensor(perm ...int) *model.Tensor {
	if !slices.IsSorted(perm) {
		c = c.transposed(perm)
	}
	return &model.Tensor{Shape: slices.Clone(c.dims), Data: slices.Clone(c.floats)}
}
