package quantize

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/espalier-ml/espalier/model"
)

func TestAffine(t *testing.T) {
	for _, c := range []struct {
		lo, hi float32
		zero   uint8
		scale  float32
	}{
		{0, 255, 0, 1}, {-128, 127, 128, 1}, {1, 2, 0, 2. / 255}, {-510, -1, 255, 2}, {0, 0, 0, 1},
	} {
		a, err := NewAffine(c.lo, c.hi)
		if err != nil || a.Zero != c.zero || a.Scale != c.scale {
			t.Errorf("[%v, %v]: %+v, %v: want zero %d, scale %v", c.lo, c.hi, a, err, c.zero, c.scale)
		}
		if v := a.Dequantize(a.Quantize(0)); v != 0 {
			t.Errorf("[%v, %v]: zero becomes %v", c.lo, c.hi, v)
		}
	}
	inf := float32(math.Inf(1))
	if _, err := NewAffine(0, inf); !errors.Is(err, model.ErrQuant) {
		t.Errorf("%v: want %v", err, model.ErrQuant)
	}
}

func TestRoundTrip(t *testing.T) {
	a, err := NewAffine(-3, 5)
	if err != nil {
		t.Fatal(err)
	}
	for x := float32(-3); x <= 5; x += 0.01 {
		if d := math.Abs(float64(a.Dequantize(a.Quantize(x)) - x)); d > 0.51*float64(a.Scale) {
			t.Fatalf("%v comes back %v away: want at most half a step of %v", x, d, a.Scale)
		}
	}
	if a.Quantize(-9) != 0 || a.Quantize(99) != 255 {
		t.Error("values outside do not become the ends")
	}
}

func TestWeights(t *testing.T) {
	w := []float32{1, 0, -4, 0.5, 0, 127}
	q, scale := Weights(w, 3)
	if q[0] != 127 || q[3] != 64 && q[3] != 63 || q[1] != 0 || scale[1] != 1 || q[5] != 127 || q[2] != -4 || scale[2] != 1 {
		t.Errorf("%v with scales %v", q, scale)
	}
	for i, v := range w {
		if d := math.Abs(float64(float32(q[i])*scale[i%3] - v)); d > 0.51*float64(scale[i%3]) {
			t.Errorf("weight %d comes back %v away", i, d)
		}
	}
}

// A rare outlier is clipped, a uniform range is kept.
func TestObserverWeighsClipping(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	observe := func(x []float32) model.Affine {
		var o Observer
		if err := o.Range(x); err != nil {
			t.Fatal(err)
		}
		o.Count(x)
		a, err := o.Affine()
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	normal, uniform := make([]float32, 1000000), make([]float32, 1000000)
	for i := range normal {
		normal[i], uniform[i] = float32(r.NormFloat64()), r.Float32()
	}
	normal[0] = 20
	if a := observe(normal); 255*a.Scale > 20 {
		t.Errorf("range %v for normal numbers with one of 20: want it clipped", 255*a.Scale)
	}
	if a := observe(uniform); 255*a.Scale < 0.97 || a.Zero != 0 {
		t.Errorf("range %v, zero %d for numbers of [0, 1): want all of it", 255*a.Scale, a.Zero)
	}
	if a := observe(make([]float32, 10)); a != (model.Affine{Scale: 1}) {
		t.Errorf("%+v for zeros: want scale 1", a)
	}
	var o Observer
	if err := o.Range([]float32{float32(math.NaN())}); !errors.Is(err, model.ErrQuant) {
		t.Errorf("%v: want %v", err, model.ErrQuant)
	}
}

func TestSchemeCheck(t *testing.T) {
	good := model.Quant{Input: model.Affine{Scale: 1}, Layers: map[string]model.Affine{"a": {Scale: 0.5, Zero: 3}, "b": {}}}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	for _, scale := range []float32{-1, float32(math.NaN()), float32(math.Inf(1))} {
		for _, s := range []model.Quant{{Input: model.Affine{Scale: scale}}, {Layers: map[string]model.Affine{"a": {Scale: scale}}}} {
			if err := s.Check(); !errors.Is(err, model.ErrQuant) {
				t.Errorf("scale %v: %v: want %v", scale, err, model.ErrQuant)
			}
		}
	}
}
