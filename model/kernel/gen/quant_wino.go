package main

import (
	"fmt"
	"strings"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Offsets in quantWinoArgs.
const (
	qwC = 8 * iota
	qwSrc
	qwSH
	qwSW
	qwDst
	qwDH
	qwDW
	qwBias
	qwScale
	qwNinth
	qwZero = qwNinth + 32
	qwLo   = qwZero + 32
	qwHi   = qwLo + 32
	qwTmp  = qwHi + 32
)

// quantWino emits Winograd's algorithm in integers for 256 bits: transforms of bytes to 16 bits and of sums to bytes, and
// the micro-kernels between them.
func (g *isa) quantWino() {
	var init strings.Builder
	for h0 := 1; h0 <= 3; h0++ {
		for h1 := range h0 + 1 {
			if h1 != h0 && h1 != h0-1 && h1 != 0 {
				continue
			}
			for kind, nv := range []int{1, 2, 4} {
				if nv == 4 && h0+h1 > 2 {
					continue
				}
				fmt.Fprintf(&init, "\t{%d, %d, %d}: %s,\n", kind, h0, h1, g.quantSums(h0, h1, nv))
			}
		}
	}
	g.tables += fmt.Sprintf("\n// quantSums%d lists the micro-kernels of sums by kind (log2 of the vectors) and halves.\nvar quantSums%d = map[[3]int]func(*quantArgs){\n%s}\n", g.bits, g.bits, init.String())
	g.quantWinoInput()
	g.quantWinoOutput()
}

// quantSums is quantTile that starts from zero and stores the sums.
func (g *isa) quantSums(h0, h1, nv int) string {
	name := fmt.Sprintf("quantSums%d_%d_%d_v%d", g.bits, h0, h1, nv)
	g.fnNamed(name, "(p *quantArgs)", fmt.Sprintf("computes the sums of %d+%d rows and %d vectors as tileArgs says, in 32 bits.", h0, h1, nv))
	p := g.arg("p")
	acc := make([][]reg.VecVirtual, h0+h1)
	for i := range acc {
		acc[i] = g.vecs(nv)
		for _, v := range acc[i] {
			g.zero(v)
		}
	}
	g.loops(p, h0, h1, nil, func(b, bk reg.GPVirtual, row func(int) Mem) reg.VecVirtual {
		return g.quantProducts(acc, nv, b, bk, row)
	})
	cell := g.cells(p, h0, h1)
	for i := range acc {
		for j, v := range acc[i] {
			c := cell(i)
			c.Disp = g.bytes() * j
			g.VMOVDQU(v, c)
		}
	}
	g.end()
	return name
}

// quantWinoInput maps 6 by 6 bytes by Bᵀ·d·B.
func (g *isa) quantWinoInput() {
	g.fnNamed("quantWinoInput", "(p *quantWinoArgs)", "maps 6 by 6 bytes by Bᵀ·d·B to 16 bits; channels a multiple of 16.")
	p := g.arg("p")
	tmp := func(i, j int) Mem { return Mem{Base: p, Disp: qwTmp + (6*i+j)*32} }
	in, out, left := g.field(p, qwSrc), g.field(p, qwDst), g.field(p, qwC)
	sw, dh := g.field(p, qwSW), g.field(p, qwDH)
	rows, cols := g.multiples(g.field(p, qwSH), 6), g.multiples(g.field(p, qwDW), 6)
	src, dst := g.GP64(), g.GP64()
	g.Label("strip")
	g.MOVQ(in, src)
	for j := range 6 {
		x := g.vecs(6)
		for i := range x {
			g.VPMOVZXBW(rowMem(src, rows, i), x[i])
		}
		for i, v := range g.winoInput16(x) {
			g.VMOVDQU(v, tmp(i, j))
		}
		g.ADDQ(sw, src)
	}
	g.MOVQ(out, dst)
	for i := range 6 {
		x := g.vecs(6)
		for j := range x {
			g.VMOVDQU(tmp(i, j), x[j])
		}
		for j, v := range g.winoInput16(x) {
			g.VMOVDQU(v, rowMem(dst, cols, j))
		}
		g.ADDQ(dh, dst)
	}
	g.ADDQ(U8(16), in)
	g.ADDQ(U8(32), out)
	g.SUBQ(U8(16), left)
	g.JG(LabelRef("strip"))
	g.end()
}

// winoInput16 is winoInput on 16-bit integers.
func (g *isa) winoInput16(d []reg.VecVirtual) []reg.VecVirtual {
	o, t := g.vecs(6), g.vecs(2)
	g.VPSLLW(U8(2), d[2], t[0])
	g.VPSUBW(t[0], d[4], t[0]) // d4 - 4 d2
	g.VPSLLW(U8(2), d[0], o[0])
	g.VPADDW(t[0], o[0], o[0])
	g.VPSUBW(d[2], o[0], o[0])
	g.VPSLLW(U8(2), d[1], t[1])
	g.VPSUBW(d[3], d[5], o[5])
	g.VPADDW(t[1], o[5], o[5])
	g.VPSUBW(t[1], d[3], t[1]) // d3 - 4 d1
	g.VPADDW(t[1], t[0], o[1])
	g.VPSUBW(t[1], t[0], o[2])
	g.VPSUBW(d[2], d[4], t[0]) // d4 - d2
	g.VPSUBW(d[1], d[3], t[1]) // 2 (d3 - d1)
	g.VPADDW(t[1], t[1], t[1])
	g.VPADDW(t[1], t[0], o[3])
	g.VPSUBW(t[1], t[0], o[4])
	g.VPSLLW(U8(2), d[3], t[1])
	g.VPSUBW(t[1], o[5], o[5])
	return o
}

// quantWinoOutput maps 6 by 6 sums by Aᵀ·m·A and rounds what they are 576 times of to bytes.
func (g *isa) quantWinoOutput() {
	g.fnNamed("quantWinoOutput", "(p *quantWinoArgs)", "maps 6 by 6 sums by Aᵀ·m·A to bytes; channels a multiple of 8.")
	perm := g.StaticGlobal("quantWinoOrder")
	g.DataAttributes(attr.RODATA | attr.NOPTR)
	for i, v := range []uint32{0, 4, 1, 5, 2, 6, 3, 7} {
		g.AddDatum(4*i, U32(v))
	}
	p := g.arg("p")
	lanes := func(off int) Mem { return Mem{Base: p, Disp: off} }
	tmp := func(i, j int) Mem { return Mem{Base: p, Disp: qwTmp + (6*i+j)*32} }
	in, out, left := g.field(p, qwSrc), g.field(p, qwDst), g.field(p, qwC)
	bias, scale := g.field(p, qwBias), g.field(p, qwScale)
	sw, dh := g.field(p, qwSW), g.field(p, qwDH)
	rows, cols := g.multiples(g.field(p, qwSH), 6), g.multiples(g.field(p, qwDW), 4)
	at := g.GP64()
	g.Label("strip")
	g.MOVQ(in, at)
	for j := range 6 {
		x := g.vecs(6)
		for i := range x {
			g.VMOVDQU(rowMem(at, rows, i), x[i])
		}
		for i, v := range g.winoOutput32(x) {
			g.VMOVDQU(v, tmp(i, j))
		}
		g.ADDQ(sw, at)
	}
	g.MOVQ(out, at)
	for i := range 4 {
		x := g.vecs(6)
		for j := range x {
			g.VMOVDQU(tmp(i, j), x[j])
		}
		o := g.winoOutput32(x)
		b, s := g.vec(), g.vec()
		g.VMOVDQU(Mem{Base: bias}, b)
		g.VMOVUPS(Mem{Base: scale}, s)
		for _, v := range o {
			g.VPMULLD(lanes(qwNinth), v, v)
			g.VPSRAD(U8(6), v, v)
			g.VPADDD(b, v, v)
			g.VCVTDQ2PS(v, v)
			g.VMULPS(s, v, v)
			g.VCVTPS2DQ(v, v)
			g.VPADDD(lanes(qwZero), v, v)
		}
		g.VPACKSSDW(o[1], o[0], o[0])
		g.VPACKSSDW(o[3], o[2], o[2])
		g.VPACKUSWB(o[2], o[0], o[0])
		g.VPMAXUB(lanes(qwLo), o[0], o[0])
		g.VPMINUB(lanes(qwHi), o[0], o[0])
		g.VMOVDQU(perm, b)
		g.VPERMD(o[0], b, o[0])
		g.VMOVQ(o[0].AsX(), rowMem(at, cols, 0))
		g.VPEXTRQ(U8(1), o[0].AsX(), rowMem(at, cols, 1))
		g.VEXTRACTI128(U8(1), o[0], b.AsX())
		g.VMOVQ(b.AsX(), rowMem(at, cols, 2))
		g.VPEXTRQ(U8(1), b.AsX(), rowMem(at, cols, 3))
		g.ADDQ(dh, at)
	}
	g.ADDQ(U8(32), in)
	g.ADDQ(U8(8), out)
	g.ADDQ(U8(32), bias)
	g.ADDQ(U8(32), scale)
	g.SUBQ(U8(8), left)
	g.JG(LabelRef("strip"))
	g.end()
}

// winoOutput32 is winoOutput on 32-bit integers, with the factors of the maps that make weights whole numbers.
func (g *isa) winoOutput32(m []reg.VecVirtual) []reg.VecVirtual {
	o, t := g.vecs(4), g.vecs(2)
	g.VPADDD(m[2], m[1], o[1]) // s1
	g.VPSUBD(m[2], m[1], o[3]) // s2
	g.VPADDD(m[4], m[3], o[2]) // s3
	g.VPSUBD(m[4], m[3], t[1]) // s4
	g.VPSLLD(U8(2), o[1], t[0])
	g.VPADDD(o[2], m[0], o[0])
	g.VPSUBD(t[0], o[0], o[0])
	g.VPSLLD(U8(2), o[2], o[2])
	g.VPSUBD(t[0], o[2], o[2])
	g.VPSLLD(U8(2), o[3], t[0])
	g.VPADDD(t[1], t[1], o[1])
	g.VPSUBD(t[0], o[1], o[1])
	g.VPSLLD(U8(3), t[1], o[3])
	g.VPSUBD(t[0], o[3], o[3])
	g.VPADDD(m[5], m[5], t[1])
	g.VPADDD(t[1], o[3], o[3])
	return o
}
