package kernel

import "fmt"

// PoolShape gives the sizes of a pooling operation on [N][H][W][C]. Zero strides mean 1.
type PoolShape struct {
	H, W, C             int
	KH, KW              int
	StrideH, StrideW    int
	PadTop, PadLeft     int
	PadBottom, PadRight int
	CountPad            bool // average pooling divides by KH·KW everywhere, padding included (ONNX count_include_pad)
}

// Pool is a pooling operation of a fixed shape. It is immutable; each goroutine brings its own Scratch.
type Pool struct {
	s               PoolShape
	oh, ow          int
	inSize, outSize int
	rows, cols      []span
	overlap         bool // windows overlap: gradients accumulate
	covers          bool // every input element lies in a window
}

// NewPool checks the shape; the error wraps ErrShape. Padding must be smaller than the window, so that every window
// holds an element.
func NewPool(s PoolShape) (*Pool, error) {
	if s.StrideH == 0 {
		s.StrideH = 1
	}
	if s.StrideW == 0 {
		s.StrideW = 1
	}
	cs := ConvShape{H: s.H, W: s.W, IC: s.C, OC: s.C, KH: s.KH, KW: s.KW, StrideH: s.StrideH, StrideW: s.StrideW, PadTop: s.PadTop,
		PadLeft: s.PadLeft, PadBottom: s.PadBottom, PadRight: s.PadRight}
	if err := cs.Validate(); err != nil {
		return nil, fmt.Errorf("pool: %w", err)
	}
	if max(s.PadTop, s.PadBottom) >= s.KH || max(s.PadLeft, s.PadRight) >= s.KW {
		return nil, fmt.Errorf("pool padding %d+%d by %d+%d, want less than the window %d by %d: %w", s.PadTop, s.PadBottom, s.PadLeft, s.PadRight, s.KH, s.KW, ErrShape)
	}
	p := &Pool{s: s}
	p.oh, _ = outSize("height", s.H, s.KH, s.StrideH, 1, s.PadTop, s.PadBottom)
	p.ow, _ = outSize("width", s.W, s.KW, s.StrideW, 1, s.PadLeft, s.PadRight)
	var ok0, ok1 bool
	p.inSize, ok0 = mul(s.H, s.W, s.C)
	p.outSize, ok1 = mul(p.oh, p.ow, s.C)
	if !ok0 || !ok1 {
		return nil, fmt.Errorf("pool %+v: input or output has more than %d elements: %w", s, maxElems, ErrShape)
	}
	p.rows = spans(p.oh, s.H, s.KH, s.StrideH, 1, s.PadTop)
	p.cols = spans(p.ow, s.W, s.KW, s.StrideW, 1, s.PadLeft)
	p.overlap = s.StrideH < s.KH || s.StrideW < s.KW
	p.covers = s.StrideH <= s.KH && s.StrideW <= s.KW && (p.oh-1)*s.StrideH+s.KH-s.PadTop >= s.H && (p.ow-1)*s.StrideW+s.KW-s.PadLeft >= s.W
	return p, nil
}

// Shape returns the shape with its defaults filled in.
func (p *Pool) Shape() PoolShape { return p.s }

// OutH is the height of the output.
func (p *Pool) OutH() int { return p.oh }

// OutW is the width of the output.
func (p *Pool) OutW() int { return p.ow }

// InSize is the number of elements of one input image.
func (p *Pool) InSize() int { return p.inSize }

// OutSize is the number of elements of one output image.
func (p *Pool) OutSize() int { return p.outSize }

// Max writes the maxima of images [n0, n1) to y. A window is scanned in order and m is kept where m > v.
func (p *Pool) Max(s *Scratch, x, y []float32, n0, n1 int) error {
	im, err := current()
	if err := firstErr(err, checkImages("x", x, p.inSize, n0, n1), checkImages("y", y, p.outSize, n0, n1)); err != nil {
		return err
	}
	p.each(s.orNew(), x, y, nil, nil, n0, n1, 0, im.maxPool)
	return nil
}

// MaxGrad writes the gradient of the input of Max to dx: dy goes to the first element of its window that equals y. With
// ReLUMask it passes only where y > 0, which is the gradient of a ReLU before the pooling as well.
func (p *Pool) MaxGrad(s *Scratch, x, y, dy, dx []float32, n0, n1 int, mask ReLUMask) error {
	im, err := current()
	if err := firstErr(err, checkImages("x", x, p.inSize, n0, n1), checkImages("y", y, p.outSize, n0, n1),
		checkImages("dy", dy, p.outSize, n0, n1), checkImages("dx", dx, p.inSize, n0, n1)); err != nil {
		return err
	}
	var flags uint64
	if mask {
		flags |= flagReLU
	}
	if p.overlap {
		flags |= flagAccumulate
	}
	if p.overlap || !p.covers {
		clear(dx[n0*p.inSize : n1*p.inSize])
	}
	p.each(s.orNew(), x, y, dy, dx, n0, n1, flags, im.maxPoolGrad)
	return nil
}

