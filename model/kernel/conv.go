package kernel

import (
	"fmt"
	"sync"
)

// Activation is applied to an operation's result before it is stored.
type Activation uint8

// The activations that kernels fuse.
const (
	None  Activation = iota
	ReLU             // max(0, v)
	ReLU6            // min(6, max(0, v))
)

func (a Activation) flags() (uint64, error) {
	switch a {
	case None:
		return 0, nil
	case ReLU:
		return flagReLU, nil
	case ReLU6:
		return flagReLU6, nil
	}
	return 0, fmt.Errorf("activation %d is not known: %w", a, ErrParam)
}

// Epilogue says what happens to a sum before it is stored: y = Activation(sum + Bias + old y). The zero value stores
// the sum.
type Epilogue struct {
	Bias       []float32 // one per output channel, or nil
	Activation Activation
	Accumulate bool // add the old value of y, for residual connections
}

func (e Epilogue) check(channels int) (flags uint64, err error) {
	if flags, err = e.Activation.flags(); err != nil {
		return 0, err
	}
	if e.Accumulate {
		flags |= flagAccumulate
	}
	if e.Bias != nil {
		err = checkLen("bias", e.Bias, channels)
	}
	return flags, err
}

// Conv is a convolution of a fixed shape. It is immutable and may be used by any number of goroutines, each with its
// own Scratch. Inputs are [N][H][W][IC], outputs [N][OutH][OutW][OC], weights [KH][KW][IC/Groups][OC].
type Conv struct {
	s          ConvShape
	oh, ow     int
	icg, ocg   int // channels per group
	inSize     int
	outSize    int
	wSize      int
	rows, cols []span
	grad       func() *backSpans // made when first asked for: inference has no need
	depthwise  bool
	plane      bool // depthwise, 3×3, stride 1, a border of one pixel: what the primitive depthPlane computes
	flat       bool // 1×1, stride 1, no padding: every pixel is a row of one matrix product

	// back is the convolution of the output's gradient with reversed weights that gives the input's gradient, for
	// depthwise ones with stride 1; otherwise nil.
	back *Conv
}

// NewConv checks the shape and its sizes; the error wraps ErrShape.
func NewConv(s ConvShape) (*Conv, error) {
	c, err := newConv(s)
	if err != nil {
		return nil, err
	}
	s = c.s
	eh, ew := (s.KH-1)*s.DilationH, (s.KW-1)*s.DilationW
	if c.depthwise && s.StrideH == 1 && s.StrideW == 1 && max(s.PadTop, s.PadBottom) <= eh && max(s.PadLeft, s.PadRight) <= ew {
		c.back, err = newConv(ConvShape{H: c.oh, W: c.ow, IC: s.IC, OC: s.OC, KH: s.KH, KW: s.KW, DilationH: s.DilationH, DilationW: s.DilationW,
			PadTop: eh - s.PadTop, PadBottom: eh - s.PadBottom, PadLeft: ew - s.PadLeft, PadRight: ew - s.PadRight, Groups: s.Groups})
	}
	return c, err
}

func newConv(s ConvShape) (*Conv, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	s = s.withDefaults()
	c := &Conv{s: s, icg: s.IC / s.Groups, ocg: s.OC / s.Groups}
	c.oh, _ = outSize("height", s.H, s.KH, s.StrideH, s.DilationH, s.PadTop, s.PadBottom)
	c.ow, _ = outSize("width", s.W, s.KW, s.StrideW, s.DilationW, s.PadLeft, s.PadRight)
	var ok [3]bool
	c.inSize, ok[0] = mul(s.H, s.W, s.IC)
	c.outSize, ok[1] = mul(c.oh, c.ow, s.OC)
	c.wSize, ok[2] = mul(s.KH, s.KW, c.icg, s.OC)
	if ok != [3]bool{true, true, true} {
		return nil, fmt.Errorf("conv %+v: input, output or weights have more than %d elements: %w", s, maxElems, ErrShape)
	}
	c.rows = spans(c.oh, s.H, s.KH, s.StrideH, s.DilationH, s.PadTop)
	c.cols = spans(c.ow, s.W, s.KW, s.StrideW, s.DilationW, s.PadLeft)
	c.grad = sync.OnceValue(func() *backSpans { return newBackSpans(c) })
	c.depthwise = c.icg == 1 && c.ocg == 1
	c.plane = c.depthwise && s.KH == 3 && s.KW == 3 && s.StrideH == 1 && s.StrideW == 1 && s.DilationH == 1 && s.DilationW == 1 &&
		s.PadTop == 1 && s.PadLeft == 1 && s.PadBottom == 1 && s.PadRight == 1 && s.H*s.W > 1
	c.flat = s.KH == 1 && s.KW == 1 && s.StrideH == 1 && s.StrideW == 1 && c.oh == s.H && c.ow == s.W && s.PadTop == 0 && s.PadLeft == 0
	return c, nil
}

