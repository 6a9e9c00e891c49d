package main

import (
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// transpose emits the transposition of n blocks of 8 by 8. Strides and the steps from block to block are in bytes.
func (g *isa) transpose() {
	g.fnNamed("transpose8", "(dst, src ptr, n, ldd, lds, dstep, sstep int)", "transposes n blocks of 8 by 8, each sstep and dstep bytes after the last; row strides in bytes.")
	dst, src, n, ldd, lds := g.arg("dst"), g.arg("src"), g.arg("n"), g.arg("ldd"), g.arg("lds")
	ss, ds := g.multiples(lds, 8), g.multiples(ldd, 8)
	g.Label("block")
	a := g.vecs(8)
	for i := range a {
		g.VMOVUPS(rowMem(src, ss, i), a[i])
	}
	b := g.vecs(8)
	for i := 0; i < 8; i += 2 { // pairs of rows
		g.VUNPCKLPS(a[i+1], a[i], b[i])
		g.VUNPCKHPS(a[i+1], a[i], b[i+1])
	}
	c := g.vecs(8)
	for i := 0; i < 8; i += 4 { // quarters
		for k := range 2 {
			g.VSHUFPS(U8(0x44), b[i+2+k], b[i+k], c[i+2*k])
			g.VSHUFPS(U8(0xee), b[i+2+k], b[i+k], c[i+2*k+1])
		}
	}
	out := func(i int, v reg.VecVirtual) { g.VMOVUPS(v, rowMem(dst, ds, i)) }
	for i := range 4 { // halves
		lo, hi := g.vec(), g.vec()
		g.VPERM2F128(U8(0x20), c[i+4], c[i], lo)
		g.VPERM2F128(U8(0x31), c[i+4], c[i], hi)
		out(i, lo)
		out(i+4, hi)
	}
	g.ADDQ(g.param("sstep"), src)
	g.ADDQ(g.param("dstep"), dst)
	g.DECQ(n)
	g.JNZ(LabelRef("block"))
	g.end()
}
