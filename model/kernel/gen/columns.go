package main

import (
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// strips emits body for strips of channels: as many vectors at a time as sizes says, largest first, then a masked rest.
// off is the byte offset of the strip.
func (g *isa) strips(c reg.GPVirtual, sizes []int, body func(u int, off reg.GPVirtual, t *tail)) {
	off, end := g.GP64(), c
	g.XORQ(off, off)
	g.SHLQ(U8(2), end)
	for _, u := range sizes {
		top, next := g.label("strip"), g.label("narrower")
		g.Label(top)
		to := g.GP64()
		g.LEAQ(Mem{Base: off, Disp: u * g.bytes()}, to)
		g.CMPQ(to, end)
		g.JG(LabelRef(next))
		body(u, off, nil)
		g.ADDQ(U32(u*g.bytes()), off)
		g.JMP(LabelRef(top))
		g.Label(next)
	}
	done := g.label("done")
	left := g.GP64()
	g.MOVQ(end, left)
	g.SUBQ(off, left)
	g.JZ(LabelRef(done))
	g.SHRQ(U8(2), left)
	body(1, off, g.mask(left))
	g.Label(done)
	g.end()
}

// column makes a pointer to a strip: base + off.
func (g *isa) column(base, off reg.GPVirtual) reg.GPVirtual {
	r := g.GP64()
	g.LEAQ(Mem{Base: base, Index: off, Scale: 1}, r)
	return r
}

// disp addresses vector j at a pointer.
func (g *isa) disp(p reg.Register, j int) Mem { return Mem{Base: p, Disp: j * g.bytes()} }

// perRow emits a loop over rows; all pointers in ps advance by stride.
func (g *isa) perRow(rows reg.Register, stride reg.GPVirtual, ps []reg.GPVirtual, body func()) {
	n, top := g.GP64(), g.label("row")
	g.MOVQ(rows, n)
	g.Label(top)
	body()
	for _, p := range ps {
		g.ADDQ(stride, p)
	}
	g.DECQ(n)
	g.JNZ(LabelRef(top))
}

// stripVecs loads u vectors at base + off.
func (g *isa) stripVecs(base, off reg.GPVirtual, u int, t *tail) []reg.VecVirtual {
	v := g.vecs(u)
	for j := range v {
		g.load(Mem{Base: base, Index: off, Scale: 1, Disp: j * g.bytes()}, v[j], t)
	}
	return v
}

func (g *isa) rowStride(c reg.GPVirtual) reg.GPVirtual {
	s := g.GP64()
	g.MOVQ(c, s)
	g.SHLQ(U8(2), s)
	return s
}

func (g *isa) columns() {
	wide := []int{4, 2, 1}
	g.fn("colSum", "(x, out ptr, rows, c int)", "adds the rows of x to out, in order.")
	x, out, rows, c := g.arg("x"), g.arg("out"), g.arg("rows"), g.arg("c")
	stride := g.rowStride(c)
	g.strips(c, wide, func(u int, off reg.GPVirtual, t *tail) {
		acc, p, tmp := g.stripVecs(out, off, u, t), g.column(x, off), g.vec()
		g.perRow(rows, stride, []reg.GPVirtual{p}, func() {
			for j := range acc {
				g.add(g.disp(p, j), acc[j], tmp, t)
			}
		})
		o := g.column(out, off)
		for j := range acc {
			g.store(acc[j], g.disp(o, j), t)
		}
	})

	g.fn("colSqDev", "(x, mean, out ptr, rows, c int)", "adds (x-mean)² of every row to out.")
	x, mean, out, rows, c := g.arg("x"), g.arg("mean"), g.arg("out"), g.arg("rows"), g.arg("c")
	stride = g.rowStride(c)
	g.strips(c, wide, func(u int, off reg.GPVirtual, t *tail) {
		acc, mu, p := g.stripVecs(out, off, u, t), g.stripVecs(mean, off, u, t), g.column(x, off)
		g.perRow(rows, stride, []reg.GPVirtual{p}, func() {
			for j := range acc {
				v := g.vec()
				g.load(g.disp(p, j), v, t)
				g.VSUBPS(mu[j], v, v)
				g.VFMADD231PS(v, v, acc[j])
			}
		})
		o := g.column(out, off)
		for j := range acc {
			g.store(acc[j], g.disp(o, j), t)
		}
	})

	g.fn("colDot", "(x, mean, dy, out ptr, rows, c int)", "adds (x-mean)·dy of every row to out.")
	x, mean, dy, out, rows, c := g.arg("x"), g.arg("mean"), g.arg("dy"), g.arg("out"), g.arg("rows"), g.arg("c")
	stride = g.rowStride(c)
	g.strips(c, wide, func(u int, off reg.GPVirtual, t *tail) {
		acc, mu := g.stripVecs(out, off, u, t), g.stripVecs(mean, off, u, t)
		p, q := g.column(x, off), g.column(dy, off)
		g.perRow(rows, stride, []reg.GPVirtual{p, q}, func() {
			for j := range acc {
				v, w := g.vec(), g.vec()
				g.load(g.disp(p, j), v, t)
				g.VSUBPS(mu[j], v, v)
				g.fma(g.disp(q, j), v, acc[j], w, t)
			}
		})
		o := g.column(out, off)
		for j := range acc {
			g.store(acc[j], g.disp(o, j), t)
		}
	})
	g.affine()
	g.affine2()
	g.affineGrad()
}

func (g *isa) affineGrad() {
	g.fn("affineGrad", "(dy, x, s, t, mean, sum, dot ptr, rows, c int, flags uint64)", "masks dy by act(x*s + t) and gathers sums; see genericAffineGrad.")
	c, flags := g.arg("c"), g.arg("flags")
	stride := g.rowStride(c)
	zero := g.vec()
	g.zero(zero)
	sizes := []int{4, 2, 1}
	if g.bits == 256 {
		sizes = []int{2, 1}
	}
	g.strips(c, sizes, func(u int, off reg.GPVirtual, t *tail) {
		scale, shift, mu := g.stripVecs(g.arg("s"), off, u, t), g.stripVecs(g.arg("t"), off, u, t), g.stripVecs(g.arg("mean"), off, u, t)
		sum, dot := g.stripVecs(g.arg("sum"), off, u, t), g.stripVecs(g.arg("dot"), off, u, t)
		p, q, n := g.column(g.arg("x"), off), g.column(g.arg("dy"), off), g.arg("rows")
		top := g.label("row")
		g.Label(top)
		for j := range u {
			v, w, d := g.vec(), g.vec(), g.vec()
			g.load(g.disp(p, j), v, t)
			g.load(g.disp(q, j), d, t)
			plain := g.label("plain")
			g.TESTQ(U32(flagReLU|flagReLU6), flags)
			g.JZ(LabelRef(plain))
			g.VMOVAPS(v, w)
			g.VFMADD213PS(shift[j], scale[j], w)
			g.where(cmpLT, zero, w, d, d)
			store := g.label("store")
			g.TESTQ(U32(flagReLU6), flags)
			g.JZ(LabelRef(store))
			six := g.vec()
			g.VBROADCASTSS(g.six, six)
			g.where(cmpLT, w, six, d, d)
			g.Label(store)
			g.store(d, g.disp(q, j), t)
			g.Label(plain)
			g.VADDPS(d, sum[j], sum[j])
			g.VSUBPS(mu[j], v, v)
			g.VFMADD231PS(d, v, dot[j])
		}
		g.ADDQ(stride, p)
		g.ADDQ(stride, q)
		g.DECQ(n)
		g.JNZ(LabelRef(top))
		for _, o := range []struct {
			name string
			v    []reg.VecVirtual
		}{{"sum", sum}, {"dot", dot}} {
			to := g.column(g.arg(o.name), off)
			for j, v := range o.v {
				g.store(v, g.disp(to, j), t)
			}
		}
	})
}

func (g *isa) affine() {
	g.fn("affine", "(y, x, s, t ptr, rows, c int, flags uint64)", "computes y = act(x*s + t (+ y)) for every row.")
	y, x, s, sh, rows, c, flags := g.arg("y"), g.arg("x"), g.arg("s"), g.arg("t"), g.arg("rows"), g.arg("c"), g.arg("flags")
	stride := g.rowStride(c)
	g.strips(c, []int{2, 1}, func(u int, off reg.GPVirtual, t *tail) {
		scale, shift := g.stripVecs(s, off, u, t), g.stripVecs(sh, off, u, t)
		p, q := g.column(x, off), g.column(y, off)
		g.perRow(rows, stride, []reg.GPVirtual{p, q}, func() {
			v, tmp := g.vecs(u), g.vec()
			for j := range v {
				g.load(g.disp(p, j), v[j], t)
				g.VFMADD213PS(shift[j], scale[j], v[j])
			}
			plain := g.label("plain")
			g.TESTQ(U32(flagAccumulate), flags)
			g.JZ(LabelRef(plain))
			for j := range v {
				g.add(g.disp(q, j), v[j], tmp, t)
			}
			g.Label(plain)
			g.activate(flags, v, tmp)
			for j := range v {
				g.store(v[j], g.disp(q, j), t)
			}
		})
	})
}

func (g *isa) affine2() {
	g.fn("affine2", "(z, x, y, a, b, d ptr, rows, c int)", "computes z = a*x + (b*y + d) for every row.")
	z, x, y := g.arg("z"), g.arg("x"), g.arg("y")
	a, b, d, c := g.arg("a"), g.arg("b"), g.arg("d"), g.arg("c")
	stride := g.rowStride(c)
	g.strips(c, []int{2, 1}, func(u int, off reg.GPVirtual, t *tail) {
		ca, cb, cd := g.stripVecs(a, off, u, t), g.stripVecs(b, off, u, t), g.stripVecs(d, off, u, t)
		p, q, r := g.column(x, off), g.column(y, off), g.column(z, off)
		n := g.arg("rows")
		top := g.label("row")
		g.Label(top)
		for j := range u {
			v, w := g.vec(), g.vec()
			g.load(g.disp(q, j), v, t)
			g.VFMADD213PS(cd[j], cb[j], v)
			g.fma(g.disp(p, j), ca[j], v, w, t)
			g.store(v, g.disp(r, j), t)
		}
		for _, s := range []reg.GPVirtual{p, q, r} {
			g.ADDQ(stride, s)
		}
		g.DECQ(n)
		g.JNZ(LabelRef(top))
	})
}
