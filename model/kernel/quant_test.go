package kernel

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// guardedBytes returns n random bytes inside a larger buffer, and a check of what surrounds them.
func guardedBytes(r *rand.Rand, n, skew int) (s []uint8, check func(t *testing.T, name string)) {
	all := make([]uint8, n+80+skew)
	for i := range all {
		all[i] = uint8(r.Uint32())
	}
	before := append([]uint8(nil), all...)
	return all[40+skew : 40+skew+n], func(t *testing.T, name string) {
		t.Helper()
		for i, v := range all {
			if (i < 40+skew || i >= 40+skew+n) && v != before[i] {
				t.Fatalf("%s: byte %d outside the buffer was overwritten", name, i-40-skew)
			}
		}
	}
}

func checkQuant(t *testing.T, r *rand.Rand, sh ConvShape, n int) {
	t.Helper()
	c, err := NewConv(sh)
	must(t, err)
	x, checkX := guardedBytes(r, n*c.inSize, r.IntN(4))
	y, checkY := guardedBytes(r, n*c.outSize, r.IntN(4))
	w := make([]int8, c.wSize)
	for i := range w {
		w[i] = int8(r.Uint32())
	}
	q := Requant{InZero: uint8(r.Uint32()), OutZero: uint8(r.IntN(200)), Lo: uint8(r.IntN(20)), Hi: uint8(200 + r.IntN(56))}
	for range sh.OC {
		q.Scale = append(q.Scale, float32(0.05/math.Sqrt(float64(c.wSize/sh.OC))*r.Float64()))
		q.Bias = append(q.Bias, int32(r.IntN(20001)-10000))
	}
	qc, err := NewQConv(sh, w, q)
	must(t, err)
	s := new(Scratch)
	must(t, qc.Forward(s, x, y, 0, n))
	checkX(t, "x")
	checkY(t, "y")
	sums := make([]int64, c.outSize)
	for i := range n {
		clear(sums)
		c.taps(func(xi, wi, yi int) {
			sums[yi] += (int64(x[i*c.inSize+xi]) - int64(q.InZero)) * int64(w[wi])
		})
		for j, v := range sums {
			f := math.RoundToEven(float64(float32(v+int64(q.Bias[j%sh.OC])) * q.Scale[j%sh.OC]))
			want := uint8(min(max(f+float64(q.OutZero), float64(q.Lo)), float64(q.Hi)))
			if got := y[i*c.outSize+j]; got != want {
				t.Fatalf("image %d, output %d is %d, want %d (sum %d)", i, j, got, want, v)
			}
		}
	}
	if a := testing.AllocsPerRun(2, func() { must(t, qc.Forward(s, x, y, 0, n)) }); a != 0 {
		t.Errorf("Forward allocates %g times, want none", a)
	}
}

func TestQuantizedConv(t *testing.T) {
	shapes := append([]ConvShape{{H: 1, W: 1, IC: 1024, OC: 64, KH: 1, KW: 1}, {H: 1, W: 1, IC: 33, OC: 10, KH: 1, KW: 1}}, convTable...)
	eachVariant(t, func(t *testing.T) {
		for i, sh := range shapes {
			t.Run(fmt.Sprintf("%d", i), func(t *testing.T) {
				skipSlow(t, sh)
				checkQuant(t, rng(uint64(i)), sh, 1+i%3)
			})
		}
	})
}

// TestQuantizedExtremes has the largest products there are, so that no step may saturate.
func TestQuantizedExtremes(t *testing.T) {
	const in, out = 1024, 43
	w := make([]int8, in*out)
	for i := range w {
		w[i] = []int8{-128, 127, -127}[i%out%3]
	}
	scale := make([]float32, out)
	for i := range scale {
		scale[i] = 3e-6
	}
	eachVariant(t, func(t *testing.T) {
		for _, zero := range []uint8{0, 255} {
			q, err := NewQConv(ConvShape{H: 1, W: 1, IC: in, OC: out, KH: 1, KW: 1}, w, Requant{Scale: scale, InZero: zero, OutZero: 128})
			must(t, err)
			x, y := make([]uint8, in), make([]uint8, out)
			for i := range x {
				x[i] = 255 - zero
			}
			must(t, q.Forward(nil, x, y, 0, 1))
			for j, got := range y {
				sum := in * (255 - 2*int(zero)) * int(w[j])
				if want := uint8(math.RoundToEven(float64(float32(sum)*scale[j])) + 128); got != want {
					t.Fatalf("zero %d: output %d is %d, want %d", zero, j, got, want)
				}
			}
		}
	})
}

