package main

import (
	"fmt"
	"strings"

	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Offsets in quantArgs past those of tileArgs.
const (
	qScale = 8 * (iota + 19)
	qZero
	qLo
	qHi
)

// quantTiles emits the micro-kernels on 8-bit integers: with AVX-512 VNNI on quadruples of bytes, with AVX2 on pairs of
// 16-bit values, both exact.
func (g *isa) quantTiles() {
	mr, half := 14, 7
	if g.bits == 256 {
		mr, half = 6, 3
	}
	var init strings.Builder
	for h0 := 1; h0 <= half; h0++ {
		for h1 := range h0 + 1 {
			if h1 != h0 && h1 != h0-1 && h1 != 0 {
				continue
			}
			for kind, nv := range []int{1, 2, 4} {
				if nv == 4 && h0+h1 > 4 || nv == 4 && g.bits == 256 && h0+h1 > 2 || h0+h1 > mr {
					continue
				}
				name := g.quantTile(h0, h1, nv)
				fmt.Fprintf(&init, "\t{%d, %d, %d}: %s,\n", kind, h0, h1, name)
			}
		}
	}
	g.tables += fmt.Sprintf("\n// quant%d lists the 8-bit micro-kernels by kind (log2 of the vectors) and halves.\nvar quant%d = map[[3]int]func(*quantArgs){\n%s}\n", g.bits, g.bits, init.String())
}

func (g *isa) quantTile(h0, h1, nv int) string {
	name := fmt.Sprintf("quant%d_%d_%d_v%d", g.bits, h0, h1, nv)
	g.fnNamed(name, "(p *quantArgs)", fmt.Sprintf("computes %d+%d rows and %d vectors as quantArgs says.", h0, h1, nv))
	p := g.arg("p")
	acc := make([][]reg.VecVirtual, h0+h1)
	bias := g.field(p, tBias)
	for i := range acc {
		acc[i] = g.vecs(nv)
		for j, v := range acc[i] {
			g.moveInts(g.disp(bias, j), v)
		}
	}
	tmp := g.loops(p, h0, h1, nil, func(b, bk reg.GPVirtual, row func(int) Mem) reg.VecVirtual {
		return g.quantProducts(acc, nv, b, bk, row)
	})
	g.quantEpilogue(p, acc, h0, h1, nv, tmp)
	g.end()
	return name
}

func (g *isa) moveInts(m Mem, v reg.VecVirtual) {
	if g.bits == 512 {
		g.VMOVDQU32(m, v)
	} else {
		g.VMOVDQU(m, v)
	}
}

// quantProducts emits one step of the inner loop and returns a vector that is free after it.
func (g *isa) quantProducts(acc [][]reg.VecVirtual, nv int, b, bk reg.GPVirtual, row func(int) Mem) reg.VecVirtual {
	bv, av := g.vecs(nv), g.vec()
	for j := range bv {
		g.moveInts(g.disp(b, j), bv[j])
	}
	g.ADDQ(bk, b)
	prod := av
	if g.bits == 256 {
		prod = g.vec()
	}
	for i := range acc {
		g.VPBROADCASTD(row(i), av)
		for j := range bv {
			if g.bits == 512 {
				g.VPDPBUSD(bv[j], av, acc[i][j])
			} else {
				g.VPMADDWD(bv[j], av, prod)
				g.VPADDD(prod, acc[i][j], acc[i][j])
			}
		}
	}
	return bv[0]
}

// quantEpilogue rounds the sums to bytes and stores them.
func (g *isa) quantEpilogue(p reg.GPVirtual, acc [][]reg.VecVirtual, h0, h1, nv int, tmp reg.VecVirtual) {
	cell := g.cells(p, h0, h1)
	scale := g.field(p, qScale)
	for j := range nv {
		g.load(g.disp(scale, j), tmp, nil)
		for i := range acc {
			v := acc[i][j]
			g.VCVTDQ2PS(v, v)
			g.VMULPS(tmp, v, v)
			g.VCVTPS2DQ(v, v)
		}
	}
	each := func(off int, f func(v reg.VecVirtual)) {
		g.VPBROADCASTD(Mem{Base: p, Disp: off}, tmp)
		for i := range acc {
			for _, v := range acc[i] {
				f(v)
			}
		}
	}
	each(qZero, func(v reg.VecVirtual) { g.VPADDD(tmp, v, v) })
	each(qLo, func(v reg.VecVirtual) { g.VPMAXSD(tmp, v, v) })
	each(qHi, func(v reg.VecVirtual) { g.VPMINSD(tmp, v, v) })
	if g.bits == 512 {
		k, m := g.K(), g.field(p, tMask)
		g.KMOVW(m.As32(), k)
		for i := range acc {
			for j, v := range acc[i] {
				c := cell(i)
				c.Disp = 16 * j
				if j == nv-1 {
					g.VPMOVDB(v, k, c)
				} else {
					g.VPMOVDB(v, c)
				}
			}
		}
		return
	}
	for i := range acc { // the values fit in bytes: the packs do not saturate
		for j, v := range acc[i] {
			c := cell(i)
			c.Disp = 8 * j
			g.VEXTRACTI128(U8(1), v, tmp.AsX())
			g.VPACKUSDW(tmp.AsX(), v.AsX(), v.AsX())
			g.VPACKUSWB(v.AsX(), v.AsX(), v.AsX())
			g.VMOVQ(v.AsX(), c)
		}
	}
}

// bytes8 emits what else works on bytes: widening to 16 bits, and max-pooling of 32 channels at a time.
func (g *isa) bytes8() {
	g.fnNamed("widenBytes", "(dst, src ptr, n int)", "widens n bytes to 16 bits; n a positive multiple of 16.")
	dst, src, n := g.arg("dst"), g.arg("src"), g.arg("n")
	v := g.YMM()
	g.SHRQ(U8(4), n)
	g.Label("loop")
	g.VPMOVZXBW(Mem{Base: src}, v)
	g.VMOVDQU(v, Mem{Base: dst})
	g.ADDQ(U8(16), src)
	g.ADDQ(U8(32), dst)
	g.DECQ(n)
	g.JNZ(LabelRef("loop"))
	g.end()

	g.fnNamed("maxPoolBytes", "(p *poolArgs)", "takes the maximum of every window of bytes; channels a multiple of 16.")
	p := g.arg("p")
	off, end := g.GP64(), g.field(p, pC)
	g.XORQ(off, off)
	g.Label("strip")
	x, y := g.atField(p, pX, off), g.atField(p, pY, off)
	g.pixels(p, []reg.GPVirtual{x}, []reg.GPVirtual{y}, func() {
		acc, row, cur := g.XMM(), g.GP64(), g.GP64()
		g.VMOVDQU(Mem{Base: x}, acc)
		g.MOVQ(x, row)
		g.taps(p, walker{row, cur, pXW, pXH}, func() { g.VPMAXUB(Mem{Base: cur}, acc, acc) })
		g.VMOVDQU(acc, Mem{Base: y})
	})
	g.ADDQ(U8(16), off)
	g.CMPQ(off, end)
	g.JL(LabelRef("strip"))
	g.end()
}

// conversions emits quantization and its inverse for n elements, n a positive multiple of 8.
func (g *isa) conversions() {
	g.fnNamed("quantize8", "(dst, src ptr, n int, h *quantParams)", "writes clamp(round(src/scale) + zero, lo, hi) as bytes; n a positive multiple of 8.")
	dst, src, n, h := g.arg("dst"), g.arg("src"), g.arg("n"), g.arg("h")
	scale, least, most := g.broadcast(Mem{Base: h}), g.broadcast(Mem{Base: h, Disp: 16}), g.broadcast(Mem{Base: h, Disp: 20})
	ints := g.vecs(3)
	for i, v := range ints {
		g.VPBROADCASTD(Mem{Base: h, Disp: 4 + 4*i}, v)
	}
	v, t := g.vec(), g.vec()
	g.SHRQ(U8(3), n)
	g.Label("loop")
	g.VMOVUPS(Mem{Base: src}, v)
	g.VDIVPS(scale, v, v)
	g.VMAXPS(v, least, v)
	g.VMINPS(v, most, v)
	g.VCVTPS2DQ(v, v)
	g.VPADDD(ints[0], v, v)
	g.VPMAXSD(ints[1], v, v)
	g.VPMINSD(ints[2], v, v)
	g.VEXTRACTI128(U8(1), v, t.AsX())
	g.VPACKUSDW(t.AsX(), v.AsX(), v.AsX())
	g.VPACKUSWB(v.AsX(), v.AsX(), v.AsX())
	g.VMOVQ(v.AsX(), Mem{Base: dst})
	g.ADDQ(U8(32), src)
	g.ADDQ(U8(8), dst)
	g.DECQ(n)
	g.JNZ(LabelRef("loop"))
	g.end()

	g.fnNamed("dequantize8", "(dst, src ptr, n int, h *quantParams)", "writes (src - zero)*scale; n a positive multiple of 8.")
	dst, src, n, h = g.arg("dst"), g.arg("src"), g.arg("n"), g.arg("h")
	scale = g.broadcast(Mem{Base: h})
	zero := g.vec()
	g.VPBROADCASTD(Mem{Base: h, Disp: 4}, zero)
	v = g.vec()
	g.SHRQ(U8(3), n)
	g.Label("loop")
	g.VPMOVZXBD(Mem{Base: src}, v)
	g.VPSUBD(zero, v, v)
	g.VCVTDQ2PS(v, v)
	g.VMULPS(scale, v, v)
	g.VMOVUPS(v, Mem{Base: dst})
	g.ADDQ(U8(8), src)
	g.ADDQ(U8(32), dst)
	g.DECQ(n)
	g.JNZ(LabelRef("loop"))
	g.end()
}
