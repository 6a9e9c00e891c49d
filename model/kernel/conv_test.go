package kernel

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// convTable has every feature at odd sizes, and the layers of the built-in models.
var convTable = []ConvShape{
	{H: 32, W: 32, IC: 3, OC: 32, KH: 3, KW: 3},
	{H: 15, W: 15, IC: 32, OC: 64, KH: 3, KW: 3},
	{H: 6, W: 6, IC: 64, OC: 64, KH: 3, KW: 3},
	{H: 1, W: 1, IC: 1, OC: 1, KH: 1, KW: 1},
	{H: 7, W: 5, IC: 13, OC: 17, KH: 1, KW: 1},
	{H: 9, W: 7, IC: 5, OC: 33, KH: 3, KW: 2, PadTop: 1, PadLeft: 1, PadBottom: 1},
	{H: 8, W: 8, IC: 16, OC: 16, KH: 3, KW: 3, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1},
	{H: 32, W: 32, IC: 16, OC: 31, KH: 3, KW: 3, StrideH: 2, StrideW: 2, PadBottom: 1, PadRight: 1},
	{H: 11, W: 13, IC: 6, OC: 9, KH: 3, KW: 5, StrideH: 3, StrideW: 2, PadTop: 2, PadLeft: 4, PadBottom: 1, PadRight: 3},
	{H: 12, W: 10, IC: 4, OC: 8, KH: 3, KW: 3, DilationH: 2, DilationW: 3, PadTop: 2, PadLeft: 3, PadBottom: 2, PadRight: 3},
	{H: 9, W: 9, IC: 12, OC: 18, KH: 3, KW: 3, Groups: 3, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1},
	{H: 9, W: 9, IC: 6, OC: 12, KH: 3, KW: 3, Groups: 6, StrideH: 2, StrideW: 2, PadTop: 1, PadLeft: 1},
	{H: 10, W: 9, IC: 19, OC: 19, KH: 3, KW: 3, Groups: 19, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1},
	{H: 25, W: 5, IC: 64, OC: 64, KH: 3, KW: 3, Groups: 64, StrideH: 2, StrideW: 2, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1},
	{H: 6, W: 7, IC: 8, OC: 8, KH: 5, KW: 5, Groups: 8, DilationH: 2, PadTop: 5, PadLeft: 4, PadBottom: 5, PadRight: 4},
	{H: 2, W: 3, IC: 3, OC: 5, KH: 2, KW: 2, DilationH: 5, DilationW: 4, PadTop: 7, PadLeft: 7, PadBottom: 7, PadRight: 7},
	{H: 5, W: 4, IC: 7, OC: 40, KH: 1, KW: 1, PadTop: 1, PadLeft: 2, PadRight: 1},
	{H: 8, W: 8, IC: 20, OC: 70, KH: 1, KW: 1, StrideH: 2, StrideW: 2},
	{H: 40, W: 1, IC: 2, OC: 3, KH: 10, KW: 1, StrideH: 2, PadTop: 4, PadBottom: 5},
	{H: 25, W: 5, IC: 64, OC: 64, KH: 3, KW: 3, Groups: 64, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1},
	{H: 5, W: 11, IC: 24, OC: 24, KH: 3, KW: 3, Groups: 24, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1},
	{H: 1, W: 6, IC: 16, OC: 16, KH: 3, KW: 3, Groups: 16, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1},
	{H: 6, W: 1, IC: 32, OC: 32, KH: 3, KW: 3, Groups: 32, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1},
	{H: 2, W: 2, IC: 48, OC: 48, KH: 3, KW: 3, Groups: 48, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1},
	{H: 49, W: 10, IC: 1, OC: 64, KH: 10, KW: 4, StrideH: 2, StrideW: 2, PadTop: 4, PadLeft: 1, PadBottom: 5, PadRight: 1},
	{H: 3, W: 3, IC: 128, OC: 100, KH: 3, KW: 3, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1},
}

