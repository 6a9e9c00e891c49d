package train

import (
	"fmt"
	"hash"
	"hash/fnv"
	"sync/atomic"

	"github.com/chewxy/hm"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// operator is a Gorgonia operator of fixed types that owns its result: Do runs
// a function that fills it and returns the same value every time. Nothing is
// allocated and registers that the machine reuses do no harm.
type operator struct {
	id     uint64
	name   string
	dims   []int // of the inputs
	shape  tensor.Shape
	result gorgonia.Value
	run    func(in []gorgonia.Value) error
}

// operatorID makes every operator hash differently, so that Gorgonia never
// merges two.
var operatorID atomic.Uint64

func newOperator(name string, dims []int, result gorgonia.Value, run func(in []gorgonia.Value) error) *operator {
	return &operator{id: operatorID.Add(1), name: name, dims: dims, shape: result.Shape().Clone(), result: result, run: run}
}

var (
	_ gorgonia.Op   = (*operator)(nil)
	_ gorgonia.SDOp = (*differentiable)(nil)
)

// Arity is the number of inputs.
func (o *operator) Arity() int { return len(o.dims) }

// Type is the concrete type of the function.
func (o *operator) Type() hm.Type {
	types := make([]hm.Type, 0, len(o.dims)+1)
	for _, d := range append(o.dims[:len(o.dims):len(o.dims)], o.shape.Dims()) {
		if d == 0 {
			types = append(types, tensor.Float32)
		} else {
			types = append(types, gorgonia.TensorType{Dims: d, Of: tensor.Float32})
		}
	}
	return hm.NewFnType(types...)
}

// InferShape is that of the result.
func (o *operator) InferShape(...gorgonia.DimSizer) (tensor.Shape, error) {
	return o.shape.Clone(), nil
}

// Do fills the result. A panic becomes an error.
func (o *operator) Do(in ...gorgonia.Value) (_ gorgonia.Value, err error) {
	defer recovered(&err)
	if len(in) != len(o.dims) {
		return nil, fmt.Errorf("%w: %s has %d inputs: want %d", ErrOperator, o.name, len(in), len(o.dims))
	}
	return o.result, o.run(in)
}

// ReturnsPtr, CallsExtern and OverwritesInput tell Gorgonia how Do treats
// memory: it returns its own and leaves its inputs alone.
func (o *operator) ReturnsPtr() bool { return true }

// CallsExtern is false: everything runs here.
func (o *operator) CallsExtern() bool { return false }

// OverwritesInput is -1: none.
func (o *operator) OverwritesInput() int { return -1 }

// WriteHash writes a name that no other operator has.
func (o *operator) WriteHash(h hash.Hash) { fmt.Fprintf(h, "%s-%d", o.name, o.id) }

// Hashcode is the hash of WriteHash.
func (o *operator) Hashcode() uint32 {
	h := fnv.New32a()
	o.WriteHash(h)
	return h.Sum32()
}

func (o *operator) String() string { return o.name }

// differentiable is an operator with a gradient.
type differentiable struct {
	*operator
	wrt  []bool
	diff func(in gorgonia.Nodes, out *gorgonia.Node, grad *gorgonia.Node) (gorgonia.Nodes, error)
}

// DiffWRT says with respect to which inputs there is a gradient.
func (o *differentiable) DiffWRT(int) []bool { return o.wrt }

// SymDiff adds the operators of the gradient.
func (o *differentiable) SymDiff(in gorgonia.Nodes, out, grad *gorgonia.Node) (gorgonia.Nodes, error) {
	return o.diff(in, out, grad)
}

// floats views the elements of a tensor without an allocation.
func floats(v gorgonia.Value) []float32 { return v.(*tensor.Dense).Float32s() }

func dense32(data []float32, shape ...int) *tensor.Dense {
	return tensor.New(tensor.WithShape(shape...), tensor.WithBacking(data))
}
