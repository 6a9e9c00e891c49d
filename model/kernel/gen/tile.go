package main

import (
	"fmt"
	"strings"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Offsets in tileArgs.
const (
	tK = 8 * iota
	tK2
	tK3
	tA0
	tA1
	tAS
	tAK
	tAJ
	tAJ3
	tB
	tBK
	tBJ
	tBJ3
	tC0
	tC1
	tCS
	tMask
	tFlags
	tBias
)

// tiles emits the micro-kernel family: all pairs of halves that the drivers use, full and masked last vectors.
func (g *isa) tiles() {
	mr, half := 15, 8
	if g.bits == 256 {
		mr, half = 6, 3
	}
	if g.bits == 512 {
		g.tileConstants()
	}
	var init strings.Builder
	emit := func(h0, h1, nv int) {
		for _, masked := range []bool{false, true} {
			name := g.tile(h0, h1, nv, masked)
			kind := 2 * map[int]int{1: 0, 2: 1, 4: 2, 8: 3}[nv]
			if masked {
				kind++
			}
			fmt.Fprintf(&init, "\t{%d, %d, %d}: %s,\n", kind, h0, h1, name)
		}
	}
	for h0 := 1; h0 <= half; h0++ {
		for h1 := range h0 + 1 {
			if h0+h1 > mr || (h1 != h0 && h1 != h0-1 && (h1 != 0 || 2*h0 > mr)) {
				continue
			}
			emit(h0, h1, 1)
			emit(h0, h1, 2)
			if h0+h1 <= 2 || g.bits == 512 && h0+h1 <= 4 {
				emit(h0, h1, 4)
			}
			if h0+h1 == 1 {
				emit(h0, h1, 8)
			}
		}
	}
	g.tables = fmt.Sprintf("\n// tiles%d lists the micro-kernels by kind (log2 of the vectors, times 2, plus 1 if masked) and halves.\nvar tiles%d = map[[3]int]func(*tileArgs){\n%s}\n",
		g.bits, g.bits, init.String())
}

// tileConstants emits what tileFinish reads.
func (g *isa) tileConstants() {
	g.floors = g.StaticGlobal("floors512")
	g.DataAttributes(attr.RODATA | attr.NOPTR)
	g.AddDatum(0, U32(0xff800000))
	g.AddDatum(4, U32(0))
	g.nothing = g.StaticGlobal("nothing512")
	g.DataAttributes(attr.RODATA | attr.NOPTR)
	for i := range 2 * g.bytes() / 4 {
		g.AddDatum(4*i, U32(0x80000000))
	}
}

// rowMem addresses row i of rows a stride apart, from multiples 1, 3, 5, 7 of the stride.
func rowMem(base reg.Register, st [8]reg.Register, i int) Mem {
	m := Mem{Base: base}
	switch i {
	case 1, 2, 4:
		m.Index, m.Scale = st[1], uint8(i)
	case 3, 5, 7:
		m.Index, m.Scale = st[i], 1
	case 6:
		m.Index, m.Scale = st[3], 2
	}
	return m
}

// multiples computes what rowMem needs for n rows.
func (g *isa) multiples(s reg.GPVirtual, n int) (st [8]reg.Register) {
	st[1] = s
	for _, i := range []int{3, 5, 7} {
		if n <= i {
			continue
		}
		r := g.GP64()
		switch i {
		case 3:
			g.LEAQ(Mem{Base: s, Index: s, Scale: 2}, r)
		case 5:
			g.LEAQ(Mem{Base: s, Index: s, Scale: 4}, r)
		case 7:
			g.LEAQ(Mem{Base: st[3], Index: s, Scale: 4}, r)
		}
		st[i] = r
	}
	return st
}

// tile emits one micro-kernel of h0+h1 rows and nv vectors.
func (g *isa) tile(h0, h1, nv int, masked bool) string {
	name := fmt.Sprintf("tile%d_%d_%d_v%d", g.bits, h0, h1, nv)
	if masked {
		name += "m"
	}
	g.fnNamed(name, "(p *tileArgs)", fmt.Sprintf("computes %d+%d rows and %d vectors as tileArgs says.", h0, h1, nv))
	p := g.arg("p")
	m := h0 + h1
	acc := make([][]reg.VecVirtual, m)
	for i := range acc {
		acc[i] = g.vecs(nv)
		for _, v := range acc[i] {
			g.zero(v)
		}
	}
	tails := make([]*tail, nv)
	if masked {
		if g.bits == 512 {
			t := g.field(p, tMask)
			k := g.K()
			g.KMOVW(t.As32(), k)
			tails[nv-1] = &tail{k: k}
		} else {
			tails[nv-1] = g.mask(g.field(p, tMask))
		}
	}
	var f *finish
	if g.bits == 512 && nv <= 2 && m >= 3 {
		f = &finish{left: g.GP64()}
	}
	tmp := g.tileLoops(p, acc, tails, h0, h1, nv, f)
	g.tileEpilogue(p, acc, tails, h0, h1, nv, tmp)
	g.end()
	if f != nil {
		g.tileFinish(p, acc, tails, h0, h1, f)
		g.end()
	}
	return name
}

// tileLoops emits the loops and returns a vector that is free after them.
func (g *isa) tileLoops(p reg.GPVirtual, acc [][]reg.VecVirtual, tails []*tail, h0, h1, nv int, f *finish) reg.VecVirtual {
	bv := g.vecs(nv)
	var av reg.VecVirtual
	if g.bits == 256 || nv > 2 || len(acc) == 1 {
		av = g.vec()
	}
	return g.loops(p, h0, h1, f, func(b, bk reg.GPVirtual, row func(int) Mem) reg.VecVirtual {
		if len(acc) > 1 {
			g.products(acc, bv, av, b, bk, row, tails)
			return bv[0]
		}
		g.VBROADCASTSS(row(0), av)
		for j := range nv {
			g.fma(Mem{Base: b, Disp: g.bytes() * j}, av, acc[0][j], bv[0], tails[j])
		}
		g.ADDQ(bk, b)
		return bv[0]
	})
}

// finish is where loops leaves for the last step, label "finish".
type finish struct {
	left reg.GPVirtual // passes of the inner loop up to the last
	b    reg.GPVirtual
	row  func(int) Mem
}

// loops emits the three nested loops over the rows of a and b around step, which handles one row of b and advances it. With f
// they leave for the last step, unless flags say that results need more than a bias and ReLU.
func (g *isa) loops(p reg.GPVirtual, h0, h1 int, f *finish, step func(b, bk reg.GPVirtual, row func(int) Mem) reg.VecVirtual) reg.VecVirtual {
	a := []reg.GPVirtual{g.field(p, tA0)}
	if h1 > 0 {
		a = append(a, g.field(p, tA1))
	}
	ak, b, bk := g.field(p, tAK), g.field(p, tB), g.field(p, tBK)
	st := g.multiples(g.field(p, tAS), max(h0, h1))
	bump := func(off int) {
		for _, r := range a {
			g.ADDQ(Mem{Base: p, Disp: off}, r)
		}
	}
	row := func(i int) Mem {
		if i < h0 {
			return rowMem(a[0], st, i)
		}
		return rowMem(a[1], st, i-h0)
	}
	if f != nil {
		f.b, f.row = b, row
		g.MOVQ(Mem{Base: p, Disp: tK3}, f.left)
		g.IMULQ(Mem{Base: p, Disp: tK2}, f.left)
		g.TESTQ(U32(flagAccumulate|flagReLU6), Mem{Base: p, Disp: tFlags})
		g.JZ(LabelRef("simple"))
		g.XORQ(f.left, f.left) // never reaches 0
		g.Label("simple")
	}
	k3, k2, k := g.field(p, tK3), g.GP64(), g.GP64()
	g.Label("loop3")
	g.MOVQ(Mem{Base: p, Disp: tK2}, k2)
	g.Label("loop2")
	g.MOVQ(Mem{Base: p, Disp: tK}, k)
	if f != nil {
		g.DECQ(f.left)
		g.JNZ(LabelRef("loop"))
		g.DECQ(k)
		g.JZ(LabelRef("finish"))
	}
	g.Label("loop")
	free := step(b, bk, row)
	for _, r := range a {
		g.ADDQ(ak, r)
	}
	g.DECQ(k)
	g.JNZ(LabelRef("loop"))
	if f != nil {
		g.TESTQ(f.left, f.left)
		g.JZ(LabelRef("finish"))
	}
	bump(tAJ)
	g.ADDQ(Mem{Base: p, Disp: tBJ}, b)
	g.DECQ(k2)
	g.JNZ(LabelRef("loop2"))
	bump(tAJ3)
	g.ADDQ(Mem{Base: p, Disp: tBJ3}, b)
	g.DECQ(k3)
	g.JNZ(LabelRef("loop3"))
	return free
}

// tileFinish emits the last step and the epilogue of 512 bits, result by result. A store of 512 bits takes one to two
// multiplications' time, and those of a whole tile at once hold up the next tile's multiplications as well.
func (g *isa) tileFinish(p reg.GPVirtual, acc [][]reg.VecVirtual, tails []*tail, h0, h1 int, f *finish) {
	g.Label("finish")
	flags, floors := g.field(p, tFlags), g.GP64()
	g.ANDQ(U8(flagReLU), flags)
	g.LEAQ(g.floors, floors)
	floor := g.vec()
	g.VBROADCASTSS(Mem{Base: floors, Index: flags, Scale: 2}, floor)
	bias := g.field(p, tBias)
	g.TESTQ(bias, bias)
	g.JNZ(LabelRef("biased"))
	g.LEAQ(g.nothing, bias)
	g.Label("biased")
	cells := g.cells(p, h0, h1)
	one := func(i, j int, bv reg.VecVirtual) {
		r := acc[i][j]
		g.VFMADD231PS_BCST(f.row(i), bv, r)
		g.add(Mem{Base: bias, Disp: g.bytes() * j}, r, nil, tails[j])
		g.VMAXPS(r, floor, r)
		m := cells(i)
		m.Disp = g.bytes() * j
		g.store(r, m, tails[j])
	}
	bv := g.vecs(len(acc[0]))
	if len(acc) < 15 {
		for j := range bv {
			g.load(Mem{Base: f.b, Disp: g.bytes() * j}, bv[j], tails[j])
		}
		for i := range acc {
			for j := range bv {
				one(i, j, bv[j])
			}
		}
		return
	}
	for j := range bv { // one after the other, since they do not fit the registers
		g.load(Mem{Base: f.b, Disp: g.bytes() * j}, bv[0], tails[j])
		for i := range acc {
			one(i, j, bv[0])
		}
	}
}

// cells returns the addresses of the rows of the result.
func (g *isa) cells(p reg.GPVirtual, h0, h1 int) func(i int) Mem {
	c0 := g.field(p, tC0)
	var c1 reg.GPVirtual
	if h1 > 0 {
		c1 = g.field(p, tC1)
	}
	cs := g.multiples(g.field(p, tCS), max(h0, h1))
	return func(i int) Mem {
		if i >= h0 {
			return rowMem(c1, cs, i-h0)
		}
		return rowMem(c0, cs, i)
	}
}

// products emits one step of the inner loop: a row of b against one element of every row of a, which is broadcast from
// memory by the multiplication, or by itself where av is given.
func (g *isa) products(acc [][]reg.VecVirtual, bv []reg.VecVirtual, av reg.VecVirtual, b, bk reg.GPVirtual, row func(int) Mem, tails []*tail) {
	for j := range bv {
		g.load(Mem{Base: b, Disp: g.bytes() * j}, bv[j], tails[j])
	}
	g.ADDQ(bk, b)
	for i := range acc {
		if av != nil {
			g.VBROADCASTSS(row(i), av)
		}
		for j := range bv {
			if av != nil {
				g.VFMADD231PS(av, bv[j], acc[i][j])
			} else {
				g.VFMADD231PS_BCST(row(i), bv[j], acc[i][j])
			}
		}
	}
}

func (g *isa) tileEpilogue(p reg.GPVirtual, acc [][]reg.VecVirtual, tails []*tail, h0, h1, nv int, tmp reg.VecVirtual) {
	cells := g.cells(p, h0, h1)
	cell := func(i, j int) Mem {
		m := cells(i)
		m.Disp = g.bytes() * j
		return m
	}
	bias := g.field(p, tBias)
	g.TESTQ(bias, bias)
	g.JZ(LabelRef("nobias"))
	for j := range nv {
		g.load(Mem{Base: bias, Disp: g.bytes() * j}, tmp, tails[j])
		for i := range acc {
			g.VADDPS(tmp, acc[i][j], acc[i][j])
		}
	}
	g.Label("nobias")
	flags := g.field(p, tFlags)
	g.TESTQ(U32(flagAccumulate), flags)
	g.JZ(LabelRef("fresh"))
	for i := range acc {
		for j := range nv {
			g.add(cell(i, j), acc[i][j], tmp, tails[j])
		}
	}
	g.Label("fresh")
	var all []reg.VecVirtual
	for _, r := range acc {
		all = append(all, r...)
	}
	g.activate(flags, all, tmp)
	for i := range acc {
		for j := range nv {
			g.store(acc[i][j], cell(i, j), tails[j])
		}
	}
}
