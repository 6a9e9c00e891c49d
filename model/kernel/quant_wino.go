package kernel

import (
	"fmt"
	"unsafe"
)

// QWinograd is a 3×3 convolution of bytes by Winograd's algorithm F(4×4, 3×3) in integers. It gives the very bytes that
// its QConv gives: the transformed weights are scaled to whole numbers of 16 bits, sums are exact modulo 2³², and what
// they come to, 576 times the wanted sums, is divided exactly. It is immutable.
type QWinograd struct {
	q *QConv
	p winoPlan
	u []int16 // transformed weights: [36][IC/2][OC][2]
}

// winoExact bounds the sums: of 32 bits, 6 go with the factor 64 of 576 = 64·9, which cannot be divided by modulo 2³².
const winoExact = 1 << 25

// winoNinth is 1/9 modulo 2³².
const winoNinth = 954437177

// NewQWinograd returns an error wrapping ErrShape unless Winograd's algorithm applies (see NewWinograd), the input has a
// multiple of 16 channels and the output of 8; and one wrapping ErrParam where weights are so large that sums may not be
// exact.
func NewQWinograd(q *QConv) (*QWinograd, error) {
	w, err := NewWinograd(q.c.s)
	if err != nil {
		return nil, err
	}
	sh := &q.c.s
	if sh.IC%16 != 0 || sh.OC%8 != 0 {
		return nil, fmt.Errorf("winograd of bytes: %d channels in and %d out, want multiples of 16 and 8: %w", sh.IC, sh.OC, ErrShape)
	}
	size := make([]int, sh.OC)
	for i, v := range q.w[:q.c.wSize] {
		size[i%sh.OC] += 255 * max(int(v), -int(v))
	}
	for i, n := range size {
		if n >= winoExact {
			return nil, fmt.Errorf("winograd of bytes: sums of channel %d reach %d, want less than %d: %w", i, n, winoExact, ErrParam)
		}
	}
	x := &QWinograd{q: q, p: w.fwd, u: make([]int16, 36*sh.IC*sh.OC)}
	for ic := range sh.IC {
		for oc := range sh.OC {
			x.transformWeight(ic, oc)
		}
	}
	return x, nil
}

// transformWeight writes G·g·Gᵀ of one pair of channels, where the rows of G are those of the algorithm times -6, 24 or
// 12, so that they are whole: the output's transform has the rest of the factor 24 that makes them all alike.
func (x *QWinograd) transformWeight(ic, oc int) {
	sh := &x.q.c.s
	var mid [6][3]int
	for j := range 3 {
		var g [3]int
		for i := range 3 {
			g[i] = int(x.q.w[((3*i+j)*sh.IC+ic)*sh.OC+oc])
		}
		for i, v := range winoWhole(g) {
			mid[i][j] = v
		}
	}
	for i := range 6 {
		for j, v := range winoWhole(mid[i]) {
			x.u[(((6*i+j)*(sh.IC/2)+ic/2)*sh.OC+oc)*2+ic%2] = int16(v)
		}
	}
}

func winoWhole(g [3]int) [6]int {
	return [6]int{6 * g[0], g[0] + g[1] + g[2], g[0] - g[1] + g[2], g[0] + 2*g[1] + 4*g[2], g[0] - 2*g[1] + 4*g[2], 12 * g[2]}
}

// Forward computes images [n0, n1) of y from x. Images are independent.
func (x *QWinograd) Forward(s *Scratch, in, out []uint8, n0, n1 int) error {
	im, err := current()
	c := x.q.c
	if err := firstErr(err, checkImages("x", in, c.inSize, n0, n1), checkImages("y", out, c.outSize, n0, n1)); err != nil || n0 == n1 {
		return err
	}
	s = s.orNew()
	p := &x.p
	for i := n0; i < n1; i += p.images {
		n := min(p.images, n1-i)
		va := x.inputs(im, s, in, i, n)
		tiles := n * p.th * p.tw
		vb := tiles*p.oc + 16
		s.sums = grow(s.sums, 36*vb)
		for k := range 36 {
			x.products(im, s, k, tiles, &s.words[k*va], &s.sums[k*vb])
		}
		x.outputs(im, s, out, i, n, vb)
	}
	return nil
}

// products multiplies plane k of the tiles with that of the weights.
func (x *QWinograd) products(im *impl, s *Scratch, k, tiles int, a *int16, c *int32) {
	p, w := &x.p, &im.quant.wino
	t := &s.quant
	t.tileArgs = tileArgs{k: p.ic / 2, k2: 1, k3: 1, ak: 4, bk: 4 * p.oc}
	g := grid{m: 1, n: tiles, a: unsafe.Pointer(a), an: 2 * p.ic, cn: 4 * p.oc}
	for j := 0; j < p.oc; {
		n := w.width(min(w.mr, tiles), p.oc-j)
		t.b = unsafe.Pointer(&x.u[(k*p.ic/2*p.oc+j)*2])
		g.c = unsafe.Add(unsafe.Pointer(c), 4*j)
		g.run(&w.tiler, &t.tileArgs, n)
		j += n
	}
}

