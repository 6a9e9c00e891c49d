package kernel

import (
	"fmt"
	"math"
	"unsafe"
)

// Requant says how the integer sums of a quantized operation become bytes:
//
//	y = clamp(round((Σ (x - InZero)·w + Bias) · Scale) + OutZero, Lo, Hi)
//
// with rounding to nearest, ties to even, in float32. For real numbers x·sx, w·sw, y·sy the scale is sx·sw/sy and the bias
// is in units of sx·sw. A ReLU is Lo = OutZero; Hi zero means 255.
type Requant struct {
	InZero  uint8
	OutZero uint8
	Lo, Hi  uint8
	Scale   []float32 // one per output channel
	Bias    []int32   // one per output channel, or nil
}

// QConv is a convolution of unsigned bytes with signed 8-bit weights, for inference; with H = W = KH = KW = 1 it is a
// fully connected layer. It is immutable. All variants give the same bytes.
type QConv struct {
	c       *Conv
	r       Requant
	w       []int8 // as given
	cols    int    // columns of a group, rounded up to what kernels load
	bias    []int32
	shifted []int32 // bias for kernels that take 128 off the input
	scale   []float32
	quads   []int8    // weights for kernels on quadruples of bytes
	pairs   []int16   // and on pairs of 16-bit values
	weights []float32 // of depthwise convolutions, which run in float32, exactly
	fbias   []float32
	hp, wp  int // padded input
}

// maxTaps bounds the number of products in a sum, so that it fits in 32 bits.
const maxTaps = 1 << 15

// NewQConv compiles weights w ([KH][KW][IC/Groups][OC]).
func NewQConv(sh ConvShape, w []int8, r Requant) (*QConv, error) {
	c, err := NewConv(sh)
	if err != nil {
		return nil, err
	}
	if r.Hi == 0 {
		r.Hi = 255
	}
	q := &QConv{c: c, r: r, w: w, cols: (c.ocg + 15) &^ 15}
	if err := q.check(); err != nil {
		return nil, err
	}
	s := &c.s
	q.hp, q.wp = s.H+s.PadTop+s.PadBottom, s.W+s.PadLeft+s.PadRight
	if _, ok := mul(q.hp, q.wp, s.IC); !ok {
		return nil, fmt.Errorf("quantized conv %+v: the padded input has more than %d elements: %w", *s, maxElems, ErrShape)
	}
	q.sums()
	if c.depthwise {
		q.weights = make([]float32, len(w))
		for i, v := range w {
			q.weights[i] = float32(v)
		}
		return q, nil
	}
	for _, im := range builtIn {
		if im.quant.pairs {
			q.pairs = pack[int16](q, 2)
		} else {
			q.quads = pack[int8](q, 4)
		}
		if im.quant.signed {
			q.shifted = q.shift()
		}
	}
	return q, nil
}

func (q *QConv) check() error {
	c := q.c
	if err := firstErr(checkLen("w", q.w, c.wSize), checkLen("scale", q.r.Scale, c.s.OC)); err != nil {
		return err
	}
	if q.r.Bias != nil {
		if err := checkLen("bias", q.r.Bias, c.s.OC); err != nil {
			return err
		}
	}
	taps := c.s.KH * c.s.KW * c.icg
	if taps > maxTaps {
		return fmt.Errorf("quantized conv has %d products per output, want at most %d: %w", taps, maxTaps, ErrShape)
	}
	if q.r.Lo > q.r.Hi {
		return fmt.Errorf("quantized conv clamps to [%d, %d]: %w", q.r.Lo, q.r.Hi, ErrParam)
	}
	for i := range c.s.OC {
		bias := 0.0
		if q.r.Bias != nil {
			bias = math.Abs(float64(q.r.Bias[i]))
		}
		sum := float64(taps)*255*128 + bias
		if v := float64(q.r.Scale[i]); !(v >= 0 && v*sum < 1<<30) || sum+float64(taps)*255*128 >= 1<<31 || c.depthwise && sum >= 1<<24 {
			return fmt.Errorf("quantized conv: scale %g and bias %g of channel %d take sums out of range: %w", v, bias, i, ErrParam)
		}
	}
	return nil
}

// sums folds the zero point of the input into the bias: Σ (x-z)·w = Σ x·w - z·Σ w.
func (q *QConv) sums() {
	c := q.c
	groups := c.s.Groups
	q.bias, q.scale = make([]int32, groups*q.cols), make([]float32, groups*q.cols)
	for oc := range c.s.OC {
		i := oc/c.ocg*q.cols + oc%c.ocg
		q.scale[i] = q.r.Scale[oc]
		if q.r.Bias != nil {
			q.bias[i] = q.r.Bias[oc]
		}
	}
	if c.depthwise {
		q.fbias = make([]float32, c.s.OC)
		for i := range q.fbias {
			q.fbias[i] = float32(q.bias[i*q.cols])
		}
		return
	}
	for i, w := range q.w[:c.wSize] {
		oc := i % c.s.OC
		q.bias[oc/c.ocg*q.cols+oc%c.ocg] -= int32(q.r.InZero) * int32(w)
	}
}

