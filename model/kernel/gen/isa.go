package main

import (
	"fmt"
	"strings"

	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
	"github.com/mmcloughlin/avo/x86"
)

// isa emits code for one vector width: 512 bits with mask registers, or 256 bits with AVX2 and FMA.
type isa struct {
	*build.Context
	bits    int
	decls   []decl
	tables  string
	labels  int
	tails   Mem // AVX2: eight lanes of ones, then eight of zeros
	six     Mem // the constant 6
	floors  Mem // of tiles: what results are at least, -Inf or 0
	nothing Mem // of tiles: two vectors of -0, which change nothing when added
	lanes   Mem // of dropout: the first lanes of a counter
}

type decl struct{ name, sig, doc string }

// tail is the mask of a vector that is not full; nil stands for a full one.
type tail struct {
	k reg.OpmaskVirtual
	v reg.VecVirtual
}

const (
	flagAccumulate = 1
	flagReLU       = 2
	flagReLU6      = 4
)

func newISA(bits int) *isa {
	g := &isa{Context: build.NewContext(), bits: bits}
	g.ConstraintExpr("!purego")
	g.six = g.StaticGlobal(fmt.Sprintf("six%d", bits))
	g.DataAttributes(attr.RODATA | attr.NOPTR)
	g.AddDatum(0, U32(0x40c00000))
	if bits == 256 {
		g.tails = g.StaticGlobal("tails256")
		g.DataAttributes(attr.RODATA | attr.NOPTR)
		for i := range 16 {
			v := U32(0)
			if i < 8 {
				v = 0xffffffff
			}
			g.AddDatum(4*i, v)
		}
	}
	return g
}

// fn starts a function. In sig, ptr is a pointer to elements and *T a pointer to arguments.
func (g *isa) fn(name, sig, doc string) string {
	name = fmt.Sprintf("%s%d", name, g.bits)
	g.fnNamed(name, sig, doc)
	return name
}

func (g *isa) fnNamed(name, sig, doc string) {
	g.decls = append(g.decls, decl{name, sig, name + " " + doc})
	plain := strings.NewReplacer("*tileArgs", "*byte", "*sparseArgs", "*byte", "*quantArgs", "*byte", "*winoArgs", "*byte", "*quantParams", "*byte", "*quantWinoArgs", "*byte", "*depthArgs", "*byte", "*planeArgs", "*byte", "*poolArgs", "*byte", "*rowsArgs", "*byte",
		"*[6]float32", "*byte", "*[4]uint32", "*byte", "*[11]float32", "*byte", " ptr", " *byte").Replace(sig)
	g.Function(name)
	g.Attributes(attr.NOSPLIT)
	g.SignatureExpr("func" + plain)
}

func (g *isa) arg(name string) reg.GPVirtual { return g.Load(g.Param(name), g.GP64()).(reg.GPVirtual) }

// field loads a word at an offset from p.
func (g *isa) field(p reg.Register, off int) reg.GPVirtual {
	r := g.GP64()
	g.MOVQ(Mem{Base: p, Disp: off}, r)
	return r
}

func (g *isa) vec() reg.VecVirtual {
	if g.bits == 512 {
		return g.ZMM()
	}
	return g.YMM()
}

func (g *isa) vecs(n int) []reg.VecVirtual {
	v := make([]reg.VecVirtual, n)
	for i := range v {
		v[i] = g.vec()
	}
	return v
}

func (g *isa) bytes() int { return g.bits / 8 }

func (g *isa) zero(v reg.VecVirtual) {
	if g.bits == 512 {
		i, err := x86.VPXORD(v, v, v)
		if err != nil {
			panic(err)
		}
		i.CancellingInputs = true // the library knows this of the shorter forms only
		g.Instruction(i)
	} else {
		g.VXORPS(v, v, v)
	}
}

func (g *isa) load(m Mem, v reg.VecVirtual, t *tail) {
	switch {
	case t == nil:
		g.VMOVUPS(m, v)
	case g.bits == 512:
		g.VMOVUPS_Z(m, t.k, v)
	default:
		g.VMASKMOVPS(m, t.v, v)
	}
}

func (g *isa) store(v reg.VecVirtual, m Mem, t *tail) {
	switch {
	case t == nil:
		g.VMOVUPS(v, m)
	case g.bits == 512:
		g.VMOVUPS(v, t.k, m)
	default:
		g.VMASKMOVPS(v, t.v, m)
	}
}

// fma adds m·v to acc; add adds m to acc. tmp is used where a masked operand needs a register.
func (g *isa) fma(m Mem, v, acc, tmp reg.VecVirtual, t *tail) {
	switch {
	case t == nil:
		g.VFMADD231PS(m, v, acc)
	case g.bits == 512:
		g.VFMADD231PS(m, v, t.k, acc)
	default:
		g.VMASKMOVPS(m, t.v, tmp)
		g.VFMADD231PS(tmp, v, acc)
	}
}

func (g *isa) add(m Mem, acc, tmp reg.VecVirtual, t *tail) {
	switch {
	case t == nil:
		g.VADDPS(m, acc, acc)
	case g.bits == 512:
		g.VADDPS(m, acc, t.k, acc)
	default:
		g.VMASKMOVPS(m, t.v, tmp)
		g.VADDPS(tmp, acc, acc)
	}
}

// where sets dst to x in lanes where a <pred> b, else to zero. dst may be x.
func (g *isa) where(pred uint8, a, b, x, dst reg.VecVirtual) {
	if g.bits == 512 {
		k := g.K()
		g.VCMPPS(U8(pred), b, a, k)
		g.VMOVAPS_Z(x, k, dst)
		return
	}
	m := g.vec()
	g.VCMPPS(U8(pred), b, a, m)
	g.VANDPS(m, x, dst)
}

// Predicates of VCMPPS: ordered, not signalling.
const (
	cmpEQ  = 0x00
	cmpLT  = 0x11
	cmpNEQ = 0x04
)

// label returns a name unique in the file.
func (g *isa) label(s string) string {
	g.labels++
	return fmt.Sprintf("%s_%d", s, g.labels)
}

// mask makes the mask of the first n lanes, 1 <= n <= lanes.
func (g *isa) mask(n reg.GPVirtual) *tail {
	if g.bits == 512 {
		ones, k := g.GP64(), g.K()
		g.MOVQ(U32(0xffff), ones)
		g.BZHIQ(n, ones, ones)
		g.KMOVW(ones.As32(), k)
		return &tail{k: k}
	}
	p, v := g.GP64(), g.vec()
	g.LEAQ(g.tails.Offset(32), p)
	neg := g.GP64()
	g.MOVQ(n, neg)
	g.NEGQ(neg)
	g.VMOVUPS(Mem{Base: p, Index: neg, Scale: 4}, v)
	return &tail{v: v}
}

// activate applies the activation in flags to all of v; tmp is free.
func (g *isa) activate(flags reg.GPVirtual, v []reg.VecVirtual, tmp reg.VecVirtual) {
	done := g.label("linear")
	g.TESTQ(U32(flagReLU|flagReLU6), flags)
	g.JZ(LabelRef(done))
	g.zero(tmp)
	for _, a := range v {
		g.VMAXPS(a, tmp, a)
	}
	g.TESTQ(U32(flagReLU6), flags)
	g.JZ(LabelRef(done))
	g.VBROADCASTSS(g.six, tmp)
	for _, a := range v {
		g.VMINPS(a, tmp, a)
	}
	g.Label(done)
}

// end leaves the function.
func (g *isa) end() {
	g.VZEROUPPER()
	g.RET()
}
