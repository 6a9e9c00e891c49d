package main

import (
	"math"

	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Offsets in winoArgs.
const (
	wC    = 0
	wRows = 8
	wSW   = 8 * (iota + 5)
	wFrom
	wTo
	wDst
	wDH
	wDW
	wHigh
	wWide
	wFlags
	wBias
	wN
	wStep
	wDstStep
	wTmp
)

// transform is a one-dimensional linear map of in vectors to out vectors, in parts; k holds its constants.
type transform struct {
	name, doc string
	in, out   int
	k         []float32
	parts     []part
	epilogue  bool // bias, old value and activation at the end
}

// part computes some of the results from some of the inputs.
type part struct {
	outs, ins []int
	f         func(g *isa, x, k []reg.VecVirtual) []reg.VecVirtual
}

// The maps of F(4×4, 3×3): A. Lavin and S. Gray, Fast Algorithms for Convolutional Neural Networks, 2016, §4.3, and their
// transposes for the gradient.
var transforms = []transform{
	{name: "winoInput", doc: "maps 6 by 6 inputs by Bᵀ·d·B.", in: 6, out: 6, k: []float32{4, 5}, parts: []part{
		{[]int{0, 5}, []int{0, 1, 2, 3, 4, 5}, winoInput05}, {[]int{1, 2}, []int{1, 2, 3, 4}, winoInput12}, {[]int{3, 4}, []int{1, 2, 3, 4}, winoInput34}}},
	{name: "winoOutput", doc: "maps 6 by 6 products by Aᵀ·m·A, with the epilogue.", in: 6, out: 4, k: []float32{2, 4, 8}, epilogue: true, parts: []part{
		{[]int{0, 2}, []int{0, 1, 2, 3, 4}, winoOutput02}, {[]int{1, 3}, []int{1, 2, 3, 4, 5}, winoOutput13}}},
	{name: "winoWeights", doc: "maps 3 by 3 weights by G·g·Gᵀ.", in: 3, out: 6, k: []float32{1. / 4, 1. / 6, 1. / 24, 1. / 12}, parts: []part{
		{[]int{0, 1, 2, 3, 4, 5}, []int{0, 1, 2}, winoWeights}}},
	{name: "winoOutGrad", doc: "maps 4 by 4 output gradients by A·y·Aᵀ.", in: 4, out: 6, k: []float32{2, 4, 8}, parts: []part{
		{[]int{0, 5}, []int{0, 3}, winoOutGrad05}, {[]int{1, 2}, []int{0, 1, 2, 3}, winoOutGrad12}, {[]int{3, 4}, []int{0, 1, 2, 3}, winoOutGrad34}}},
	{name: "winoWeightGrad", doc: "maps 6 by 6 products by Gᵀ·m·G, with the epilogue.", in: 6, out: 3, k: []float32{1. / 4, 1. / 6, 1. / 24, 1. / 12}, epilogue: true, parts: []part{
		{[]int{0, 1, 2}, []int{0, 1, 2, 3, 4, 5}, winoWeightGrad}}},
}

// all computes all results.
func (t transform) all(g *isa, x, k []reg.VecVirtual) []reg.VecVirtual {
	out := make([]reg.VecVirtual, t.out)
	for _, p := range t.parts {
		for i, v := range p.f(g, x, k) {
			out[p.outs[i]] = v
		}
	}
	return out
}

func (g *isa) winograd() {
	for _, t := range transforms {
		g.winoTransform(t)
	}
}

// winoTransform applies t to the columns of the patch at src, then to the rows of what that gives, for all channels of a
// line of tiles. With 32 registers the maps of several parts keep what lies between the two in registers, part by part.
func (g *isa) winoTransform(t transform) {
	g.fn(t.name, "(p *winoArgs)", t.doc)
	p := g.arg("p")
	k := make([]reg.VecVirtual, len(t.k))
	for i, v := range t.k {
		x, r := g.GP32(), g.vec()
		g.MOVL(U32(math.Float32bits(v)), x)
		g.VMOVD(x, r.AsX())
		g.VBROADCASTSS(r.AsX(), r)
		k[i] = r
	}
	parts := g.bits == 512 && len(t.parts) > 1
	g.strips(g.field(p, wC), []int{1}, func(_ int, off reg.GPVirtual, tl *tail) {
		dst, src, n := g.atField(p, wDst, off), g.GP64(), g.field(p, wN)
		g.MOVQ(off, src)
		tiles := func(body func()) {
			tile := g.label("tile")
			g.Label(tile)
			body()
			g.ADDQ(Mem{Base: p, Disp: wStep}, src)
			g.ADDQ(Mem{Base: p, Disp: wDstStep}, dst)
			g.DECQ(n)
			g.JNZ(LabelRef(tile))
		}
		if !parts {
			tiles(func() { g.winoWhole(p, off, src, dst, t, k, tl) })
			return
		}
		edge, next := g.label("edge"), g.label("next")
		g.CMPQ(Mem{Base: p, Disp: wFrom}, U8(0))
		g.JNE(LabelRef(edge))
		g.CMPQ(Mem{Base: p, Disp: wTo}, U8(t.in))
		g.JNE(LabelRef(edge))
		for _, e := range []bool{false, true} {
			tiles(func() {
				for _, pt := range t.parts {
					g.winoPart(p, off, src, dst, t, pt, k, e, tl)
				}
			})
			if !e {
				g.JMP(LabelRef(next))
				g.Label(edge)
			}
		}
		g.Label(next)
	})
}

// winoPart computes the rows of the result that a part gives. At an edge columns may be zero.
func (g *isa) winoPart(p, off, src, dst reg.GPVirtual, t transform, pt part, k []reg.VecVirtual, edge bool, tl *tail) {
	at, sw := g.GP64(), g.field(p, wSW)
	g.MOVQ(src, at)
	rows := make([]reg.GPVirtual, t.in)
	for _, i := range pt.ins {
		rows[i] = g.field(p, wRows+8*i)
	}
	mid := make([][]reg.VecVirtual, len(pt.outs))
	for j := range t.in {
		x := make([]reg.VecVirtual, t.in)
		for _, i := range pt.ins {
			x[i] = g.vec()
		}
		next := g.label("column")
		if edge {
			for _, i := range pt.ins {
				g.zero(x[i])
			}
			g.CMPQ(Mem{Base: p, Disp: wFrom}, U8(j))
			g.JG(LabelRef(next))
			g.CMPQ(Mem{Base: p, Disp: wTo}, U8(j))
			g.JLE(LabelRef(next))
		}
		for _, i := range pt.ins {
			g.load(Mem{Base: rows[i], Index: at, Scale: 1}, x[i], tl)
		}
		if j < t.in-1 {
			g.ADDQ(sw, at)
		}
		g.Label(next)
		for o, v := range pt.f(g, x, k) {
			mid[o] = append(mid[o], v)
		}
	}
	cols := g.multiples(g.field(p, wDW), t.out)
	for o, i := range pt.outs {
		skip := g.label("low")
		if t.epilogue {
			g.CMPQ(Mem{Base: p, Disp: wHigh}, U8(i))
			g.JLE(LabelRef(skip))
		}
		row := g.GP64()
		g.IMUL3Q(U8(i), Mem{Base: p, Disp: wDH}, row)
		g.ADDQ(dst, row)
		g.winoStore(p, off, row, cols, t, t.all(g, mid[o], k), tl)
		g.Label(skip)
	}
}

// winoWhole computes all rows of the result, by way of memory.
func (g *isa) winoWhole(p, off, src, dst reg.GPVirtual, t transform, k []reg.VecVirtual, tl *tail) {
	tmp := func(i, j int) Mem { return Mem{Base: p, Disp: wTmp + (i*t.in+j)*g.bytes()} }
	g.winoColumns(p, src, t, k, tmp, tl)
	row, dh := g.GP64(), g.field(p, wDH)
	g.MOVQ(dst, row)
	cols := g.multiples(g.field(p, wDW), t.out)
	done := g.label("whole")
	for i := range t.out {
		if t.epilogue {
			g.CMPQ(Mem{Base: p, Disp: wHigh}, U8(i))
			g.JLE(LabelRef(done))
		}
		x := g.vecs(t.in)
		for j := range x {
			g.VMOVUPS(tmp(i, j), x[j])
		}
		g.winoStore(p, off, row, cols, t, t.all(g, x, k), tl)
		if i < t.out-1 {
			g.ADDQ(dh, row)
		}
	}
	g.Label(done)
}

// winoStore stores a row of results.
func (g *isa) winoStore(p, off, dst reg.GPVirtual, cols [8]reg.Register, t transform, out []reg.VecVirtual, tl *tail) {
	if t.epilogue {
		g.winoRow(p, off, dst, cols, out, tl)
		g.winoAhead(p, dst, cols, len(out))
		return
	}
	for j, v := range out {
		g.store(v, rowMem(dst, cols, j), tl)
	}
}

// winoColumns applies t to the columns of the patch; those outside are zero.
func (g *isa) winoColumns(p, src reg.GPVirtual, t transform, k []reg.VecVirtual, tmp func(i, j int) Mem, tl *tail) {
	rows := make([]reg.GPVirtual, t.in)
	for i := range rows {
		rows[i] = g.field(p, wRows+8*i)
	}
	at, sw := g.GP64(), g.field(p, wSW)
	g.MOVQ(src, at)
	for j := range t.in {
		none, next := g.label("none"), g.label("next")
		g.CMPQ(Mem{Base: p, Disp: wFrom}, U8(j))
		g.JG(LabelRef(none))
		g.CMPQ(Mem{Base: p, Disp: wTo}, U8(j))
		g.JLE(LabelRef(none))
		x := g.vecs(t.in)
		for i := range x {
			g.load(Mem{Base: rows[i], Index: at, Scale: 1}, x[i], tl)
		}
		for i, v := range t.all(g, x, k) {
			g.VMOVUPS(v, tmp(i, j))
		}
		g.ADDQ(sw, at)
		g.JMP(LabelRef(next))
		g.Label(none)
		z := g.vec()
		g.zero(z)
		for i := range t.out {
			g.VMOVUPS(z, tmp(i, j))
		}
		g.Label(next)
	}
}

// winoRow stores a row of results, as many as there are columns, through the epilogue.
func (g *isa) winoRow(p, off, dst reg.GPVirtual, cols [8]reg.Register, out []reg.VecVirtual, tl *tail) {
	part, next := g.label("part"), g.label("next")
	g.CMPQ(Mem{Base: p, Disp: wWide}, U8(len(out)))
	g.JL(LabelRef(part))
	cell := func(j int) Mem { return rowMem(dst, cols, j) }
	g.winoEpilogue(p, off, cell, out, tl)
	g.JMP(LabelRef(next))
	g.Label(part)
	for j := range len(out) - 1 {
		g.winoEpilogue(p, off, func(int) Mem { return cell(j) }, out[j:j+1], tl)
		g.CMPQ(Mem{Base: p, Disp: wWide}, U8(j+1))
		g.JLE(LabelRef(next))
	}
	g.Label(next)
}

// winoAhead fetches what the tile below stores to: lines of outputs are too far apart for the processor to foresee.
func (g *isa) winoAhead(p, dst reg.GPVirtual, cols [8]reg.Register, n int) {
	ahead := g.field(p, wDH)
	g.SHLQ(U8(2), ahead)
	g.ADDQ(dst, ahead)
	for j := range n {
		g.PREFETCHT0(rowMem(ahead, cols, j))
	}
}

func (g *isa) winoEpilogue(p, off reg.GPVirtual, cell func(j int) Mem, v []reg.VecVirtual, tl *tail) {
	nobias, fresh := g.label("nobias"), g.label("fresh")
	tmp, bias := g.vec(), g.field(p, wBias)
	g.TESTQ(bias, bias)
	g.JZ(LabelRef(nobias))
	g.load(Mem{Base: bias, Index: off, Scale: 1}, tmp, tl)
	for _, a := range v {
		g.VADDPS(tmp, a, a)
	}
	g.Label(nobias)
	g.TESTQ(U32(flagAccumulate), Mem{Base: p, Disp: wFlags})
	g.JZ(LabelRef(fresh))
	for j, a := range v {
		g.add(cell(j), a, tmp, tl)
	}
	g.Label(fresh)
	g.activate(g.field(p, wFlags), v, tmp)
	for j, a := range v {
		g.store(a, cell(j), tl)
	}
}

// Small arithmetic on new vectors.
func (g *isa) sum(a, b reg.VecVirtual) reg.VecVirtual {
	r := g.vec()
	g.VADDPS(b, a, r)
	return r
}

func (g *isa) diff(a, b reg.VecVirtual) reg.VecVirtual {
	r := g.vec()
	g.VSUBPS(b, a, r)
	return r
}

func (g *isa) times(a, k reg.VecVirtual) reg.VecVirtual {
	r := g.vec()
	g.VMULPS(a, k, r)
	return r
}

// plus returns a + k*b, minus a - k*b.
func (g *isa) plus(a, k, b reg.VecVirtual) reg.VecVirtual {
	r := g.vec()
	g.VMOVAPS(a, r)
	g.VFMADD231PS(k, b, r)
	return r
}

func (g *isa) minus(a, k, b reg.VecVirtual) reg.VecVirtual {
	r := g.vec()
	g.VMOVAPS(a, r)
	g.VFNMADD231PS(k, b, r)
	return r
}

func winoInput05(g *isa, d, k []reg.VecVirtual) []reg.VecVirtual {
	four, five := k[0], k[1]
	return []reg.VecVirtual{g.plus(g.minus(d[4], five, d[2]), four, d[0]), g.plus(g.minus(d[5], five, d[3]), four, d[1])}
}

func winoInput12(g *isa, d, k []reg.VecVirtual) []reg.VecVirtual {
	a, b := g.minus(d[4], k[0], d[2]), g.minus(d[3], k[0], d[1])
	return []reg.VecVirtual{g.sum(a, b), g.diff(a, b)}
}

func winoInput34(g *isa, d, _ []reg.VecVirtual) []reg.VecVirtual {
	c, e := g.diff(d[4], d[2]), g.diff(d[3], d[1])
	g.VADDPS(e, e, e)
	return []reg.VecVirtual{g.sum(c, e), g.diff(c, e)}
}

func winoOutput02(g *isa, m, k []reg.VecVirtual) []reg.VecVirtual {
	s1, s3 := g.sum(m[1], m[2]), g.sum(m[3], m[4])
	return []reg.VecVirtual{g.sum(g.sum(m[0], s1), s3), g.plus(s1, k[1], s3)}
}

func winoOutput13(g *isa, m, k []reg.VecVirtual) []reg.VecVirtual {
	s2, s4 := g.diff(m[1], m[2]), g.diff(m[3], m[4])
	return []reg.VecVirtual{g.plus(s2, k[0], s4), g.sum(g.plus(s2, k[2], s4), m[5])}
}

func winoWeights(g *isa, w, k []reg.VecVirtual) []reg.VecVirtual {
	fourth, sixth, twentyfourth, twelfth := k[0], k[1], k[2], k[3]
	e := g.times(g.sum(w[0], w[2]), sixth)
	z := g.vec()
	g.zero(z)
	e = g.diff(z, e)
	f := g.plus(g.times(w[2], sixth), twentyfourth, w[0])
	return []reg.VecVirtual{g.times(w[0], fourth), g.minus(e, sixth, w[1]), g.plus(e, sixth, w[1]), g.plus(f, twelfth, w[1]), g.minus(f, twelfth, w[1]), w[2]}
}

func winoOutGrad05(_ *isa, y, _ []reg.VecVirtual) []reg.VecVirtual {
	return []reg.VecVirtual{y[0], y[3]}
}

func winoOutGrad12(g *isa, y, _ []reg.VecVirtual) []reg.VecVirtual {
	e, o := g.sum(y[0], y[2]), g.sum(y[1], y[3])
	return []reg.VecVirtual{g.sum(e, o), g.diff(e, o)}
}

func winoOutGrad34(g *isa, y, k []reg.VecVirtual) []reg.VecVirtual {
	e, o := g.plus(y[0], k[1], y[2]), g.plus(g.times(y[1], k[0]), k[2], y[3])
	return []reg.VecVirtual{g.sum(e, o), g.diff(e, o)}
}

func winoWeightGrad(g *isa, m, k []reg.VecVirtual) []reg.VecVirtual {
	fourth, sixth, twentyfourth, twelfth := k[0], k[1], k[2], k[3]
	a, b := g.sum(m[1], m[2]), g.diff(m[2], m[1])
	c, d := g.sum(m[3], m[4]), g.diff(m[3], m[4])
	o0 := g.plus(g.minus(g.times(m[0], fourth), sixth, a), twentyfourth, c)
	o1 := g.plus(g.times(b, sixth), twelfth, d)
	o2 := g.plus(m[5], sixth, g.diff(c, a))
	return []reg.VecVirtual{o0, o1, o2}
}