// shift returns the bias plus 128·Σ w. Sums of 32 bits may wrap on the way: they end where they should.
func (q *QConv) shift() []int32 {
	c, out := q.c, append([]int32(nil), q.bias...)
	for i, w := range q.w[:c.wSize] {
		oc := i % c.s.OC
		out[oc/c.ocg*q.cols+oc%c.ocg] += 128 * int32(w)
	}
	return out
}

// run is how many neighbouring elements of the input one innermost loop covers, and how many such runs there are.
func (q *QConv) run() (n, runs int) {
	s := &q.c.s
	if s.Groups == 1 && s.DilationW == 1 {
		return s.KW * s.IC, s.KH
	}
	return q.c.icg, s.KH * s.KW
}

// pack arranges the weights for kernels that take unit neighbours of the input per step: [group][run][step][column][unit],
// with zeros where a run or the columns do not fill up.
func pack[T int8 | int16](q *QConv, unit int) []T {
	n, runs := q.run()
	steps := (n + unit - 1) / unit
	out := make([]T, q.c.s.Groups*runs*steps*q.cols*unit)
	for g := range q.c.s.Groups {
		for r := range runs {
			for k := range n {
				for oc := range q.c.ocg {
					i := (((g*runs+r)*steps+k/unit)*q.cols+oc)*unit + k%unit
					out[i] = T(q.w[(r*n+k)*q.c.s.OC+g*q.c.ocg+oc])
				}
			}
		}
	}
	return out
}

// Conv returns the convolution's shape.
func (q *QConv) Conv() *Conv { return q.c }

// Forward computes images [n0, n1) of y from x. Images are independent.
func (q *QConv) Forward(s *Scratch, x, y []uint8, n0, n1 int) error {
	im, err := current()
	if err := firstErr(err, checkImages("x", x, q.c.inSize, n0, n1), checkImages("y", y, q.c.outSize, n0, n1)); err != nil || n0 == n1 {
		return err
	}
	s = s.orNew()
	if q.c.flat && !q.c.depthwise {
		q.forward(im, s, x[n0*q.c.inSize:], y[n0*q.c.outSize:], n1-n0)
		return nil
	}
	for i := n0; i < n1; i++ {
		if q.c.depthwise {
			q.forwardDepth(im, s, x[i*q.c.inSize:], y[i*q.c.outSize:])
		} else {
			q.forward(im, s, x[i*q.c.inSize:], y[i*q.c.outSize:], 1)
		}
	}
	return nil
}

// forward computes one image, or n images where every pixel is a row of one product.
func (q *QConv) forward(im *impl, s *Scratch, x, y []uint8, n int) {
	sh := &q.c.s
	unit, size := 4, 1
	if im.quant.pairs {
		unit, size = 2, 2
	}
	run, _ := q.run()
	a := q.input(im, s, x, n, run%unit == 0)
	steps := (run + unit - 1) / unit
	t := &s.quant
	t.scale = nil
	t.tileArgs = tileArgs{k: steps, k2: sh.KH, k3: 1, ak: 4, bk: 4 * q.cols}
	line := size * q.wp * sh.IC
	if sh.Groups == 1 && sh.DilationW == 1 {
		t.aj = sh.DilationH*line - 4*steps
	} else {
		t.k2, t.k3 = sh.KW, sh.KH
		t.aj = size*sh.DilationW*sh.IC - 4*steps
		t.aj3 = sh.DilationH*line - size*sh.KW*sh.DilationW*sh.IC
	}
	t.zero, t.lo, t.hi = int64(q.r.OutZero), int64(q.r.Lo), int64(q.r.Hi)
	g := grid{m: q.c.oh, n: q.c.ow, am: sh.StrideH * line, an: size * sh.StrideW * sh.IC, cm: q.c.ow * sh.OC, cn: sh.OC}
	if q.c.flat {
		g.m, g.n = 1, n*q.c.oh*q.c.ow
	}
	for gr := range sh.Groups {
		for j := 0; j < q.c.ocg; {
			w := im.quant.width(min(im.quant.mr, g.m*g.n), q.c.ocg-j)
			col := gr*q.cols + j
			bias := q.bias
			if im.quant.signed {
				bias = q.shifted
			}
			t.bias, t.scale = unsafe.Pointer(&bias[col]), unsafe.Pointer(&q.scale[col])
			first := gr*t.k*t.k2*t.k3*q.cols + j
			if im.quant.pairs {
				t.b = unsafe.Pointer(&q.pairs[2*first])
			} else {
				t.b = unsafe.Pointer(&q.quads[4*first])
			}
			g.a, g.c = unsafe.Add(a, size*gr*q.c.icg), unsafe.Pointer(&y[gr*q.c.ocg+j])
			g.run(&im.quant.tiler, &t.tileArgs, w)
			j += w
		}
	}
}
