package main

import (
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Offsets in planeArgs.
const (
	lN = 8 * iota
	lLines
	lC
	lX
	lY
	lS
	lL
	lW
	lWS
	lWL
	lFlags
	lBias
)

// plane is what the lines of an image share.
type plane struct {
	p, s, l, flags reg.GPVirtual
	w              [3][3]reg.VecVirtual // by tap along the line, then across lines
	init           reg.VecVirtual       // the bias, or zero
	acc, x         []reg.VecVirtual
	cur, out       reg.GPVirtual
}

// depthPlane emits the depthwise convolution of a whole image by 3 by 3 taps with a border of one pixel. Going along a
// line, every input is loaded once and goes into the three results that it reaches; the nine weights of a vector of
// channels stay in registers.
func (g *isa) depthPlane() {
	g.fn("depthPlane", "(p *planeArgs)", "is a depthwise convolution of an image; see planeArgs. Channels fill vectors.")
	p := g.arg("p")
	d := &plane{p: p, s: g.field(p, lS), l: g.field(p, lL), flags: g.field(p, lFlags), init: g.vec(), acc: g.vecs(3), x: g.vecs(3),
		cur: g.GP64(), out: g.GP64()}
	off := g.GP64()
	g.XORQ(off, off)
	strip := g.label("strip")
	g.Label(strip)
	g.planeWeights(d, off)
	x, y, m := g.atField(p, lX, off), g.atField(p, lY, off), g.GP64()
	line := func(k0, k1 int) {
		g.MOVQ(x, d.cur)
		g.MOVQ(y, d.out)
		g.planeLine(d, k0, k1)
	}
	only, middle, last, done := g.label("only"), g.label("middle"), g.label("last"), g.label("done")
	g.MOVQ(Mem{Base: p, Disp: lLines}, m)
	g.CMPQ(m, U8(1))
	g.JE(LabelRef(only))
	line(1, 3)
	g.ADDQ(d.l, y)
	g.SUBQ(U8(2), m)
	g.JZ(LabelRef(last))
	g.Label(middle)
	line(0, 3)
	g.ADDQ(d.l, x)
	g.ADDQ(d.l, y)
	g.DECQ(m)
	g.JNZ(LabelRef(middle))
	g.Label(last)
	line(0, 2)
	g.JMP(LabelRef(done))
	g.Label(only)
	line(1, 2)
	g.Label(done)
	g.ADDQ(U32(g.bytes()), off)
	end := g.field(p, lC)
	g.SHLQ(U8(2), end)
	g.CMPQ(off, end)
	g.JL(LabelRef(strip))
	g.end()
}

// planeWeights loads the weights and the bias of a strip.
func (g *isa) planeWeights(d *plane, off reg.GPVirtual) {
	for k := range 3 {
		at := g.atField(d.p, lW, off)
		for range k {
			g.ADDQ(Mem{Base: d.p, Disp: lWL}, at)
		}
		for t := range 3 {
			d.w[t][k] = g.vec()
			g.load(Mem{Base: at}, d.w[t][k], nil)
			g.ADDQ(Mem{Base: d.p, Disp: lWS}, at)
		}
	}
	nobias, bias := g.label("nobias"), g.field(d.p, lBias)
	g.zero(d.init)
	g.TESTQ(bias, bias)
	g.JZ(LabelRef(nobias))
	g.ADDQ(off, bias)
	g.load(Mem{Base: bias}, d.init, nil)
	g.Label(nobias)
}

// planeLine emits a line of at least two pixels that sees taps [k0, k1) across lines. cur points at the first pixel of the
// first of these lines.
func (g *isa) planeLine(d *plane, k0, k1 int) {
	// acc[t] gathers the result that sees the current pixel by tap t along the line.
	products := func(taps ...int) {
		for k := k0; k < k1; k++ {
			m := Mem{Base: d.cur}
			if k > k0 {
				m.Index, m.Scale = d.l, uint8(k-k0)
			}
			g.load(m, d.x[k], nil)
			for _, t := range taps {
				g.VFMADD231PS(d.x[k], d.w[t][k], d.acc[t])
			}
		}
		g.ADDQ(d.s, d.cur)
	}
	top, end := g.label("pixel"), g.label("end")
	g.VMOVAPS(d.init, d.acc[1])
	g.VMOVAPS(d.init, d.acc[0])
	products(1, 0)
	n := g.field(d.p, lN)
	g.SUBQ(U8(2), n)
	g.JZ(LabelRef(end))
	g.Label(top)
	g.VMOVAPS(d.acc[1], d.acc[2])
	g.VMOVAPS(d.acc[0], d.acc[1])
	g.VMOVAPS(d.init, d.acc[0])
	products(2, 1, 0)
	g.planeStore(d, d.acc[2])
	g.DECQ(n)
	g.JNZ(LabelRef(top))
	g.Label(end)
	g.VMOVAPS(d.acc[1], d.acc[2])
	g.VMOVAPS(d.acc[0], d.acc[1])
	products(2, 1)
	g.planeStore(d, d.acc[2])
	g.planeStore(d, d.acc[1])
}

// planeStore finishes a result.
func (g *isa) planeStore(d *plane, acc reg.VecVirtual) {
	fresh := g.label("fresh")
	g.TESTQ(U32(flagAccumulate), d.flags)
	g.JZ(LabelRef(fresh))
	g.VADDPS(Mem{Base: d.out}, acc, acc)
	g.Label(fresh)
	g.activate(d.flags, []reg.VecVirtual{acc}, d.x[0])
	g.store(acc, Mem{Base: d.out}, nil)
	g.ADDQ(d.s, d.out)
}
