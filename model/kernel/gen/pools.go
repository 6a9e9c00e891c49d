package main

import (
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Offsets in poolArgs; the first eight are those of depthArgs too.
const (
	pN = 8 * iota
	pC
	pKW
	pKH
	pX
	pXS
	pXW
	pXH
	pY
	pYS
	pDY
	pDX
	pFlags
	pScale
)

// taps emits the loops over kernel rows and columns around body, which sees the address of the current tap in w.cur; w.row
// is where the row of taps begins, at first the window's first element. afterRow, if any, runs after each row. The counts
// must not be zero.
func (g *isa) taps(p reg.GPVirtual, w walker, body func(), afterRow ...func()) {
	kh, kw := g.field(p, pKH), g.GP64()
	rowTop, colTop := g.label("kh"), g.label("kw")
	g.Label(rowTop)
	g.MOVQ(Mem{Base: p, Disp: pKW}, kw)
	g.MOVQ(w.row, w.cur)
	g.Label(colTop)
	body()
	g.ADDQ(Mem{Base: p, Disp: w.w}, w.cur)
	g.DECQ(kw)
	g.JNZ(LabelRef(colTop))
	g.ADDQ(Mem{Base: p, Disp: w.h}, w.row)
	for _, f := range afterRow {
		f()
	}
	g.DECQ(kh)
	g.JNZ(LabelRef(rowTop))
}

// walker steps over taps: cur and row advance by the words at offsets w and h of the arguments.
type walker struct {
	row, cur reg.GPVirtual
	w, h     int
}

// at makes a pointer: the word at p+field plus off.
func (g *isa) atField(p reg.GPVirtual, field int, off reg.GPVirtual) reg.GPVirtual {
	r := g.GP64()
	g.MOVQ(Mem{Base: p, Disp: field}, r)
	g.ADDQ(off, r)
	return r
}

// pixels emits a loop over the n output pixels; the pointers in x advance by xs, those in y by ys.
func (g *isa) pixels(p reg.GPVirtual, x, y []reg.GPVirtual, body func()) {
	n, top := g.field(p, pN), g.label("pixel")
	g.Label(top)
	body()
	for _, r := range x {
		g.ADDQ(Mem{Base: p, Disp: pXS}, r)
	}
	for _, r := range y {
		g.ADDQ(Mem{Base: p, Disp: pYS}, r)
	}
	g.DECQ(n)
	g.JNZ(LabelRef(top))
}

func (g *isa) pools() {
	g.pool("maxPool", "takes the maximum of every window.", true)
	g.pool("avgPool", "takes the scaled sum of every window.", false)
	g.maxPool2()
	g.maxPoolGrad("maxPoolGrad", false)
	g.maxPoolGrad("maxPoolGrad2", true)
	g.avgPoolGrad()
}

func (g *isa) pool(name, doc string, isMax bool) {
	g.fn(name, "(p *poolArgs)", doc)
	p := g.arg("p")
	g.strips(g.field(p, pC), []int{4, 2, 1}, func(u int, off reg.GPVirtual, t *tail) {
		x, y := g.atField(p, pX, off), g.atField(p, pY, off)
		g.pixels(p, []reg.GPVirtual{x}, []reg.GPVirtual{y}, func() {
			acc, v := g.vecs(u), g.vec()
			for j := range acc {
				if isMax {
					g.load(g.disp(x, j), acc[j], t)
				} else {
					g.zero(acc[j])
				}
			}
			row, cur := g.GP64(), g.GP64()
			g.MOVQ(x, row)
			g.taps(p, walker{row, cur, pXW, pXH}, func() {
				for j := range acc {
					if isMax {
						g.load(g.disp(cur, j), v, t)
						g.VMAXPS(v, acc[j], acc[j])
					} else {
						g.add(g.disp(cur, j), acc[j], v, t)
					}
				}
			})
			if !isMax {
				g.VBROADCASTSS(Mem{Base: p, Disp: pScale}, v)
			}
			for j := range acc {
				if !isMax {
					g.VMULPS(v, acc[j], acc[j])
				}
				g.store(acc[j], g.disp(y, j), t)
			}
		})
	})
}

// maxPool2 is maxPool for windows of 2 by 2.
func (g *isa) maxPool2() {
	g.fn("maxPool2", "(p *poolArgs)", "takes the maximum of every 2 by 2 window.")
	p := g.arg("p")
	g.strips(g.field(p, pC), []int{4, 2, 1}, func(u int, off reg.GPVirtual, t *tail) {
		x, y, low := g.atField(p, pX, off), g.atField(p, pY, off), g.GP64()
		g.MOVQ(x, low)
		g.ADDQ(Mem{Base: p, Disp: pXH}, low)
		xw := g.field(p, pXW)
		g.pixels(p, []reg.GPVirtual{x, low}, []reg.GPVirtual{y}, func() {
			for j := range u {
				acc, v := g.vec(), g.vec()
				g.load(g.disp(x, j), acc, t)
				for _, m := range []Mem{{Base: x, Index: xw, Scale: 1}, {Base: low}, {Base: low, Index: xw, Scale: 1}} {
					m.Disp = j * g.bytes()
					g.load(m, v, t)
					g.VMAXPS(v, acc, acc)
				}
				g.store(acc, g.disp(y, j), t)
			}
		})
	})
}

// maxPoolGrad gives the gradient to the first element of a window that equals the maximum. The simple form is for
// windows of 2 by 2 that do not overlap: it stores without reading.
func (g *isa) maxPoolGrad(name string, simple bool) {
	doc := "gives dy to the first element of its window that equals y."
	if simple {
		doc = "is maxPoolGrad for 2 by 2 windows that do not overlap."
	}
	g.fn(name, "(p *poolArgs)", doc)
	p := g.arg("p")
	zero := g.vec()
	g.zero(zero)
	g.strips(g.field(p, pC), []int{1}, func(_ int, off reg.GPVirtual, t *tail) {
		x, y, dy := g.atField(p, pX, off), g.atField(p, pY, off), g.atField(p, pDY, off)
		toDX := g.field(p, pDX) // from an element of x to that of dx
		g.SUBQ(Mem{Base: p, Disp: pX}, toDX)
		g.pixels(p, []reg.GPVirtual{x}, []reg.GPVirtual{y, dy}, func() {
			m, d := g.vec(), g.vec()
			g.load(Mem{Base: y}, m, t)
			g.load(Mem{Base: dy}, d, t)
			all := g.label("all")
			g.TESTQ(U32(flagReLU), Mem{Base: p, Disp: pFlags})
			g.JZ(LabelRef(all))
			g.where(cmpLT, zero, m, d, d)
			g.Label(all)
			if simple {
				g.grad2x2(p, x, toDX, m, d, t)
				return
			}
			row, cur := g.GP64(), g.GP64()
			g.MOVQ(x, row)
			g.taps(p, walker{row, cur, pXW, pXH}, func() {
				o := g.takeEqual(Mem{Base: cur}, m, d, t)
				fresh, v := g.label("fresh"), g.vec()
				out := Mem{Base: cur, Index: toDX, Scale: 1}
				g.TESTQ(U32(flagAccumulate), Mem{Base: p, Disp: pFlags})
				g.JZ(LabelRef(fresh))
				g.add(out, o, v, t)
				g.Label(fresh)
				g.store(o, out, t)
			})
		})
	})
}

// takeEqual returns d in lanes where the operand equals m, and clears those lanes of d.
func (g *isa) takeEqual(x Mem, m, d reg.VecVirtual, t *tail) reg.VecVirtual {
	v, o := g.vec(), g.vec()
	g.load(x, v, t)
	if g.bits == 512 {
		k := g.K()
		g.VCMPPS(U8(cmpEQ), v, m, k)
		g.VMOVAPS_Z(d, k, o)
		g.VPXORD(d, d, k, d)
		return o
	}
	g.VCMPPS(U8(cmpEQ), v, m, v)
	g.VANDPS(v, d, o)
	g.VANDNPS(d, v, d)
	return o
}

// grad2x2 handles the four elements of a window at x, whose gradients lie toDX bytes away.
func (g *isa) grad2x2(p, x, toDX reg.GPVirtual, m, d reg.VecVirtual, t *tail) {
	q := g.GP64()
	one := func() { g.store(g.takeEqual(Mem{Base: q}, m, d, t), Mem{Base: q, Index: toDX, Scale: 1}, t) }
	g.MOVQ(x, q)
	one()
	g.ADDQ(Mem{Base: p, Disp: pXW}, q)
	one()
	g.MOVQ(x, q)
	g.ADDQ(Mem{Base: p, Disp: pXH}, q)
	one()
	g.ADDQ(Mem{Base: p, Disp: pXW}, q)
	one()
}

func (g *isa) avgPoolGrad() {
	g.fn("avgPoolGrad", "(p *poolArgs)", "adds the scaled dy to every element of its window.")
	p := g.arg("p")
	scale := g.broadcast(Mem{Base: p, Disp: pScale})
	g.strips(g.field(p, pC), []int{2, 1}, func(u int, off reg.GPVirtual, t *tail) {
		dx, dy := g.atField(p, pDX, off), g.atField(p, pDY, off)
		g.pixels(p, []reg.GPVirtual{dx}, []reg.GPVirtual{dy}, func() {
			d, v := g.vecs(u), g.vec()
			for j := range d {
				g.load(g.disp(dy, j), d[j], t)
				g.VMULPS(scale, d[j], d[j])
			}
			row, cur := g.GP64(), g.GP64()
			g.MOVQ(dx, row)
			g.taps(p, walker{row, cur, pXW, pXH}, func() {
				for j := range d {
					g.load(g.disp(cur, j), v, t)
					g.VADDPS(d[j], v, v)
					g.store(v, g.disp(cur, j), t)
				}
			})
		})
	})
}