// taps calls f for every product of one image of the convolution: indices into x, w and y.
func (c *Conv) taps(f func(x, w, y int)) {
	s := c.s
	for oy := range c.oh {
		for ox := range c.ow {
			for oc := range s.OC {
				g := oc / c.ocg
				for kh := range s.KH {
					iy := oy*s.StrideH - s.PadTop + kh*s.DilationH
					for kw := range s.KW {
						ix := ox*s.StrideW - s.PadLeft + kw*s.DilationW
						if iy < 0 || iy >= s.H || ix < 0 || ix >= s.W {
							continue
						}
						for ic := range c.icg {
							f((iy*s.W+ix)*s.IC+g*c.icg+ic, ((kh*s.KW+kw)*c.icg+ic)*s.OC+oc, (oy*c.ow+ox)*s.OC+oc)
						}
					}
				}
			}
		}
	}
}

type convData struct {
	c                  *Conv
	n                  int
	x, w, b, y, dy     *guarded
	dx, dw             *guarded
	refY, refDX, refDW []float64
}

// newConvData fills buffers for n images and computes the references by the definition, in float64.
func newConvData(t testing.TB, r *rand.Rand, sh ConvShape, n, skew int) *convData {
	c, err := NewConv(sh)
	must(t, err)
	d := &convData{c: c, n: n, x: random(r, n*c.inSize, skew), w: random(r, c.wSize, skew), b: random(r, sh.OC, skew),
		y: random(r, n*c.outSize, skew), dy: random(r, n*c.outSize, skew), dx: random(r, n*c.inSize, skew), dw: random(r, c.wSize, skew)}
	d.refY, d.refDX, d.refDW = make([]float64, n*c.outSize), make([]float64, n*c.inSize), make([]float64, c.wSize)
	for i := range n {
		x, dy := d.x.s[i*c.inSize:], d.dy.s[i*c.outSize:]
		y, dx := d.refY[i*c.outSize:], d.refDX[i*c.inSize:]
		c.taps(func(xi, wi, yi int) {
			y[yi] += float64(x[xi]) * float64(d.w.s[wi])
			dx[xi] += float64(dy[yi]) * float64(d.w.s[wi])
			d.refDW[wi] += float64(dy[yi]) * float64(x[xi])
		})
	}
	return d
}

func twice(v []float64) []float64 {
	w := make([]float64, len(v))
	for i := range v {
		w[i] = 2 * v[i]
	}
	return w
}

func (d *convData) guards(t *testing.T) {
	t.Helper()
	for name, g := range map[string]*guarded{"x": d.x, "w": d.w, "b": d.b, "y": d.y, "dy": d.dy, "dx": d.dx, "dw": d.dw} {
		g.check(t, name)
	}
}

func TestConv(t *testing.T) {
	eachVariant(t, func(t *testing.T) {
		for i, sh := range convTable {
			t.Run(fmt.Sprintf("%d", i), func(t *testing.T) {
				skipSlow(t, sh)
				checkConv(t, newConvData(t, rng(uint64(i)), sh, 2, i%4))
			})
		}
	})
}

