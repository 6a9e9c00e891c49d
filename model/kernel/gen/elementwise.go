package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// each emits a loop over n elements in steps of a vector, with a masked rest. body gets the operand of a pointer.
func (g *isa) each(n reg.GPVirtual, body func(at func(reg.GPVirtual) Mem, t *tail)) {
	i, next := g.GP64(), g.GP64()
	g.XORQ(i, i)
	at := func(p reg.GPVirtual) Mem { return Mem{Base: p, Index: i, Scale: 4} }
	lanes := g.bytes() / 4
	g.Label("loop")
	g.LEAQ(Mem{Base: i, Disp: lanes}, next)
	g.CMPQ(next, n)
	g.JG(LabelRef("rest"))
	body(at, nil)
	g.MOVQ(next, i)
	g.JMP(LabelRef("loop"))
	g.Label("rest")
	g.SUBQ(i, n)
	g.JZ(LabelRef("end"))
	body(at, g.mask(n))
	g.Label("end")
	g.end()
}

func (g *isa) broadcast(m Mem) reg.VecVirtual {
	v := g.vec()
	g.VBROADCASTSS(m, v)
	return v
}

func (g *isa) param(name string) Mem {
	b, err := g.Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	return b.Addr
}

func (g *isa) elementwise() {
	g.fn("add", "(dst, a, b ptr, n int, flags uint64)", "computes dst = act(a + b).")
	dst, a, b, n, flags := g.arg("dst"), g.arg("a"), g.arg("b"), g.arg("n"), g.arg("flags")
	g.each(n, func(at func(reg.GPVirtual) Mem, t *tail) {
		v, w := g.vec(), g.vec()
		g.load(at(a), v, t)
		g.add(at(b), v, w, t)
		g.activate(flags, []reg.VecVirtual{v}, w)
		g.store(v, at(dst), t)
	})

	g.fn("axpy", "(alpha float32, x, y ptr, n int)", "computes y += alpha*x.")
	alpha := g.broadcast(g.param("alpha"))
	x, y, n := g.arg("x"), g.arg("y"), g.arg("n")
	g.each(n, func(at func(reg.GPVirtual) Mem, t *tail) {
		v, w := g.vec(), g.vec()
		g.load(at(y), v, t)
		g.fma(at(x), alpha, v, w, t)
		g.store(v, at(y), t)
	})

	g.fn("scale", "(alpha float32, x ptr, n int)", "computes x *= alpha.")
	alpha = g.broadcast(g.param("alpha"))
	x, n = g.arg("x"), g.arg("n")
	g.each(n, func(at func(reg.GPVirtual) Mem, t *tail) {
		v := g.vec()
		g.load(at(x), v, t)
		g.VMULPS(v, alpha, v)
		g.store(v, at(x), t)
	})

	g.fn("relu", "(dst, x ptr, n int, flags uint64)", "computes dst = act(x).")
	dst, x, n, flags = g.arg("dst"), g.arg("x"), g.arg("n"), g.arg("flags")
	g.each(n, func(at func(reg.GPVirtual) Mem, t *tail) {
		v := g.vec()
		g.load(at(x), v, t)
		g.activate(flags, []reg.VecVirtual{v}, g.vec())
		g.store(v, at(dst), t)
	})
	g.reluGrad()
	g.dropout()
	g.sgd()
	g.adam()
}

func (g *isa) reluGrad() {
	g.fn("reluGrad", "(dst, y, dy ptr, n int, flags uint64)", "passes dy where 0 < y (< 6 with ReLU6), else 0.")
	dst, y, dy, n, flags := g.arg("dst"), g.arg("y"), g.arg("dy"), g.arg("n"), g.arg("flags")
	zero, six := g.vec(), g.broadcast(g.six)
	g.zero(zero)
	g.each(n, func(at func(reg.GPVirtual) Mem, t *tail) {
		v, d := g.vec(), g.vec()
		g.load(at(y), v, t)
		g.load(at(dy), d, t)
		g.where(cmpLT, zero, v, d, d)
		done := g.label("relu")
		g.TESTQ(U32(flagReLU6), flags)
		g.JZ(LabelRef(done))
		g.where(cmpLT, v, six, d, d)
		g.Label(done)
		g.store(d, at(dst), t)
	})
}

// ints broadcasts a constant of 32 bits.
func (g *isa) ints(v uint32) reg.VecVirtual {
	x, r := g.GP32(), g.vec()
	g.MOVL(U32(v), x)
	g.VMOVD(x, r.AsX())
	g.VPBROADCASTD(r.AsX(), r)
	return r
}

func (g *isa) xorShift(v, tmp reg.VecVirtual, by uint8) {
	g.VPSRLD(U8(by), v, tmp)
	if g.bits == 512 {
		g.VPXORD(tmp, v, v)
	} else {
		g.VPXOR(tmp, v, v)
	}
}

