// Package quantize says how real numbers become bytes: uint8 with a zero point
// for activations, one scale per tensor; int8 without one for weights, one
// scale per output channel. It finds the scales of activations from what they
// are on examples.
package quantize

import (
	"fmt"
	"math"

	"github.com/espalier-ml/espalier/model"
)

// NewAffine covers [lo, hi], widened to hold zero exactly, with 256 steps. A
// range of zeros alone has scale 1.
func NewAffine(lo, hi float32) (model.Affine, error) {
	lo, hi = min(lo, 0), max(hi, 0)
	width := float64(hi) - float64(lo)
	if !(width < math.MaxFloat32) {
		return model.Affine{}, fmt.Errorf("%w: range %v to %v: want finite numbers", model.ErrQuant, lo, hi)
	}
	scale := float32(width / 255)
	if !(scale > 1e-30) {
		return model.Affine{Scale: 1}, nil
	}
	return model.Affine{Scale: scale, Zero: uint8(math.RoundToEven(min(255, -float64(lo)/float64(scale))))}, nil
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
			return fmt.Errorf("%w: value %v: want finite numbers", model.ErrQuant, v)
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
func (o *Observer) Affine() (model.Affine, error) {
	best, err := NewAffine(o.lo, o.hi)
	if err != nil {
		return model.Affine{}, err
	}
	least := o.squaredError(best)
	for part := 0.98; part >= 0.2; part -= 0.02 {
		a, err := NewAffine(float32(part*float64(o.lo)), float32(part*float64(o.hi)))
		if err != nil {
			return model.Affine{}, err
		}
		if e := o.squaredError(a); e < least {
			best, least = a, e
		}
	}
	return best, nil
}

// squaredError is that of quantizing the middles of the bins, weighed by their
// counts.
func (o *Observer) squaredError(a model.Affine) float64 {
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