func checkConv(t *testing.T, d *convData) {
	t.Helper()
	c := d.c
	s := new(Scratch)
	const tol = 1e-4
	must(t, c.Forward(s, d.x.s, d.w.s, d.y.s, 0, d.n, Epilogue{}))
	near(t, "y", d.y.s, d.refY, tol)
	must(t, c.Forward(s, d.x.s, d.w.s, d.y.s, 0, d.n, Epilogue{Bias: d.b.s, Activation: ReLU, Accumulate: true}))
	want := make([]float64, len(d.refY))
	for i, v := range d.refY {
		want[i] = max(0, 2*v+float64(d.b.s[i%c.s.OC]))
	}
	near(t, "relu(y)", d.y.s, want, tol)
	old := slices.Clone(d.dw.s)
	must(t, c.GradWeights(s, d.x.s, d.dy.s, d.dw.s, 0, d.n))
	for i := range want[:0] {
		want[i] = 0
	}
	wantW := make([]float64, c.wSize)
	for i, v := range d.refDW {
		wantW[i] = v + float64(old[i])
	}
	near(t, "dw", d.dw.s, wantW, tol)
	must(t, c.GradInput(s, d.dy.s, d.w.s, d.dx.s, 0, d.n))
	near(t, "dx", d.dx.s, d.refDX, tol)
	wt := make([]float32, c.wSize)
	must(t, c.TransposeWeights(d.w.s, wt))
	must(t, c.GradInputTransposed(s, d.dy.s, wt, d.dx.s, 0, d.n, true))
	near(t, "dx added", d.dx.s, twice(d.refDX), 2*tol)
	d.guards(t)
}

// TestConvDivision checks that any division of the images, and of the parts of the weight gradient, gives the same bits.
func TestConvDivision(t *testing.T) {
	eachVariant(t, func(t *testing.T) {
		for i, sh := range convTable[3:] {
			const n = 5
			r := rng(uint64(i))
			c, err := NewConv(sh)
			must(t, err)
			x, w, dy := random(r, n*c.inSize, 0), random(r, c.wSize, 1), random(r, n*c.outSize, 2)
			out := func(cuts []int, parts int) (y, dx, dw []float32) {
				y, dx, dw = make([]float32, n*c.outSize), make([]float32, n*c.inSize), make([]float32, c.wSize)
				s := new(Scratch)
				for k := range len(cuts) - 1 {
					must(t, c.Forward(s, x.s, w.s, y, cuts[k], cuts[k+1], Epilogue{Activation: ReLU6}))
					must(t, c.GradInput(s, dy.s, w.s, dx, cuts[k], cuts[k+1]))
					for p := 0; p < c.GradTiles(); p += parts {
						must(t, c.GradWeightsTiles(s, x.s, dy.s, dw, cuts[k], cuts[k+1], p, min(p+parts, c.GradTiles())))
					}
				}
				return y, dx, dw
			}
			y0, dx0, dw0 := out([]int{0, n}, c.GradTiles())
			y1, dx1, dw1 := out([]int{0, 1, 1, 3, n}, 1)
			sameBits(t, "y", y1, y0)
			sameBits(t, "dx", dx1, dx0)
			sameBits(t, "dw", dw1, dw0)
		}
	})
}

func TestConvSpecialValues(t *testing.T) {
	inf := float32(math.Inf(1))
	nan := float32(math.NaN())
	eachVariant(t, func(t *testing.T) {
		for _, act := range []Activation{None, ReLU, ReLU6} {
			c, err := NewConv(ConvShape{H: 1, W: 5, IC: 2, OC: 37, KH: 1, KW: 1})
			must(t, err)
			x := []float32{1, 0, inf, 0, -inf, 0, nan, 0, float32(math.Copysign(0, -1)), 0}
			w := newGuarded(c.wSize, 0)
			for i := range 37 {
				w.s[i] = 1
			}
			y := newGuarded(c.outSize, 1)
			must(t, c.Forward(nil, x, w.s, y.s, 0, 1, Epilogue{Activation: act}))
			want := map[Activation][]float64{
				None: {1, math.Inf(1), math.Inf(-1), math.NaN(), 0},
				ReLU: {1, math.Inf(1), 0, math.NaN(), 0}, ReLU6: {1, 6, 0, math.NaN(), 0},
			}[act]
			ref := make([]float64, c.outSize)
			for i := range ref {
				ref[i] = want[i/37]
			}
			near(t, "y", y.s, ref, 0)
			y.check(t, "y")
		}
	})
}

