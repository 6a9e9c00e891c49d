package main

import (
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Offsets in depthArgs past those it shares with poolArgs.
const (
	dW = 8 * (iota + 8)
	dWW
	dWJ
	dY
	dYS
	dFlags
	dBias
)

// Offsets in rowsArgs.
const (
	rM = 8 * iota
	rN
	rC
	rX
	rXM
	rXN
	rY
	rYM
	rYN
	rZ
)

func (g *isa) depthwise() {
	g.depth()
	g.depth3()
	g.depthPlane()
	g.depthGrad()
	g.depthBack()
}

// depth emits the depthwise convolution: strips of channels, four pixels at a time, then single ones.
func (g *isa) depth() {
	g.fn("depth", "(p *depthArgs)", "is a depthwise convolution of a line of pixels; see depthArgs.")
	p := g.arg("p")
	sizes := []int{4, 2, 1}
	if g.bits == 256 {
		sizes = []int{2, 1}
	}
	g.strips(g.field(p, pC), sizes, func(u int, off reg.GPVirtual, t *tail) {
		x, y, n := g.atField(p, pX, off), g.atField(p, dY, off), g.field(p, pN)
		for _, px := range []int{4, 1} {
			top, next := g.label("pixels"), g.label("fewer")
			g.Label(top)
			g.CMPQ(n, U8(px))
			g.JL(LabelRef(next))
			acc := g.depthTaps(p, x, off, px, u, t)
			g.depthEpilogue(p, y, off, acc, t)
			g.depthAdvance(p, x, y, px)
			g.SUBQ(U8(px), n)
			g.JMP(LabelRef(top))
			g.Label(next)
		}
	})
}

// depth3 is depth for 3 by 3 taps: the nine weights of a strip stay in registers.
func (g *isa) depth3() {
	g.fn("depthNine", "(p *depthArgs)", "is depth for 3 by 3 taps.")
	p := g.arg("p")
	g.strips(g.field(p, pC), []int{1}, func(_ int, off reg.GPVirtual, t *tail) {
		w, at := g.vecs(9), g.atField(p, dW, off)
		for i := range w {
			g.load(Mem{Base: at}, w[i], t)
			if i < 8 {
				g.ADDQ(Mem{Base: p, Disp: dWW}, at)
			}
			if i%3 == 2 && i < 8 {
				g.ADDQ(Mem{Base: p, Disp: dWJ}, at)
			}
		}
		x, y, n := g.atField(p, pX, off), g.atField(p, dY, off), g.field(p, pN)
		for _, px := range []int{4, 2, 1} {
			top, next := g.label("pixels"), g.label("fewer")
			g.Label(top)
			g.CMPQ(n, U8(px))
			g.JL(LabelRef(next))
			acc := make([][]reg.VecVirtual, px)
			for i := range acc {
				acc[i] = g.vecs(1)
				g.zero(acc[i][0])
			}
			st := g.multiples(g.field(p, pXS), px)
			row, cur, tmp := g.GP64(), g.GP64(), g.vec()
			g.MOVQ(x, row)
			for k := range w {
				if k%3 == 0 {
					g.MOVQ(row, cur)
				}
				for i := range acc {
					g.fma(rowMem(cur, st, i), w[k], acc[i][0], tmp, t)
				}
				if k%3 < 2 {
					g.ADDQ(Mem{Base: p, Disp: pXW}, cur)
				} else if k < 8 {
					g.ADDQ(Mem{Base: p, Disp: pXH}, row)
				}
			}
			g.depthEpilogue(p, y, off, acc, t)
			g.depthAdvance(p, x, y, px)
			g.SUBQ(U8(px), n)
			g.JMP(LabelRef(top))
			g.Label(next)
		}
	})
}

// depthAdvance moves on by px pixels.
func (g *isa) depthAdvance(p, x, y reg.GPVirtual, px int) {
	step := g.GP64()
	g.MOVQ(Mem{Base: p, Disp: pXS}, step)
	g.LEAQ(Mem{Base: x, Index: step, Scale: uint8(px)}, x)
	g.MOVQ(Mem{Base: p, Disp: dYS}, step)
	g.LEAQ(Mem{Base: y, Index: step, Scale: uint8(px)}, y)
}

func (g *isa) depthTaps(p, x, off reg.GPVirtual, px, u int, t *tail) [][]reg.VecVirtual {
	acc := make([][]reg.VecVirtual, px)
	for i := range acc {
		acc[i] = g.vecs(u)
		for _, v := range acc[i] {
			g.zero(v)
		}
	}
	empty := g.label("empty")
	g.CMPQ(Mem{Base: p, Disp: pKH}, U8(0))
	g.JE(LabelRef(empty))
	st := g.multiples(g.field(p, pXS), px)
	row, cur, wcur := g.GP64(), g.GP64(), g.atField(p, dW, off)
	g.MOVQ(x, row)
	g.taps(p, walker{row, cur, pXW, pXH}, func() {
		w, tmp := g.vec(), g.vec()
		for j := range u {
			g.load(g.disp(wcur, j), w, t)
			for i := range px {
				m := rowMem(cur, st, i)
				m.Disp = j * g.bytes()
				g.fma(m, w, acc[i][j], tmp, t)
			}
		}
		g.ADDQ(Mem{Base: p, Disp: dWW}, wcur)
	}, func() { g.ADDQ(Mem{Base: p, Disp: dWJ}, wcur) })
	g.Label(empty)
	return acc
}

func (g *isa) depthEpilogue(p, y, off reg.GPVirtual, acc [][]reg.VecVirtual, t *tail) {
	tmp := g.vec()
	nobias, fresh := g.label("nobias"), g.label("fresh")
	bias := g.field(p, dBias)
	g.TESTQ(bias, bias)
	g.JZ(LabelRef(nobias))
	g.ADDQ(off, bias)
	for j := range acc[0] {
		g.load(g.disp(bias, j), tmp, t)
		for i := range acc {
			g.VADDPS(tmp, acc[i][j], acc[i][j])
		}
	}
	g.Label(nobias)
	st := g.multiples(g.field(p, dYS), len(acc))
	cell := func(i, j int) Mem {
		m := rowMem(y, st, i)
		m.Disp = j * g.bytes()
		return m
	}
	g.TESTQ(U32(flagAccumulate), Mem{Base: p, Disp: dFlags})
	g.JZ(LabelRef(fresh))
	var all []reg.VecVirtual
	for i := range acc {
		for j := range acc[i] {
			g.add(cell(i, j), acc[i][j], tmp, t)
			all = append(all, acc[i][j])
		}
	}
	g.Label(fresh)
	g.activate(g.field(p, dFlags), all, tmp)
	for i := range acc {
		for j := range acc[i] {
			g.store(acc[i][j], cell(i, j), t)
		}
	}
}

// grid emits the loops over an m by n grid of x and y around body.
func (g *isa) grid(p, off reg.GPVirtual, body func(x, y reg.GPVirtual)) {
	xr, yr, m, n := g.atField(p, rX, off), g.atField(p, rY, off), g.field(p, rM), g.GP64()
	x, y := g.GP64(), g.GP64()
	xn, yn := g.field(p, rXN), g.field(p, rYN)
	rows, cols := g.label("rows"), g.label("cols")
	g.Label(rows)
	g.MOVQ(xr, x)
	g.MOVQ(yr, y)
	g.MOVQ(Mem{Base: p, Disp: rN}, n)
	g.Label(cols)
	body(x, y)
	g.ADDQ(xn, x)
	g.ADDQ(yn, y)
	g.DECQ(n)
	g.JNZ(LabelRef(cols))
	g.ADDQ(Mem{Base: p, Disp: rXM}, xr)
	g.ADDQ(Mem{Base: p, Disp: rYM}, yr)
	g.DECQ(m)
	g.JNZ(LabelRef(rows))
}

func (g *isa) depthGrad() {
	g.fn("depthGrad", "(p *rowsArgs)", "adds the sum of x*y over a grid of pixels to z.")
	p := g.arg("p")
	g.strips(g.field(p, rC), []int{4, 2, 1}, func(u int, off reg.GPVirtual, t *tail) {
		acc, v, w := g.vecs(u), g.vec(), g.vec()
		for j := range acc {
			g.zero(acc[j])
		}
		g.grid(p, off, func(x, y reg.GPVirtual) {
			for j := range acc {
				g.load(g.disp(x, j), v, t)
				g.fma(g.disp(y, j), v, acc[j], w, t)
			}
		})
		z := g.atField(p, rZ, off)
		for j := range acc {
			g.add(g.disp(z, j), acc[j], v, t)
			g.store(acc[j], g.disp(z, j), t)
		}
	})
}

func (g *isa) depthBack() {
	g.fn("depthBack", "(p *rowsArgs)", "adds y*z to x for every pixel of a grid.")
	p := g.arg("p")
	g.strips(g.field(p, rC), []int{4, 2, 1}, func(u int, off reg.GPVirtual, t *tail) {
		z := g.stripVecs(g.field(p, rZ), off, u, t)
		v, w := g.vec(), g.vec()
		g.grid(p, off, func(x, y reg.GPVirtual) {
			for j := range z {
				g.load(g.disp(x, j), v, t)
				g.fma(g.disp(y, j), z[j], v, w, t)
				g.store(v, g.disp(x, j), t)
			}
		})
	})
}
