package kernel

import (
	"errors"
	"fmt"
	"math"
	"testing"
)

var winoShapes = []ConvShape{
	{H: 15, W: 15, IC: 32, OC: 64, KH: 3, KW: 3},
	{H: 6, W: 6, IC: 64, OC: 64, KH: 3, KW: 3},
	{H: 8, W: 8, IC: 16, OC: 16, KH: 3, KW: 3, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1},
	{H: 3, W: 3, IC: 1, OC: 1, KH: 3, KW: 3},
	{H: 1, W: 2, IC: 3, OC: 5, KH: 3, KW: 3, PadTop: 2, PadLeft: 2, PadBottom: 2, PadRight: 1},
	{H: 11, W: 7, IC: 19, OC: 35, KH: 3, KW: 3, PadTop: 2, PadRight: 2},
	{H: 9, W: 18, IC: 8, OC: 12, KH: 3, KW: 3, PadLeft: 1, PadRight: 1},
}

func TestWinograd(t *testing.T) {
	eachVariant(t, func(t *testing.T) {
		for i, sh := range winoShapes {
			t.Run(fmt.Sprintf("%d", i), func(t *testing.T) {
				skipSlow(t, sh)
				checkWinograd(t, newConvData(t, rng(uint64(i)), sh, 1+i%3, i%4))
			})
		}
	})
}

// checkWinograd compares with the definition. The transforms cost accuracy: the tolerance is wider than for Conv.
func checkWinograd(t *testing.T, d *convData) {
	t.Helper()
	w, err := NewWinograd(d.c.Shape())
	must(t, err)
	const tol = 1e-3
	c, s := d.c, new(Scratch)
	u := newGuarded(w.TransformedSize(), 1)
	must(t, w.TransformWeights(s, d.w.s, u.s))
	u.check(t, "u")
	must(t, w.Forward(s, d.x.s, u.s, d.y.s, 0, d.n, Epilogue{}))
	near(t, "y", d.y.s, d.refY, tol)
	must(t, w.Forward(s, d.x.s, u.s, d.y.s, 0, d.n, Epilogue{Bias: d.b.s, Activation: ReLU, Accumulate: true}))
	want := make([]float64, len(d.refY))
	for i, v := range d.refY {
		want[i] = max(0, 2*v+float64(d.b.s[i%c.s.OC]))
	}
	near(t, "relu(y)", d.y.s, want, 2*tol)
	must(t, w.TransformWeightsInput(s, d.w.s, u.s))
	must(t, w.GradInput(s, d.dy.s, u.s, d.dx.s, 0, d.n, false))
	near(t, "dx", d.dx.s, d.refDX, tol)
	must(t, w.GradInput(s, d.dy.s, u.s, d.dx.s, 0, d.n, true))
	near(t, "dx added", d.dx.s, twice(d.refDX), 2*tol)
	old := append([]float32(nil), d.dw.s...)
	must(t, w.GradWeights(s, d.x.s, d.dy.s, d.dw.s, 0, d.n))
	wantW := make([]float64, c.wSize)
	for i, v := range d.refDW {
		wantW[i] = v + float64(old[i])
	}
	near(t, "dw", d.dw.s, wantW, tol)
	copy(d.dw.s, old)
	for i := range d.n { // the same in parts, over what u held
		must(t, w.GradWeightsTransformed(s, d.x.s, d.dy.s, u.s, i, i+1, i > 0))
	}
	must(t, w.FinishGradWeights(s, u.s, d.dw.s))
	near(t, "dw in parts", d.dw.s, wantW, tol)
	u.check(t, "u")
	d.guards(t)
	if a := testing.AllocsPerRun(2, func() {
		must(t, w.Forward(s, d.x.s, u.s, d.y.s, 0, d.n, Epilogue{}))
		must(t, w.GradWeights(s, d.x.s, d.dy.s, d.dw.s, 0, d.n))
	}); a != 0 {
		t.Errorf("Forward and GradWeights allocate %g times, want none", a)
	}
}