// TestConvPaddingIsNotMultiplied: infinite weights reach only pixels that there are.
func TestConvPaddingIsNotMultiplied(t *testing.T) {
	eachVariant(t, func(t *testing.T) {
		for _, sh := range []ConvShape{{H: 9, W: 5, IC: 16, Groups: 16}, {H: 4, W: 9, IC: 32, Groups: 32}, {H: 4, W: 5, IC: 3, Groups: 3}, {H: 6, W: 4, IC: 2}} {
			sh.OC, sh.KH, sh.KW, sh.PadTop, sh.PadLeft, sh.PadBottom, sh.PadRight = sh.IC, 3, 3, 1, 1, 1, 1
			for tap := range 9 {
				c, err := NewConv(sh)
				must(t, err)
				x, w, y := make([]float32, c.inSize), make([]float32, c.wSize), make([]float32, c.outSize)
				for i := range x {
					x[i] = 1
				}
				for i := range c.wSize / 9 {
					w[tap*c.wSize/9+i] = float32(math.Inf(1))
				}
				must(t, c.Forward(nil, x, w, y, 0, 1, Epilogue{}))
				want := make([]float64, len(y))
				c.taps(func(xi, wi, yi int) { want[yi] += float64(w[wi]) })
				near(t, fmt.Sprintf("%+v, tap %d", sh, tap), y, want, 0)
			}
		}
	})
}

func TestConvErrors(t *testing.T) {
	good := ConvShape{H: 5, W: 5, IC: 2, OC: 4, KH: 3, KW: 3}
	for name, change := range map[string]func(*ConvShape){
		"no height":       func(s *ConvShape) { s.H = 0 },
		"negative pad":    func(s *ConvShape) { s.PadTop = -1 },
		"negative stride": func(s *ConvShape) { s.StrideW = -2 },
		"kernel too big":  func(s *ConvShape) { s.KH = 6 },
		"groups":          func(s *ConvShape) { s.Groups = 3 },
		"overflow in":     func(s *ConvShape) { s.H, s.W, s.IC = 1<<20, 1<<20, 1<<20 },
		"overflow k":      func(s *ConvShape) { s.KH, s.DilationH = 1<<20, 1<<20 },
		"overflow pad":    func(s *ConvShape) { s.PadLeft, s.PadRight = maxElems, maxElems },
		"max int":         func(s *ConvShape) { s.H = math.MaxInt },
	} {
		s := good
		change(&s)
		if _, err := NewConv(s); !errors.Is(err, ErrShape) {
			t.Errorf("%s: error is %v, want ErrShape", name, err)
		}
	}
	c, err := NewConv(good)
	must(t, err)
	x, w, y := make([]float32, 2*c.InSize()), make([]float32, c.WeightSize()), make([]float32, 2*c.OutSize())
	for name, tt := range map[string]struct {
		err  error
		want error
	}{
		"short x":     {c.Forward(nil, x[:99], w, y, 0, 2, Epilogue{}), ErrLength},
		"short w":     {c.Forward(nil, x, w[1:], y, 0, 2, Epilogue{}), ErrLength},
		"short y":     {c.Forward(nil, x, w, y[1:], 0, 2, Epilogue{}), ErrLength},
		"short bias":  {c.Forward(nil, x, w, y, 0, 2, Epilogue{Bias: x[:3]}), ErrLength},
		"empty bias":  {c.Forward(nil, x, w, y, 0, 2, Epilogue{Bias: []float32{}}), ErrLength},
		"activation":  {c.Forward(nil, x, w, y, 0, 2, Epilogue{Activation: 9}), ErrParam},
		"reversed":    {c.Forward(nil, x, w, y, 2, 1, Epilogue{}), ErrRange},
		"huge range":  {c.Forward(nil, x, w, y, 0, math.MaxInt, Epilogue{}), ErrLength},
		"nil dw":      {c.GradWeights(nil, x, y, nil, 0, 2), ErrLength},
		"tiles":       {c.GradWeightsTiles(nil, x, y, w, 0, 2, 0, 10), ErrRange},
		"short dx":    {c.GradInput(nil, y, w, x[1:], 0, 2), ErrLength},
		"nil dy":      {c.GradInput(nil, nil, w, x, 0, 2), ErrLength},
		"empty is ok": {c.Forward(nil, nil, w, nil, 0, 0, Epilogue{}), nil},
		"short wt":    {c.TransposeWeights(w, nil), ErrLength},
	} {
		if !errors.Is(tt.err, tt.want) {
			t.Errorf("%s: error is %v, want %v", name, tt.err, tt.want)
		}
	}
}

