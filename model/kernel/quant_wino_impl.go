package kernel

import "unsafe"

// quantWinoArgs describes a transform of a patch of integers, as winoArgs does: from 6×6 bytes to 6×6 values of 16 bits,
// or from 6×6 sums of 32 bits to 4×4 bytes. Strides in bytes. The layout is known to the generator of the assembly.
type quantWinoArgs struct {
	c      int
	src    ptr
	sh, sw int
	dst    ptr
	dh, dw int
	bias   ptr // 32 bits each
	scale  ptr
	ninth  [8]int32 // 1/9 modulo 2³², for the assembly
	zero   [8]int32
	lo, hi [32]uint8
	tmp    [36 * 8]int32 //nolint:unused // the assembly's scratch
}

// quantWino is one variant's Winograd algorithm in integers.
type quantWino struct {
	tiler                       // products of pairs of 16-bit values, sums stored in 32 bits
	input  func(*quantWinoArgs) // Bᵀ·d·B; channels a multiple of 16
	output func(*quantWinoArgs) // Aᵀ·m·A, divided by 576, then as quantArgs says; channels a multiple of 8
}

var genericQuantWino = quantWino{
	tiler: tiler{mr: 16, half: 8, width: func(_, n int) int { return min(n, 64) }, tile: genericQuantSums},
	input: genericQuantWinoInput, output: genericQuantWinoOutput,
}

// genericQuantSums computes c = Σ a·b over pairs of 16-bit values, modulo 2³².
func genericQuantSums(t *tileArgs, h0, h1, n int) {
	for i := range h0 + h1 {
		a, c, r := t.a0, t.c0, i
		if i >= h0 {
			a, c, r = t.a1, t.c1, i-h0
		}
		x := unsafe.Slice((*int16)(unsafe.Add(a, r*t.as)), 2*t.k)
		out := unsafe.Slice((*int32)(unsafe.Add(c, r*t.cs)), n)
		clear(out)
		for k := range t.k {
			w := unsafe.Slice((*int16)(unsafe.Add(t.b, k*t.bk)), 2*n)
			for j := range out {
				out[j] += int32(x[2*k])*int32(w[2*j]) + int32(x[2*k+1])*int32(w[2*j+1])
			}
		}
	}
}

func genericQuantWinoInput(p *quantWinoArgs) {
	for ch := range p.c {
		var mid [6][6]int32
		for j := range 6 {
			var d [6]int32
			for i := range d {
				d[i] = int32(*(*uint8)(unsafe.Add(p.src, i*p.sh+j*p.sw+ch)))
			}
			for i, v := range winoInputInt(d) {
				mid[i][j] = v
			}
		}
		for i := range 6 {
			for j, v := range winoInputInt(mid[i]) {
				*(*int16)(unsafe.Add(p.dst, i*p.dh+j*p.dw+2*ch)) = int16(v)
			}
		}
	}
}

func winoInputInt(d [6]int32) [6]int32 {
	a, b, c, e := d[4]-4*d[2], d[3]-4*d[1], d[4]-d[2], 2*(d[3]-d[1])
	return [6]int32{d[4] - 5*d[2] + 4*d[0], a + b, a - b, c + e, c - e, d[5] - 5*d[3] + 4*d[1]}
}

func genericQuantWinoOutput(p *quantWinoArgs) {
	for ch := range p.c {
		var mid [4][6]int32
		for j := range 6 {
			var m [6]int32
			for i := range m {
				m[i] = *(*int32)(unsafe.Add(p.src, i*p.sh+j*p.sw+4*ch))
			}
			for i, v := range winoOutputInt(m) {
				mid[i][j] = v
			}
		}
		bias, scale := *(*int32)(unsafe.Add(p.bias, 4*ch)), f32(p.scale, 4*ch)
		for i := range 4 {
			for j, v := range winoOutputInt(mid[i]) {
				s := v*winoNinth>>6 + bias
				*(*uint8)(unsafe.Add(p.dst, i*p.dh+j*p.dw+ch)) = requantize(s, scale, int64(p.zero[0]), int64(p.lo[0]), int64(p.hi[0]))
			}
		}
	}
}

// winoOutputInt is modulo 2³².
func winoOutputInt(m [6]int32) [4]int32 {
	s1, s2, s3, s4 := m[1]+m[2], m[1]-m[2], m[3]+m[4], m[3]-m[4]
	return [4]int32{m[0] - 4*s1 + s3, 2*s4 - 4*s2, 4*s3 - 4*s1, 8*s4 - 4*s2 + 2*m[5]}
}
