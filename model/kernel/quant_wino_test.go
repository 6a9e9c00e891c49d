package kernel

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// bytesConv is a random quantized convolution with weights up to a size.
func bytesConv(t testing.TB, r *rand.Rand, sh ConvShape, most int) *QConv {
	t.Helper()
	c, err := NewConv(sh)
	must(t, err)
	w := make([]int8, c.wSize)
	for i := range w {
		w[i] = int8(r.IntN(2*most+1) - most)
	}
	q := Requant{InZero: uint8(r.Uint32()), OutZero: uint8(r.IntN(200)), Lo: uint8(r.IntN(20)), Hi: uint8(200 + r.IntN(56))}
	for range sh.OC {
		q.Scale = append(q.Scale, float32(2/math.Sqrt(float64(c.wSize/sh.OC))/float64(most)*r.Float64()))
		q.Bias = append(q.Bias, int32(r.IntN(20001)-10000))
	}
	qc, err := NewQConv(sh, w, q)
	must(t, err)
	return qc
}

// checkQuantWino compares Winograd's way with the direct one: the bytes are the same.
func checkQuantWino(t *testing.T, r *rand.Rand, q *QConv, n int) {
	t.Helper()
	wq, err := NewQWinograd(q)
	must(t, err)
	c := q.c
	x, checkX := guardedBytes(r, n*c.inSize, r.IntN(4))
	if r.IntN(3) == 0 { // the largest sums there are
		for i := range x {
			x[i] = uint8(255 * r.IntN(2))
		}
		checkX = func(*testing.T, string) {}
	}
	y, checkY := guardedBytes(r, n*c.outSize, r.IntN(4))
	want := make([]uint8, n*c.outSize)
	s := new(Scratch)
	must(t, q.Forward(s, x, want, 0, n))
	must(t, wq.Forward(s, x, y, 0, n))
	checkX(t, "x")
	checkY(t, "y")
	for i := range want {
		if y[i] != want[i] {
			t.Fatalf("%+v: output %d of %d is %d, want %d", c.s, i, len(want), y[i], want[i])
		}
	}
	clear(y)
	for i := range n { // image by image
		must(t, wq.Forward(s, x, y, i, i+1))
	}
	if !slices.Equal(y, want) {
		t.Error("image by image the bytes differ")
	}
	if a := testing.AllocsPerRun(2, func() { must(t, wq.Forward(s, x, y, 0, n)) }); a != 0 {
		t.Errorf("Forward allocates %g times, want none", a)
	}
}

func TestQuantizedWinograd(t *testing.T) {
	shapes := []ConvShape{
		{H: 6, W: 6, IC: 16, OC: 8}, {H: 3, W: 3, IC: 32, OC: 16}, {H: 15, W: 15, IC: 32, OC: 64}, {H: 7, W: 9, IC: 16, OC: 24},
		{H: 6, W: 6, IC: 64, OC: 64}, {H: 16, W: 5, IC: 48, OC: 40, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1},
		{H: 1, W: 2, IC: 16, OC: 56, PadTop: 2, PadLeft: 2, PadBottom: 2, PadRight: 1}, {H: 4, W: 4, IC: 128, OC: 8, PadLeft: 1, PadRight: 2},
	}
	eachVariant(t, func(t *testing.T) {
		for i, sh := range shapes {
			sh.KH, sh.KW = 3, 3
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				r := rng(uint64(i))
				for _, most := range []int{1, 20, 100} {
					checkQuantWino(t, r, bytesConv(t, r, sh, most), 1+i%3)
				}
			})
		}
	})
}

// TestQuantizedWinogradExtremes has the largest weights and inputs, at the very bound.
func TestQuantizedWinogradExtremes(t *testing.T) {
	sh := ConvShape{H: 8, W: 8, IC: 112, OC: 8, KH: 3, KW: 3}
	scale := slices.Repeat([]float32{3e-6}, 8)
	w := make([]int8, 9*112*8)
	for i := range w {
		w[i] = []int8{127, -127, 127, -127, 127, -128, 1, 0}[i%8]
		if i%8 > 1 && i/8%2 == 1 {
			w[i] = -w[i] + 1
		}
	}
	eachVariant(t, func(t *testing.T) {
		for _, zero := range []uint8{0, 200} {
			q, err := NewQConv(sh, w, Requant{Scale: scale, InZero: zero, OutZero: 128})
			must(t, err)
			for seed := range uint64(6) {
				checkQuantWino(t, rng(seed), q, 1)
			}
		}
	})
}

func TestQuantizedWinogradRefuses(t *testing.T) {
	r := rng(1)
	for _, c := range []struct {
		sh   ConvShape
		most int
		want error
	}{
		{ConvShape{H: 6, W: 6, IC: 16, OC: 8, KH: 5, KW: 5}, 9, ErrShape},
		{ConvShape{H: 6, W: 6, IC: 16, OC: 8, KH: 3, KW: 3, StrideH: 2, StrideW: 2}, 9, ErrShape},
		{ConvShape{H: 6, W: 6, IC: 24, OC: 8, KH: 3, KW: 3}, 9, ErrShape},
		{ConvShape{H: 6, W: 6, IC: 16, OC: 12, KH: 3, KW: 3}, 9, ErrShape},
		{ConvShape{H: 6, W: 6, IC: 16, OC: 16, KH: 3, KW: 3, Groups: 16}, 9, ErrShape},
		{ConvShape{H: 4, W: 4, IC: 304, OC: 8, KH: 3, KW: 3}, 127, ErrParam},
	} {
		if _, err := NewQWinograd(bytesConv(t, r, c.sh, c.most)); !errors.Is(err, c.want) {
			t.Errorf("%+v: error %v: want %v", c.sh, err, c.want)
		}
	}
	q := bytesConv(t, r, ConvShape{H: 6, W: 6, IC: 16, OC: 8, KH: 3, KW: 3}, 9)
	w, err := NewQWinograd(q)
	must(t, err)
	if err := w.Forward(nil, make([]uint8, 5), make([]uint8, q.c.outSize), 0, 1); !errors.Is(err, ErrLength) {
		t.Errorf("a short input: error %v: want %v", err, ErrLength)
	}
	if err := w.Forward(nil, make([]uint8, q.c.inSize), make([]uint8, 1), 0, 1); !errors.Is(err, ErrLength) {
		t.Errorf("a short output: error %v: want %v", err, ErrLength)
	}
}

func FuzzQuantizedWinograd(f *testing.F) {
	f.Add(uint64(1), []byte{5, 5, 1, 3, 1, 1, 0, 0, 20})
	f.Add(uint64(2), []byte{9, 3, 2, 8, 0, 2, 2, 1, 100})
	f.Fuzz(func(t *testing.T, seed uint64, b []byte) {
		if len(b) < 9 {
			return
		}
		v := func(i, n int) int { return int(b[i]) % n }
		sh := ConvShape{H: 1 + v(0, 14), W: 1 + v(1, 14), IC: 16 * (1 + v(2, 4)), OC: 8 * (1 + v(3, 9)), KH: 3, KW: 3,
			PadTop: v(4, 3), PadLeft: v(5, 3), PadBottom: v(6, 3), PadRight: v(7, 3)}
		if _, err := NewConv(sh); err != nil {
			return
		}
		r := rng(seed)
		q := bytesConv(t, r, sh, 1+v(8, 120))
		for _, va := range Available() {
			restore, err := Force(va)
			must(t, err)
			checkQuantWino(t, r, q, 1+int(seed%3))
			restore()
		}
	})
}