func TestConvAllocatesNothing(t *testing.T) {
	eachVariant(t, func(t *testing.T) {
		for _, i := range []int{5, 9, 10, 12, 15} {
			d := newConvData(t, rng(1), convTable[i], 2, 0)
			s := new(Scratch)
			step := func() {
				must(t, d.c.Forward(s, d.x.s, d.w.s, d.y.s, 0, 2, Epilogue{Bias: d.b.s, Activation: ReLU}))
				must(t, d.c.GradWeights(s, d.x.s, d.dy.s, d.dw.s, 0, 2))
				must(t, d.c.GradInput(s, d.dy.s, d.w.s, d.dx.s, 0, 2))
			}
			step()
			if n := testing.AllocsPerRun(3, step); n != 0 {
				t.Errorf("shape %d: a step allocates %g times, want none", i, n)
			}
		}
	})
}

// FuzzConv compares every variant with the definition on arbitrary small shapes.
func FuzzConv(f *testing.F) {
	f.Add(uint64(1), []byte{5, 5, 2, 3, 3, 3, 1, 1, 1, 1, 0, 0, 0, 0, 1})
	f.Add(uint64(2), []byte{9, 8, 4, 8, 3, 2, 2, 1, 2, 1, 1, 2, 3, 0, 4})
	f.Fuzz(func(t *testing.T, seed uint64, b []byte) {
		if len(b) < 15 {
			return
		}
		v := func(i, n int) int { return int(b[i])%n + 1 }
		sh := ConvShape{H: v(0, 17), W: v(1, 17), KH: v(4, 5), KW: v(5, 5), StrideH: v(6, 3), StrideW: v(7, 3), DilationH: v(8, 3),
			DilationW: v(9, 3), PadTop: v(10, 5) - 1, PadLeft: v(11, 5) - 1, PadBottom: v(12, 5) - 1, PadRight: v(13, 5) - 1, Groups: v(14, 4)}
		sh.IC, sh.OC = v(2, 20)*sh.Groups, v(3, 24)*sh.Groups
		if sh.Validate() != nil {
			return
		}
		for _, va := range Available() {
			restore, err := Force(va)
			must(t, err)
			checkConv(t, newConvData(t, rng(seed), sh, 2, int(seed%4)))
			restore()
		}
	})
}

func TestConvRandomShapes(t *testing.T) {
	r := rng(77)
	for range 30 {
		g := 1 + r.IntN(3)
		sh := ConvShape{H: 1 + r.IntN(12), W: 1 + r.IntN(20), IC: g * (1 + r.IntN(20)), OC: g * (1 + r.IntN(40)), KH: 1 + r.IntN(4), KW: 1 + r.IntN(4),
			StrideH: 1 + r.IntN(3), StrideW: 1 + r.IntN(3), DilationH: 1 + r.IntN(2), DilationW: 1 + r.IntN(2), PadTop: r.IntN(4), PadLeft: r.IntN(4),
			PadBottom: r.IntN(4), PadRight: r.IntN(4), Groups: g}
		if sh.Validate() != nil {
			continue
		}
		eachVariant(t, func(t *testing.T) { checkConv(t, newConvData(t, r, sh, 1, r.IntN(4))) })
	}
}
