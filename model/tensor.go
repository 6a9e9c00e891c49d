package model

import (
	"fmt"
	"math"
	"slices"
)

// MaxElements bounds the number of elements of any shape that this package
// accepts, so that untrusted files cannot ask for absurd amounts of memory.
const MaxElements = 1 << 30

// Shape is a list of positive dimensions, outermost first.
type Shape []int

// Elements is the product of the dimensions; 1 for a scalar.
func (s Shape) Elements() int {
	n := 1
	for _, d := range s {
		n *= d
	}
	return n
}

// Check refuses dimensions that are not positive and products over MaxElements.
func (s Shape) Check() error {
	n := 1
	for _, d := range s {
		if d < 1 {
			return fmt.Errorf("%w: dimension %d of %v: want 1 or more", ErrShape, d, []int(s))
		}
		if d > MaxElements/n {
			return fmt.Errorf("%w: %v has more than %d elements", ErrShape, []int(s), MaxElements)
		}
		n *= d
	}
	return nil
}

// Equal reports whether both shapes have the same dimensions.
func (s Shape) Equal(o Shape) bool { return slices.Equal(s, o) }

// Tensor is a dense float32 array in row-major order.
type Tensor struct {
	Shape Shape
	Data  []float32
}

// NewTensor returns a tensor of zeros. It panics on a shape that Check refuses:
// shapes from outside must be checked first.
func NewTensor(shape ...int) *Tensor {
	s := Shape(shape)
	if err := s.Check(); err != nil {
		panic(err)
	}
	return &Tensor{Shape: slices.Clone(s), Data: make([]float32, s.Elements())}
}

// Clone returns a deep copy.
func (t *Tensor) Clone() *Tensor {
	return &Tensor{Shape: slices.Clone(t.Shape), Data: slices.Clone(t.Data)}
}

// Check verifies that the data fills the shape.
func (t *Tensor) Check() error {
	if err := t.Shape.Check(); err != nil {
		return err
	}
	if len(t.Data) != t.Shape.Elements() {
		return fmt.Errorf("%w: %d values for shape %v: want %d", ErrShape, len(t.Data), []int(t.Shape), t.Shape.Elements())
	}
	return nil
}

// NonZeros counts the values that are not exactly zero.
func (t *Tensor) NonZeros() int {
	n := 0
	for _, v := range t.Data {
		if v != 0 {
			n++
		}
	}
	return n
}

// Finite reports whether no value is NaN or infinite.
func (t *Tensor) Finite() bool {
	for _, v := range t.Data {
		if f := float64(v); math.IsNaN(f) || math.IsInf(f, 0) {
			return false
		}
	}
	return true
}