// TestWinogradDivision checks that images are independent.
func TestWinogradDivision(t *testing.T) {
	eachVariant(t, func(t *testing.T) {
		d := newConvData(t, rng(1), winoShapes[2], 11, 0)
		w, err := NewWinograd(winoShapes[2])
		must(t, err)
		u := make([]float32, w.TransformedSize())
		must(t, w.TransformWeights(nil, d.w.s, u))
		a, b := make([]float32, len(d.y.s)), make([]float32, len(d.y.s))
		must(t, w.Forward(nil, d.x.s, u, a, 0, 11, Epilogue{}))
		for _, r := range [][2]int{{9, 11}, {0, 1}, {1, 9}} {
			must(t, w.Forward(nil, d.x.s, u, b, r[0], r[1], Epilogue{}))
		}
		sameBits(t, "y", b, a)
	})
}

// TestWinogradAccuracy measures the error against float64, relative to the root mean square of the result: what the
// documentation says of a lost digit must hold.
func TestWinogradAccuracy(t *testing.T) {
	eachVariant(t, func(t *testing.T) {
		d := newConvData(t, rng(2), winoShapes[0], 1, 0)
		w, err := NewWinograd(winoShapes[0])
		must(t, err)
		u := make([]float32, w.TransformedSize())
		must(t, w.TransformWeights(nil, d.w.s, u))
		relative := func(f func() error) float64 {
			must(t, f())
			var e, n float64
			for i, v := range d.refY {
				e += (float64(d.y.s[i]) - v) * (float64(d.y.s[i]) - v)
				n += v * v
			}
			return math.Sqrt(e / n)
		}
		direct := relative(func() error { return d.c.Forward(nil, d.x.s, d.w.s, d.y.s, 0, 1, Epilogue{}) })
		wino := relative(func() error { return w.Forward(nil, d.x.s, u, d.y.s, 0, 1, Epilogue{}) })
		t.Logf("relative error: direct %.2g, winograd %.2g", direct, wino)
		if wino > 5e-6 {
			t.Errorf("relative error of winograd is %g, want at most 5e-6", wino)
		}
	})
}

func TestWinogradErrors(t *testing.T) {
	good := ConvShape{H: 8, W: 8, IC: 4, OC: 4, KH: 3, KW: 3}
	for name, change := range map[string]func(*ConvShape){
		"kernel":   func(s *ConvShape) { s.KH = 5 },
		"stride":   func(s *ConvShape) { s.StrideW = 2 },
		"dilation": func(s *ConvShape) { s.DilationH = 2 },
		"groups":   func(s *ConvShape) { s.Groups = 2 },
		"padding":  func(s *ConvShape) { s.PadLeft = 3 },
		"shape":    func(s *ConvShape) { s.H = 0 },
	} {
		s := good
		change(&s)
		if _, err := NewWinograd(s); !errors.Is(err, ErrShape) {
			t.Errorf("%s: error is %v, want ErrShape", name, err)
		}
	}
	w, err := NewWinograd(good)
	must(t, err)
	x, u, y := make([]float32, w.Conv().InSize()), make([]float32, w.TransformedSize()), make([]float32, w.Conv().OutSize())
	for name, err := range map[string]error{
		"u":       w.Forward(nil, x, u[1:], y, 0, 1, Epilogue{}),
		"x":       w.Forward(nil, x[1:], u, y, 0, 1, Epilogue{}),
		"weights": w.TransformWeights(nil, u[:5], u),
		"inputs":  w.TransformWeightsInput(nil, u, u[1:]),
		"dx":      w.GradInput(nil, y, u, x[1:], 0, 1, false),
		"dw":      w.GradWeights(nil, x, y, u[:3], 0, 1),
	} {
		if !errors.Is(err, ErrLength) {
			t.Errorf("%s: error is %v, want ErrLength", name, err)
		}
	}
}

func TestWinogradPays(t *testing.T) {
	for _, tt := range []struct {
		sh      ConvShape
		f, w, i bool
	}{
		{benchConvs[0].s, false, false, false}, {benchConvs[1].s, true, true, true}, {benchConvs[2].s, true, false, false}, {benchConvs[4].s, true, true, true},
	} {
		w, err := NewWinograd(tt.sh)
		must(t, err)
		if f, g, i := w.Pays(8); f != tt.f || g != tt.w || i != tt.i {
			t.Errorf("%+v: pays %v, %v, %v, want %v, %v, %v", tt.sh, f, g, i, tt.f, tt.w, tt.i)
		}
	}
}