// Shape returns the shape with its defaults filled in.
func (c *Conv) Shape() ConvShape { return c.s }

// OutH and OutW are the height and width of the output.
func (c *Conv) OutH() int { return c.oh }

// OutW is the width of the output.
func (c *Conv) OutW() int { return c.ow }

// InSize is the number of elements of one input image.
func (c *Conv) InSize() int { return c.inSize }

// OutSize is the number of elements of one output image.
func (c *Conv) OutSize() int { return c.outSize }

// WeightSize is the number of weights.
func (c *Conv) WeightSize() int { return c.wSize }

// MACs is the number of multiplications of the forward operation for one image, padding included.
func (c *Conv) MACs() int64 { return int64(c.oh) * int64(c.ow) * int64(c.wSize) }

// Forward computes images [n0, n1) of y from x and w: y = act(conv(x, w) + bias (+ y)). Images are independent, so any
// division of the range between goroutines gives the same bits.
func (c *Conv) Forward(s *Scratch, x, w, y []float32, n0, n1 int, e Epilogue) error {
	im, err := current()
	flags, errE := e.check(c.s.OC)
	if err := firstErr(err, errE, checkLen("w", w, c.wSize), checkImages("x", x, c.inSize, n0, n1),
		checkImages("y", y, c.outSize, n0, n1)); err != nil {
		return err
	}
	if n0 == n1 {
		return nil
	}
	s = s.orNew()
	xp, yp, bp := addr(x, n0*c.inSize), addr(y, n0*c.outSize), addr(e.Bias, 0)
	switch {
	case c.depthwise:
		c.forwardDepth(im, s, xp, addr(w, 0), yp, n1-n0, bp, flags)
	case c.flat && c.s.Groups == 1:
		rows := (n1 - n0) * c.oh * c.ow
		m := matrix{m: rows, n: c.s.OC, k: c.s.IC, a: xp, as: c.s.IC, ak: 1, b: addr(w, 0), ldb: c.s.OC, c: yp, ldc: c.s.OC}
		m.run(im, s, bp, flags)
	default:
		for g := range c.s.Groups {
			c.forwardGroup(im, s, at(xp, g*c.icg), at(addr(w, 0), g*c.ocg), at(yp, g*c.ocg), n1-n0, atOrNil(bp, g*c.ocg), flags)
		}
	}
	return nil
}

func atOrNil(p ptr, off int) ptr {
	if p == nil {
		return nil
	}
	return at(p, off)
}

// forwardGroup runs one group: x, w and y point at its first channels.
func (c *Conv) forwardGroup(im *impl, s *Scratch, x, w, y ptr, images int, bias ptr, flags uint64) {
	s.tile = tileArgs{ak: 4, bk: 4 * c.s.OC, flags: flags}
	few := false
	for j := 0; j < c.ocg; {
		n := im.width(im.mr, c.ocg-j)
		for i := range images {
			for _, r := range c.rows {
				for _, q := range c.cols {
					if fewPixels(r, q) {
						few = true
						continue
					}
					c.forwardSpan(im, s, x, w, y, bias, i, r, q, j, n)
				}
			}
		}
		j += n
	}
	if few {
		c.forwardFew(im, s, x, w, y, images, bias)
	}
}

