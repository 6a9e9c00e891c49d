package main

import (
	. "github.com/mmcloughlin/avo/operand"
)

// peakSums is how many independent sums the measurement of the peak keeps; enough to hide the latency of an addition.
const peakSums = 12

// peak emits n rounds of multiplications and additions in registers alone.
func (g *isa) peak() {
	g.fn("peak", "(n int)", "runs n rounds of 12 independent fused multiplications and additions.")
	n := g.arg("n")
	acc := g.vecs(peakSums)
	for _, v := range acc {
		g.zero(v)
	}
	x := g.vec()
	g.zero(x)
	g.Label("loop")
	for _, v := range acc {
		g.VFMADD231PS(x, x, v)
	}
	g.DECQ(n)
	g.JNZ(LabelRef("loop"))
	g.end()
}
