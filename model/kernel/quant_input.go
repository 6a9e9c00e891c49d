package kernel

import (
	"fmt"
	"unsafe"
)

// input returns the input as the kernels want it: padded with the zero point, followed by room for reading past a run's
// end, and widened where they take 16-bit values. Where it is that already (whole says that runs are whole steps), it
// is used in place.
func (q *QConv) input(im *impl, s *Scratch, x []uint8, n int, whole bool) ptr {
	sh := &q.c.s
	padded := q.hp != sh.H || q.wp != sh.W
	if !im.quant.pairs && !padded && whole && sh.IC%4 == 0 && q.c.icg%4 == 0 {
		return unsafe.Pointer(&x[0])
	}
	size := n * q.hp * q.wp * sh.IC
	if im.quant.pairs {
		s.words = grow(s.words, size+8)
	} else {
		s.bytes = grow(s.bytes, size+8)
	}
	if !padded {
		q.line(im, s, 0, x[:size])
		return q.buffer(im, s)
	}
	row := q.wp * sh.IC
	q.fill(im, s, 0, sh.PadTop*row+sh.PadLeft*sh.IC)
	at := sh.PadTop*row + sh.PadLeft*sh.IC
	for y := range sh.H {
		q.line(im, s, at, x[y*sh.W*sh.IC:(y+1)*sh.W*sh.IC])
		gap := (sh.PadRight + sh.PadLeft) * sh.IC
		if y == sh.H-1 {
			gap = size - at - sh.W*sh.IC
		}
		q.fill(im, s, at+sh.W*sh.IC, gap)
		at += row
	}
	return q.buffer(im, s)
}

func (q *QConv) buffer(im *impl, s *Scratch) ptr {
	if im.quant.pairs {
		return unsafe.Pointer(&s.words[0])
	}
	return unsafe.Pointer(&s.bytes[0])
}

// line copies elements to index at of the buffer.
func (q *QConv) line(im *impl, s *Scratch, at int, x []uint8) {
	if im.quant.pairs {
		im.quant.widen(unsafe.Pointer(&s.words[at]), unsafe.Pointer(&x[0]), len(x))
	} else {
		copy(s.bytes[at:], x)
	}
}

// fill writes n zero points to index at of the buffer.
func (q *QConv) fill(im *impl, s *Scratch, at, n int) {
	if im.quant.pairs {
		for i := range s.words[at : at+n] {
			s.words[at+i] = int16(q.r.InZero)
		}
		return
	}
	for i := range s.bytes[at : at+n] {
		s.bytes[at+i] = q.r.InZero
	}
}

// forwardDepth runs a depthwise convolution in float32: products and sums of these integers are exact there.
func (q *QConv) forwardDepth(im *impl, s *Scratch, x, y []uint8) {
	c := q.c
	s.planes, s.outs = grow(s.planes, c.inSize), grow(s.outs, c.outSize)
	p := &s.params
	*p = quantParams{scale: 1, zero: int32(q.r.InZero)}
	im.quant.dequantize(addr(s.planes, 0), unsafe.Pointer(&x[0]), c.inSize, p)
	c.forwardDepth(im, s, addr(s.planes, 0), addr(q.weights, 0), addr(s.outs, 0), 1, addr(q.fbias, 0), 0)
	s.pack = grow(s.pack, 2*c.s.OC)
	for i := range c.s.OC {
		s.pack[i], s.pack[c.s.OC+i] = q.r.Scale[i], 0
	}
	im.affine(addr(s.outs, 0), addr(s.outs, 0), addr(s.pack, 0), addr(s.pack, c.s.OC), c.oh*c.ow, c.s.OC, 0)
	*p = quantParams{scale: 1, zero: int32(q.r.OutZero), lo: int32(q.r.Lo), hi: int32(q.r.Hi), least: -1 << 30, most: 1 << 30}
	im.quant.quantize(unsafe.Pointer(&y[0]), addr(s.outs, 0), c.outSize, p)
}

// Quantize writes clamp(round(x/scale) + zero, 0, 255) for every element of dst, with ties to even, as ONNX's
// QuantizeLinear. NaN becomes 0.
func Quantize(s *Scratch, dst []uint8, x []float32, scale float32, zero uint8) error {
	im, err := current()
	if err := firstErr(err, checkScale(scale), checkLen("x", x, len(dst))); err != nil || len(dst) == 0 {
		return err
	}
	s = s.orNew()
	s.params = quantParams{scale: scale, zero: int32(zero), hi: 255, least: -1 << 30, most: 1 << 30}
	im.quant.quantize(unsafe.Pointer(&dst[0]), addr(x, 0), len(dst), &s.params)
	return nil
}

// Dequantize writes (x - zero)·scale for every element of dst.
func Dequantize(s *Scratch, dst []float32, x []uint8, scale float32, zero uint8) error {
	im, err := current()
	if err := firstErr(err, checkScale(scale), checkLen("x", x, len(dst))); err != nil || len(dst) == 0 {
		return err
	}
	s = s.orNew()
	s.params = quantParams{scale: scale, zero: int32(zero)}
	im.quant.dequantize(addr(dst, 0), unsafe.Pointer(&x[0]), len(dst), &s.params)
	return nil
}

func checkScale(scale float32) error {
	if !(scale > 0 && scale < 1e30) {
		return fmt.Errorf("quantization scale is %g, want more than 0: %w", scale, ErrParam)
	}
	return nil
}

// MaxBytes is Max on quantized images.
func (p *Pool) MaxBytes(s *Scratch, x, y []uint8, n0, n1 int) error {
	im, err := current()
	if err := firstErr(err, checkImages("x", x, p.inSize, n0, n1), checkImages("y", y, p.outSize, n0, n1)); err != nil || n0 == n1 {
		return err
	}
	s = s.orNew()
	sh, a := &p.s, &s.pool
	*a = poolArgs{c: sh.C, xs: sh.StrideW * sh.C, xw: sh.C, xh: sh.W * sh.C, ys: sh.C}
	for i := n0; i < n1; i++ {
		for _, r := range p.rows {
			for _, q := range p.cols {
				a.n, a.kh, a.kw = q.hi-q.lo, r.k1-r.k0, q.k1-q.k0
				for oy := r.lo; oy < r.hi; oy++ {
					in, out := p.window(i, oy, r, q)
					a.x, a.y = unsafe.Pointer(&x[in]), unsafe.Pointer(&y[out])
					im.quant.maxPool(a)
				}
			}
		}
	}
	return nil
}