func FuzzQuantizedConv(f *testing.F) {
	f.Add(uint64(1), []byte{5, 5, 2, 3, 3, 3, 1, 1, 1, 1, 0, 0, 0, 0, 1})
	f.Add(uint64(2), []byte{9, 8, 4, 8, 3, 2, 2, 1, 2, 1, 1, 2, 3, 0, 4})
	f.Fuzz(func(t *testing.T, seed uint64, b []byte) {
		if len(b) < 15 {
			return
		}
		v := func(i, n int) int { return int(b[i])%n + 1 }
		sh := ConvShape{H: v(0, 17), W: v(1, 17), KH: v(4, 5), KW: v(5, 5), StrideH: v(6, 3), StrideW: v(7, 3), DilationH: v(8, 3),
			DilationW: v(9, 3), PadTop: v(10, 5) - 1, PadLeft: v(11, 5) - 1, PadBottom: v(12, 5) - 1, PadRight: v(13, 5) - 1, Groups: v(14, 4)}
		sh.IC, sh.OC = v(2, 20)*sh.Groups, v(3, 70)*sh.Groups
		if sh.Validate() != nil {
			return
		}
		for _, va := range Available() {
			restore, err := Force(va)
			must(t, err)
			checkQuant(t, rng(seed), sh, 2)
			restore()
		}
	})
}

func TestQuantizeTwins(t *testing.T) {
	special := []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1)), 0.5, 1.5, 2.5, -0.5, 1e30, -1e30, 254.5}
	var wantQ []uint8
	var wantX []float32
	for i, v := range append([]Variant{Generic}, Available()...) {
		restore, err := Force(v)
		must(t, err)
		r := rng(5)
		x := make([]float32, 103)
		for j := range x {
			x[j] = r.Float32()*40 - 20
		}
		copy(x[20:], special)
		q, check := guardedBytes(r, len(x), 1)
		must(t, Quantize(nil, q, x, 0.1, 128))
		check(t, "q")
		back := newGuarded(len(x), 1)
		must(t, Dequantize(nil, back.s, q, 0.1, 128))
		back.check(t, "x")
		restore()
		if i == 0 {
			wantQ, wantX = append(wantQ, q...), back.s
			continue
		}
		for j := range q {
			if q[j] != wantQ[j] || back.s[j] != wantX[j] {
				t.Errorf("%s: element %d (%g) becomes %d and %g, want %d and %g", v, j, x[j], q[j], back.s[j], wantQ[j], wantX[j])
			}
		}
	}
}

func TestMaxBytes(t *testing.T) {
	eachVariant(t, func(t *testing.T) {
		for i, sh := range []PoolShape{{H: 9, W: 8, C: 35, KH: 2, KW: 2, StrideH: 2, StrideW: 2}, {H: 5, W: 5, C: 16, KH: 3, KW: 3, StrideH: 2, StrideW: 2, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1}, {H: 3, W: 3, C: 5, KH: 2, KW: 1}} {
			p, err := NewPool(sh)
			must(t, err)
			r := rng(uint64(i))
			x, _ := guardedBytes(r, 2*p.InSize(), 1)
			y, check := guardedBytes(r, 2*p.OutSize(), 3)
			must(t, p.MaxBytes(nil, x, y, 0, 2))
			check(t, "y")
			xf, yf := make([]float32, len(x)), make([]float32, len(y))
			for j, v := range x {
				xf[j] = float32(v)
			}
			must(t, p.Max(nil, xf, yf, 0, 2))
			for j, v := range yf {
				if float32(y[j]) != v {
					t.Fatalf("shape %d: y[%d] is %d, want %g", i, j, y[j], v)
				}
			}
		}
	})
}

func TestQuantizedConvErrors(t *testing.T) {
	sh := ConvShape{H: 3, W: 3, IC: 2, OC: 2, KH: 1, KW: 1}
	w := make([]int8, 4)
	ok := []float32{1, 1}
	for name, tt := range map[string]struct {
		sh   ConvShape
		w    []int8
		r    Requant
		want error
	}{
		"shape":       {ConvShape{}, w, Requant{Scale: ok}, ErrShape},
		"short w":     {sh, w[:3], Requant{Scale: ok}, ErrLength},
		"short scale": {sh, w, Requant{Scale: ok[:1]}, ErrLength},
		"short bias":  {sh, w, Requant{Scale: ok, Bias: []int32{1}}, ErrLength},
		"nan scale":   {sh, w, Requant{Scale: []float32{1, float32(math.NaN())}}, ErrParam},
		"huge scale":  {sh, w, Requant{Scale: []float32{1, 1e9}}, ErrParam},
		"huge bias":   {sh, w, Requant{Scale: ok, Bias: []int32{0, math.MaxInt32}}, ErrParam},
		"clamp":       {sh, w, Requant{Scale: ok, Lo: 9, Hi: 8}, ErrParam},
		"too many":    {ConvShape{H: 1, W: 1, IC: maxTaps + 1, OC: 1, KH: 1, KW: 1}, make([]int8, maxTaps+1), Requant{Scale: ok}, ErrShape},
	} {
		if _, err := NewQConv(tt.sh, tt.w, tt.r); !errors.Is(err, tt.want) {
			t.Errorf("%s: error is %v, want %v", name, err, tt.want)
		}
	}
	q, err := NewQConv(sh, w, Requant{Scale: ok})
	must(t, err)
	if err := q.Forward(nil, make([]uint8, 17), make([]uint8, 18), 0, 1); !errors.Is(err, ErrLength) {
		t.Errorf("short x: %v", err)
	}
}