// fewPixels reports whether the positions of two spans fill so little of a tile that it should be wider instead.
func fewPixels(r, q span) bool { return (r.hi-r.lo)*(q.hi-q.lo) <= 4 }

// forwardFew is the rest of forwardGroup: single pixels and the like at edges.
func (c *Conv) forwardFew(im *impl, s *Scratch, x, w, y ptr, images int, bias ptr) {
	for i := range images {
		for _, r := range c.rows {
			for _, q := range c.cols {
				if !fewPixels(r, q) {
					continue
				}
				for j := 0; j < c.ocg; {
					n := im.width((r.hi-r.lo)*(q.hi-q.lo), c.ocg-j)
					c.forwardSpan(im, s, x, w, y, bias, i, r, q, j, n)
					j += n
				}
			}
		}
	}
}

// forwardSpan computes columns [j, j+n) of the outputs of image i at a row span and a column span.
func (c *Conv) forwardSpan(im *impl, s *Scratch, x, w, y, bias ptr, i int, r, q span, j, n int) {
	sh := &c.s
	t := &s.tile
	t.bias = atOrNil(bias, j)
	c.setTaps(t, r, q)
	t.b = at(w, (r.k0*sh.KW+q.k0)*c.icg*sh.OC+j)
	yi := at(y, i*c.outSize+(r.lo*c.ow+q.lo)*sh.OC+j)
	if t.k == 0 {
		c.fillEmpty(t, s, im, yi, r, q, n)
		return
	}
	xi := at(x, i*c.inSize+c.tapOffset(r.lo, q.lo, r.k0, q.k0))
	g := grid{m: r.hi - r.lo, n: q.hi - q.lo, a: xi, am: 4 * sh.StrideH * sh.W * sh.IC, an: 4 * sh.StrideW * sh.IC,
		c: yi, cm: 4 * c.ow * sh.OC, cn: 4 * sh.OC}
	g.run(&im.tiler, t, n)
}

// tapOffset is where tap (kh, kw) of output pixel (oy, ox) reads in an image.
func (c *Conv) tapOffset(oy, ox, kh, kw int) int {
	s := &c.s
	iy := oy*s.StrideH - s.PadTop + kh*s.DilationH
	ix := ox*s.StrideW - s.PadLeft + kw*s.DilationW
	return (iy*s.W + ix) * s.IC
}

// setTaps sets the loops of t to the taps of a row span and a column span.
func (c *Conv) setTaps(t *tileArgs, r, q span) {
	sh := &c.s
	nh, nw := r.k1-r.k0, q.k1-q.k0
	jumpA := sh.DilationH*sh.W*sh.IC - nw*sh.DilationW*sh.IC
	jumpB := (sh.KW - nw) * c.icg * sh.OC
	if sh.DilationW == 1 && sh.Groups == 1 {
		t.k, t.k2, t.k3 = nw*sh.IC, nh, 1
		t.aj, t.bj, t.aj3, t.bj3 = 4*jumpA, 4*jumpB, 0, 0
	} else {
		t.k, t.k2, t.k3 = c.icg, nw, nh
		t.aj, t.bj = 4*(sh.DilationW*sh.IC-c.icg), 0
		t.aj3, t.bj3 = 4*jumpA, 4*jumpB
	}
	if nh == 0 || nw == 0 {
		t.k = 0
	}
}

// fillEmpty handles output positions whose window lies in the padding altogether: one zero tap.
func (c *Conv) fillEmpty(t *tileArgs, s *Scratch, im *impl, y ptr, r, q span, n int) {
	s.pack = grow(s.pack, max(len(s.pack), n+1))
	clear(s.pack[:n+1])
	t.k, t.k2, t.k3 = 1, 1, 1
	t.b = addr(s.pack, 1)
	g := grid{m: r.hi - r.lo, n: q.hi - q.lo, a: addr(s.pack, 0), c: y, cm: 4 * c.ow * c.s.OC, cn: 4 * c.s.OC}
	g.run(&im.tiler, t, n)
}