// dropout hashes counters of 32 bits, one per element; see genericDropout.
func (g *isa) dropout() {
	g.lanes = g.StaticGlobal(fmt.Sprintf("lanes%d", g.bits))
	g.DataAttributes(attr.RODATA | attr.NOPTR)
	lanes := g.bytes() / 4
	for i := range lanes {
		g.AddDatum(4*i, U32(uint32(i)*dropoutStep))
	}
	g.fn("dropout", "(dst, src ptr, n int, h *[4]uint32)", "zeroes some elements and scales the others; see genericDropout.")
	dst, src, n, hp := g.arg("dst"), g.arg("src"), g.arg("n"), g.arg("h")
	word := func(i int) reg.VecVirtual {
		v := g.vec()
		g.VPBROADCASTD(Mem{Base: hp, Disp: 4 * i}, v)
		return v
	}
	counter, second, limit, scale := word(0), word(1), word(2), g.broadcast(Mem{Base: hp, Disp: 12})
	g.VPADDD(g.lanes, counter, counter)
	step, m1, m2 := g.ints(uint32(lanes*dropoutStep%(1<<32))), g.ints(dropoutMul1), g.ints(dropoutMul2)
	g.each(n, func(at func(reg.GPVirtual) Mem, t *tail) {
		x, tmp, v := g.vec(), g.vec(), g.vec()
		g.load(at(src), v, t)
		g.VMULPS(v, scale, v)
		g.VMOVAPS(counter, x)
		g.xorShift(x, tmp, 16)
		g.VPMULLD(m1, x, x)
		g.VPADDD(second, x, x)
		g.xorShift(x, tmp, 13)
		g.VPMULLD(m2, x, x)
		g.xorShift(x, tmp, 16)
		g.VPSRLD(U8(1), x, x)
		if g.bits == 512 {
			k := g.K()
			g.VPCMPGTD(limit, x, k)
			g.VMOVAPS_Z(v, k, v)
		} else {
			g.VPCMPGTD(limit, x, x)
			g.VANDPS(x, v, v)
		}
		g.store(v, at(dst), t)
		g.VPADDD(step, counter, counter)
	})
}

// Constants of genericDropout.
const (
	dropoutStep = 0x9e3779b9
	dropoutMul1 = 0x85ebca6b
	dropoutMul2 = 0xc2b2ae35
)

// regularised leaves g' = g*scale + decay*w + l1*sign(w) in d; h holds scale, decay, l1.
func (g *isa) regularised(d, w reg.VecVirtual, h []reg.VecVirtual, zero reg.VecVirtual) {
	s := g.vec()
	g.VMULPS(d, h[0], d)
	g.VFMADD231PS(w, h[1], d)
	g.where(cmpLT, zero, w, h[2], s)
	g.VADDPS(s, d, d)
	g.where(cmpLT, w, zero, h[2], s)
	g.VSUBPS(s, d, d)
}

func (g *isa) sgd() {
	g.fn("sgd", "(w, v, grad ptr, n int, h *[6]float32)", "is one step of SGD; see genericSGD.")
	w, v, gr, n, hp := g.arg("w"), g.arg("v"), g.arg("grad"), g.arg("n"), g.arg("h")
	h := make([]reg.VecVirtual, 6)
	for i := range h {
		h[i] = g.broadcast(Mem{Base: hp, Disp: 4 * i})
	}
	zero := g.vec()
	g.zero(zero)
	g.each(n, func(at func(reg.GPVirtual) Mem, t *tail) {
		d, x, m := g.vec(), g.vec(), g.vec()
		g.load(at(gr), d, t)
		g.load(at(w), x, t)
		g.load(at(v), m, t)
		g.regularised(d, x, h, zero)
		g.VFMADD213PS(d, h[3], m)
		g.store(m, at(v), t)
		g.VMULPS(m, h[4], m)
		g.VFMADD231PS(d, h[5], m)
		g.VSUBPS(m, x, x)
		g.store(x, at(w), t)
	})
}

func (g *isa) adam() {
	g.fn("adam", "(w, m, v, grad ptr, n int, h *[11]float32)", "is one step of Adam; see genericAdam.")
	w, m, v, gr, n, hp := g.arg("w"), g.arg("m"), g.arg("v"), g.arg("grad"), g.arg("n"), g.arg("h")
	bcast := func(i int) reg.VecVirtual { return g.broadcast(Mem{Base: hp, Disp: 4 * i}) }
	// With 16 registers only the constants of the gradient stay in registers.
	h := []reg.VecVirtual{bcast(0), bcast(1), bcast(2)}
	zero := g.vec()
	g.zero(zero)
	g.each(n, func(at func(reg.GPVirtual) Mem, t *tail) {
		d, x, a, b := g.vec(), g.vec(), g.vec(), g.vec()
		g.load(at(gr), d, t)
		g.load(at(w), x, t)
		g.load(at(m), a, t)
		g.load(at(v), b, t)
		g.regularised(d, x, h, zero)
		g.VMULPS(a, bcast(3), a)
		g.VFMADD231PS(d, bcast(4), a)
		g.store(a, at(m), t)
		g.VMULPS(d, d, d)
		g.VMULPS(b, bcast(5), b)
		g.VFMADD231PS(d, bcast(6), b)
		g.store(b, at(v), t)
		g.VSQRTPS(b, b)
		g.VFMADD213PS(bcast(9), bcast(8), b)
		g.VMULPS(a, bcast(7), a)
		g.VDIVPS(b, a, a)
		g.VMULPS(x, bcast(10), x)
		g.VSUBPS(a, x, x)
		g.store(x, at(w), t)
	})
}