// ReLUMask says whether a gradient also passes back through a ReLU.
type ReLUMask bool

// Avg writes the averages of images [n0, n1) to y.
func (p *Pool) Avg(s *Scratch, x, y []float32, n0, n1 int) error {
	im, err := current()
	if err := firstErr(err, checkImages("x", x, p.inSize, n0, n1), checkImages("y", y, p.outSize, n0, n1)); err != nil {
		return err
	}
	p.each(s.orNew(), x, y, nil, nil, n0, n1, 0, im.avgPool)
	return nil
}

// AvgGrad writes the gradient of the input of Avg to dx.
func (p *Pool) AvgGrad(s *Scratch, dy, dx []float32, n0, n1 int) error {
	im, err := current()
	if err := firstErr(err, checkImages("dy", dy, p.outSize, n0, n1), checkImages("dx", dx, p.inSize, n0, n1)); err != nil {
		return err
	}
	clear(dx[n0*p.inSize : n1*p.inSize])
	p.each(s.orNew(), nil, nil, dy, dx, n0, n1, 0, im.avgPoolGrad)
	return nil
}

// each calls f for every line of output pixels that see the same taps.
func (p *Pool) each(s *Scratch, x, y, dy, dx []float32, n0, n1 int, flags uint64, f func(*poolArgs)) {
	sh := &p.s
	a := &s.pool
	*a = poolArgs{c: sh.C, xs: 4 * sh.StrideW * sh.C, xw: 4 * sh.C, xh: 4 * sh.W * sh.C, ys: 4 * sh.C, flags: flags}
	for i := n0; i < n1; i++ {
		for _, r := range p.rows {
			for _, q := range p.cols {
				a.n, a.kh, a.kw = q.hi-q.lo, r.k1-r.k0, q.k1-q.k0
				a.scale = 1 / float32(a.kh*a.kw)
				if sh.CountPad {
					a.scale = 1 / float32(sh.KH*sh.KW)
				}
				for oy := r.lo; oy < r.hi; oy++ {
					in, out := p.window(i, oy, r, q)
					a.x, a.dx, a.y, a.dy = addr(x, in), addr(dx, in), addr(y, out), addr(dy, out)
					f(a)
				}
			}
		}
	}
}

// window returns the indices of the first tap and of the output of the line oy of image i in the column span q.
func (p *Pool) window(i, oy int, r, q span) (in, out int) {
	s := &p.s
	in = i*p.inSize + ((oy*s.StrideH-s.PadTop+r.k0)*s.W+q.lo*s.StrideW-s.PadLeft+q.k0)*s.C
	return in, i*p.outSize + (oy*p.ow+q.lo)*s.C
}

// GlobalAvg writes, for images [n0, n1) of pixels rows of c channels, the mean over the pixels to y ([N][c]).
func GlobalAvg(x, y []float32, pixels, c, n0, n1 int) error {
	im, err := current()
	size, errS := planeSize(pixels, c)
	if err := firstErr(err, errS, checkImages("x", x, size, n0, n1), checkImages("y", y, c, n0, n1)); err != nil {
		return err
	}
	for i := n0; i < n1; i++ {
		out := addr(y, i*c)
		clear(y[i*c : (i+1)*c])
		im.colSum(addr(x, i*size), out, pixels, c)
		im.scale(1/float32(pixels), out, c)
	}
	return nil
}

// GlobalAvgGrad spreads dy ([N][c]) evenly over the pixels of dx.
func GlobalAvgGrad(dy, dx []float32, pixels, c, n0, n1 int) error {
	im, err := current()
	size, errS := planeSize(pixels, c)
	if err := firstErr(err, errS, checkImages("dy", dy, c, n0, n1), checkImages("dx", dx, size, n0, n1)); err != nil {
		return err
	}
	for i := n0; i < n1; i++ {
		first := dx[i*size : i*size+c]
		copy(first, dy[i*c:(i+1)*c])
		im.scale(1/float32(pixels), addr(dx, i*size), c)
		for p := 1; p < pixels; p++ {
			copy(dx[i*size+p*c:i*size+(p+1)*c], first)
		}
	}
	return nil
}

// planeSize checks a number of pixels (or rows) and channels.
func planeSize(pixels, c int) (int, error) {
	size, ok := mul(pixels, c)
	if !ok || size == 0 {
		return 0, fmt.Errorf("%d pixels of %d channels: want positive sizes and at most %d elements: %w", pixels, c, maxElems, ErrShape)
	}
	return size, nil
}
