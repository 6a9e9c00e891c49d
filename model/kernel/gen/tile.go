package main

import (
	"fmt"
	"strings"

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
	tmp := g.tileLoops(p, acc, tails, h0, h1, nv)
	g.tileEpilogue(p, acc, tails, h0, h1, nv, tmp)
	g.end()
	return name
}

// tileLoops emits the loops and returns a vector that is free after them.
func (g *isa) tileLoops(p reg.GPVirtual, acc [][]reg.VecVirtual, tails []*tail, h0, h1, nv int) reg.VecVirtual {
	bv := g.vecs(nv)
	var av reg.VecVirtual
	if g.bits == 256 || nv > 2 || len(acc) == 1 {
		av = g.vec()
	}
	return g.loops(p, h0, h1, func(b, bk reg.GPVirtual, row func(int) Mem) reg.VecVirtual {
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

// loops emits the three nested loops over the rows of a and b around step, which handles one row of b and advances it.
func (g *isa) loops(p reg.GPVirtual, h0, h1 int, step func(b, bk reg.GPVirtual, row func(int) Mem) reg.VecVirtual) reg.VecVirtual {
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
	k3, k2, k := g.field(p, tK3), g.GP64(), g.GP64()
	g.Label("loop3")
	g.MOVQ(Mem{Base: p, Disp: tK2}, k2)
	g.Label("loop2")
	g.MOVQ(Mem{Base: p, Disp: tK}, k)
	g.Label("loop")
	free := step(b, bk, func(i int) Mem {
		if i < h0 {
			return rowMem(a[0], st, i)
		}
		return rowMem(a[1], st, i-h0)
	})
	for _, r := range a {
		g.ADDQ(ak, r)
	}
	g.DECQ(k)
	g.JNZ(LabelRef("loop"))
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