// inputs transforms the tiles of n images from image i on into s.words, 36 planes of [tiles][ic], and returns the distance
// between planes.
func (x *QWinograd) inputs(im *impl, s *Scratch, in []uint8, i, n int) (plane int) {
	p := &x.p
	plane = n*p.th*p.tw*p.ic + 16
	s.words = grow(s.words, 36*plane)
	s.bytes = grow(s.bytes, 36*max(p.ic, p.oc))
	t := &s.quantWino
	t.c, t.dh, t.dw = p.ic, 2*6*plane, 2*plane
	tile := 0
	for img := i; img < i+n; img++ {
		first := img * p.h * p.w * p.ic
		for ty := range p.th {
			for tx := range p.tw {
				y0, x0 := 4*ty-p.top, 4*tx-p.left
				t.dst = unsafe.Pointer(&s.words[tile*p.ic])
				if y0 >= 0 && x0 >= 0 && y0+6 <= p.h && x0+6 <= p.w {
					t.src, t.sh, t.sw = unsafe.Pointer(&in[first+(y0*p.w+x0)*p.ic]), p.w*p.ic, p.ic
				} else {
					loadPatch(s.bytes, in[first:], x.q.r.InZero, y0, x0, 6, p.h, p.w, p.ic)
					t.src, t.sh, t.sw = unsafe.Pointer(&s.bytes[0]), 6*p.ic, p.ic
				}
				im.quant.wino.input(t)
				tile++
			}
		}
	}
	return plane
}

// outputs transforms the sums in s.sums to the tiles of n images of y.
func (x *QWinograd) outputs(im *impl, s *Scratch, y []uint8, i, n, plane int) {
	p, t := &x.p, &s.quantWino
	t.c, t.sh, t.sw = p.oc, 4*6*plane, 4*plane
	t.bias, t.scale = unsafe.Pointer(&x.q.bias[0]), unsafe.Pointer(&x.q.scale[0])
	for k := range t.zero {
		t.ninth[k], t.zero[k] = winoNinth, int32(x.q.r.OutZero)
	}
	for k := range t.lo {
		t.lo[k], t.hi[k] = x.q.r.Lo, x.q.r.Hi
	}
	tile := 0
	for img := i; img < i+n; img++ {
		out := y[img*p.oh*p.ow*p.oc:]
		for ty := range p.th {
			for tx := range p.tw {
				y0, x0 := 4*ty, 4*tx
				t.src = unsafe.Pointer(&s.sums[tile*p.oc])
				tile++
				if y0+4 <= p.oh && x0+4 <= p.ow {
					t.dst, t.dh, t.dw = unsafe.Pointer(&out[(y0*p.ow+x0)*p.oc]), p.ow*p.oc, p.oc
					im.quant.wino.output(t)
					continue
				}
				t.dst, t.dh, t.dw = unsafe.Pointer(&s.bytes[0]), 4*p.oc, p.oc
				im.quant.wino.output(t)
				cols := min(4, p.ow-x0)
				for r := 0; r < 4 && y0+r < p.oh; r++ {
					copy(out[((y0+r)*p.ow+x0)*p.oc:((y0+r)*p.ow+x0+cols)*p.oc], s.bytes[4*r*p.oc:])
				}
			}
		}
	}
}

// loadPatch copies the size by size patch at (y0, x0) of an image of h by w pixels with c channels, and fill outside.
func loadPatch(dst, img []uint8, fill uint8, y0, x0, size, h, w, c int) {
	lo, hi := max(x0, 0), min(x0+size, w)
	for r := range size {
		row := dst[r*size*c : (r+1)*size*c]
		if y := y0 + r; y < 0 || y >= h || lo >= hi {
			repeat(row, fill)
			continue
		}
		repeat(row[:(lo-x0)*c], fill)
		copy(row[(lo-x0)*c:], img[((y0+r)*w+lo)*c:((y0+r)*w+hi)*c])
		repeat(row[(hi-x0)*c:], fill)
	}
}

// repeat sets all of dst to v.
func repeat(dst []uint8, v uint8) {
	if len(dst) == 0 {
		return
	}
	dst[0] = v
	for n := 1; n < len(dst); n *= 2 {
		copy(dst[n:], dst[:n])
	}
}
