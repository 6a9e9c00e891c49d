// Package quantize says how real numbers become bytes: uint8 with a zero point
// for activations, one scale per tensor; int8 without one for weights, one
// scale per output channel. It finds the scales of activations from what they
// are on examples.
package quantize

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
)

// ErrRange says that a range or scale is not usable.
var ErrRange = errors.New("invalid quantization")

// Affine maps byte q to the number (q - Zero)·Scale.
type Affine struct {
	Scale float32
	Zero  uint8
}

// NewAffine covers [lo, hi], widened to hold zero exactly, with 256 steps. A
// range of zeros alone has scale 1.
func NewAffine(lo, hi float32) (Affine, error) {
	lo, hi = min(lo, 0), max(hi, 0)
	width := float64(hi) - float64(lo)
	if !(width < math.MaxFloat32) {
		return Affine{}, fmt.Errorf("%w: range %v to %v: want finite numbers", ErrRange, lo, hi)
	}
	scale := float32(width / 255)
	if !(scale > 1e-30) {
		return Affine{Scale: 1}, nil
	}
	return Affine{Scale: scale, Zero: uint8(math.RoundToEven(min(255, -float64(lo)/float64(scale))))}, nil
}

// Quantize is the byte nearest to x.
func (a Affine) Quantize(x float32) uint8 {
	return uint8(min(255, max(0, math.RoundToEven(float64(x)/float64(a.Scale))+float64(a.Zero))))
}

// Dequantize is the number that q stands for.
func (a Affine) Dequantize(q uint8) float32 { return float32(int(q)-int(a.Zero)) * a.Scale }

// Scheme has the quantization of a graph's activations: of its input, and of
// the output of layers by name. Layers that it does not name stay float32.
type Scheme struct {
	Input  Affine
	Layers map[string]Affine
}

// Check refuses scales that are not finite, or below 0. A scale of 0 says
// nothing, as if the layer were not named.
func (s *Scheme) Check() error {
	if err := s.Input.check(); err != nil {
		return fmt.Errorf("input: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Layers)) {
		if err := s.Layers[name].check(); err != nil {
			return fmt.Errorf("layer %q: %w", name, err)
		}
	}
	return nil
}

func (a Affine) check() error {
	if !(a.Scale >= 0 && a.Scale <= math.MaxFloat32) {
		return fmt.Errorf("%w: scale %v: want a finite number of 0 or more", ErrRange, a.Scale)
	}
	return nil
}

// Weights quantizes weights whose last dimension is out channels to -127..127,
// each channel with the scale of its largest weight. A channel of zeros has
// scale 1. Zero stays zero.
func Weights(w []float32, out int) (q []int8, scale []float32) {
	top := make([]float32, out)
	for i, v := range w {
		top[i%out] = max(top[i%out], float32(math.Abs(float64(v))))
	}
	scale = make([]float32, out)
	for i, t := range top {
		if scale[i] = t / 127; !(scale[i] > 1e-30) {
			scale[i] = 1
		}
	}
	q = make([]int8, len(w))
	for i, v := range w {
		q[i] = int8(min(127, max(-127, math.RoundToEven(float64(v)/float64(scale[i%out])))))
	}
	return q, scale
}

// bins of an Observer's histogram.
const bins = 2048

// Observer gathers the values of one tensor in two rounds: Range over all
// values first, then Count over the same values. Affine then weighs the
// rounding of the many against the clipping of the few.
type Observer struct {
	lo, hi float32
	count  [bins]uint64
}

// Range widens the observed range.
func (o *Observer) Range(x []float32) error {
	for _, v := range x {
		if v != v || math.IsInf(float64(v), 0) {
			return fmt.Errorf("%w: value %v: want finite numbers", ErrRange, v)
		}
		o.lo, o.hi = min(o.lo, v), max(o.hi, v)
	}
	return nil
}

// Count counts values by size.
func (o *Observer) Count(x []float32) {
	k := bins / (float64(o.hi) - float64(o.lo))
	if !(k > 0 && k < math.MaxFloat64) {
		return
	}
	for _, v := range x {
		o.count[max(0, min(bins-1, int((float64(v)-float64(o.lo))*k)))]++
	}
}

// Affine is the quantization with the least mean squared error among those that
// cover a part of the range, from all of it down to a fifth.
func (o *Observer) Affine() (Affine, error) {
	best, err := NewAffine(o.lo, o.hi)
	if err != nil {
		return Affine{}, err
	}
	least := o.squaredError(best)
	for part := 0.98; part >= 0.2; part -= 0.02 {
		a, err := NewAffine(float32(part*float64(o.lo)), float32(part*float64(o.hi)))
		if err != nil {
			return Affine{}, err
		}
		if e := o.squaredError(a); e < least {
			best, least = a, e
		}
	}
	return best, nil
}

// squaredError is that of quantizing the middles of the bins, weighed by their
// counts.
func (o *Observer) squaredError(a Affine) float64 {
	var sum float64
	width := (float64(o.hi) - float64(o.lo)) / bins
	for i, n := range o.count {
		if n == 0 {
			continue
		}
		v := float64(o.lo) + (float64(i)+0.5)*width
		d := v - float64(a.Dequantize(a.Quantize(float32(v))))
		sum += float64(n) * d * d
	}
	return sum
}
