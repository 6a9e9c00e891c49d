package kernel

import (
	"math"
	"unsafe"
)

// quantImpl is one variant's primitives on 8-bit integers. Their results are exact up to the last rounding, which is the
// same everywhere: all variants give the same bytes.
type quantImpl struct {
	tiler
	pairs   bool                      // the micro-kernel multiplies pairs of 16-bit values, else quadruples of bytes
	signed  bool                      // and takes the bytes of a less 128; the bias makes up for it
	widen   func(dst, src ptr, n int) // bytes to 16 bits
	maxPool func(a *poolArgs)         // of bytes; strides in bytes
	wino    quantWino

	quantize   func(dst, src ptr, n int, h *quantParams) // dst = clamp(round(src/scale) + zero, lo, hi)
	dequantize func(dst, src ptr, n int, h *quantParams) // dst = (src - zero)*scale
}

// quantParams relates bytes to numbers. least and most keep the conversion to integers in range.
type quantParams struct {
	scale        float32
	zero, lo, hi int32
	least, most  float32
}

// quantArgs is tileArgs for 8-bit integers: rows of a are bytes (or 16-bit values), b holds for each step and column
// four weights (or two as 16-bit values) that are multiplied with as many neighbours in a, and
//
//	c = clamp(round(float32(s + bias[j]) * scale[j]) + zero, lo, hi)
//
// rounding to nearest, ties to even, and clamping to [lo, hi] within [0, 255]. c holds bytes.
type quantArgs struct {
	tileArgs
	scale        ptr
	zero, lo, hi int64
	edge         [64]uint8 // results of a vector that is not full, where stores cannot be masked
}

// quantOf is the quantArgs that t is part of.
func quantOf(t *tileArgs) *quantArgs { return (*quantArgs)(unsafe.Pointer(t)) }

// quantEdge computes fewer than 8 columns with the micro-kernel eight into a buffer and copies them.
func quantEdge(q *quantArgs, eight func(*quantArgs), h0, h1, n int) {
	c0, c1, cs := q.c0, q.c1, q.cs
	q.c0, q.c1, q.cs = unsafe.Pointer(&q.edge[0]), unsafe.Pointer(&q.edge[8*h0]), 8
	eight(q)
	for i := range h0 + h1 {
		c := c0
		r := i
		if i >= h0 {
			c, r = c1, i-h0
		}
		copy(unsafe.Slice((*uint8)(unsafe.Add(c, r*cs)), n), q.edge[8*i:])
	}
	q.c0, q.c1, q.cs = c0, c1, cs
}

var genericQuant = quantImpl{
	tiler: tiler{mr: 16, half: 8, width: func(_, n int) int { return min(n, 64) }, tile: genericQuantTile},
	widen: genericWiden, maxPool: genericMaxPoolBytes, wino: genericQuantWino, quantize: genericQuantize, dequantize: genericDequantize,
}

func genericQuantTile(t *tileArgs, h0, h1, n int) {
	q := quantOf(t)
	var acc [64]int32
	for i := range h0 + h1 {
		a, c, r := t.a0, t.c0, i
		if i >= h0 {
			a, c, r = t.a1, t.c1, i-h0
		}
		a, c = unsafe.Add(a, r*t.as), unsafe.Add(c, r*t.cs)
		row := acc[:n]
		copy(row, unsafe.Slice((*int32)(t.bias), n))
		ao, bo := 0, 0
		for range t.k3 {
			for range t.k2 {
				for range t.k {
					x := unsafe.Slice((*uint8)(unsafe.Add(a, ao)), 4)
					w := unsafe.Slice((*int8)(unsafe.Add(t.b, bo)), 4*n)
					for j := range row {
						for e, v := range x {
							row[j] += int32(v) * int32(w[4*j+e])
						}
					}
					ao, bo = ao+t.ak, bo+t.bk
				}
				ao, bo = ao+t.aj, bo+t.bj
			}
			ao, bo = ao+t.aj3, bo+t.bj3
		}
		out, scale := unsafe.Slice((*uint8)(c), n), floats(q.scale, n)
		for j, s := range row {
			out[j] = requantize(s, scale[j], q.zero, q.lo, q.hi)
		}
	}
}

// requantize rounds s*scale + zero to a byte in [lo, hi].
func requantize(s int32, scale float32, zero, lo, hi int64) uint8 {
	v := math.RoundToEven(float64(float32(float32(s) * scale)))
	return uint8(min(max(int64(min(max(v, -1<<30), 1<<30))+zero, lo), hi))
}

func genericWiden(dst, src ptr, n int) {
	d := unsafe.Slice((*int16)(dst), n)
	for i, v := range unsafe.Slice((*uint8)(src), n) {
		d[i] = int16(v)
	}
}

func genericMaxPoolBytes(p *poolArgs) {
	for i := range p.n {
		x, y := unsafe.Add(p.x, i*p.xs), unsafe.Slice((*uint8)(unsafe.Add(p.y, i*p.ys)), p.c)
		clear(y)
		for kh := range p.kh {
			for kw := range p.kw {
				for ch, v := range unsafe.Slice((*uint8)(unsafe.Add(x, kh*p.xh+kw*p.xw)), p.c) {
					y[ch] = max(y[ch], v)
				}
			}
		}
	}
}

func genericQuantize(dst, src ptr, n int, h *quantParams) {
	d := unsafe.Slice((*uint8)(dst), n)
	for i, v := range floats(src, n) {
		v /= h.scale
		if v != v {
			v = h.least
		}
		r := math.RoundToEven(float64(min(max(v, h.least), h.most)))
		d[i] = uint8(min(max(int32(r)+h.zero, h.lo), h.hi))
	}
}

func genericDequantize(dst, src ptr, n int, h *quantParams) {
	d := floats(dst, n)
	for i, v := range unsafe.Slice((*uint8)(src), n) {
		d[i] = float32(int32(v)-h.zero) * h.scale
	}
}
