package main

import (
	"fmt"
	"strings"

	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Offsets in sparseArgs.
const (
	sBlocks = 8 * iota
	sX
	sCount
	sOffs
	sW
	sOut
	sOutStride
	sBias
	sFlags
)

// sparse emits the sparse convolutions: blocks of 1 or 4 output channels, as many vectors of pixels as registers hold. Vectors
// have 256 bits for AVX-512 too, with twice the registers: the pixels that an entry needs begin anywhere, a vector of 512 bits
// always lies in two cache lines, and fewer lanes are left over.
func (g *isa) sparse() {
	most := map[int]int{1: 28, 4: 6}
	if g.bits == 256 {
		most = map[int]int{1: 12, 4: 3}
	}
	var init strings.Builder
	for _, block := range []int{1, 4} {
		for nv := 1; nv <= most[block]; nv++ {
			name := g.sparseTile(block, nv)
			fmt.Fprintf(&init, "\t{%d, %d}: %s,\n", block, nv, name)
		}
	}
	g.tables += fmt.Sprintf("\n// sparse%d lists the sparse kernels by block and vectors of pixels.\nvar sparse%d = map[[2]int]func(*sparseArgs){\n%s}\n",
		g.bits, g.bits, init.String())
	if g.bits == 256 {
		g.gather(1)
		g.gather(4)
	}
}

func (g *isa) sparseTile(block, nv int) string {
	name := fmt.Sprintf("sparse%d_b%d_v%d", g.bits, block, nv)
	g.fnNamed(name, "(p *sparseArgs)", fmt.Sprintf("computes %d vectors of pixels for blocks of %d channels as sparseArgs says.", nv, block))
	vecs := func(n int) []reg.VecVirtual {
		v := make([]reg.VecVirtual, n)
		for i := range v {
			v[i] = g.YMM()
		}
		return v
	}
	p := g.arg("p")
	left, x, cnt, offs, w, out, bias := g.field(p, sBlocks), g.field(p, sX), g.field(p, sCount), g.field(p, sOffs), g.field(p, sW), g.field(p, sOut), g.field(p, sBias)
	flags, stride := g.field(p, sFlags), g.field(p, sOutStride)
	acc := make([][]reg.VecVirtual, block)
	g.Label("block")
	for b := range acc {
		acc[b] = vecs(nv)
		for j := range acc[b] {
			g.VBROADCASTSS(Mem{Base: bias, Disp: 4 * b}, acc[b][j])
		}
	}
	n, o := g.GP64(), g.GP64()
	g.MOVLQSX(Mem{Base: cnt}, n)
	g.TESTQ(n, n)
	g.JZ(LabelRef("store"))
	tmp := g.YMM()
	var xs []reg.VecVirtual
	if block > 1 {
		xs = vecs(nv)
	}
	g.Label("entry")
	g.MOVLQSX(Mem{Base: offs}, o)
	at := func(j int) Mem { return Mem{Base: x, Index: o, Scale: 1, Disp: 32 * j} }
	for j := range xs {
		g.VMOVUPS(at(j), xs[j])
	}
	for b := range acc {
		g.VBROADCASTSS(Mem{Base: w, Disp: 4 * b}, tmp)
		for j := range nv {
			if xs != nil {
				g.VFMADD231PS(xs[j], tmp, acc[b][j])
			} else {
				g.VFMADD231PS(at(j), tmp, acc[b][j])
			}
		}
	}
	g.ADDQ(U8(4), offs)
	g.ADDQ(U8(4*block), w)
	g.DECQ(n)
	g.JNZ(LabelRef("entry"))
	g.Label("store")
	var all []reg.VecVirtual
	for _, a := range acc {
		all = append(all, a...)
	}
	g.activate(flags, all, tmp)
	for b := range acc {
		for j := range acc[b] {
			g.VMOVUPS(acc[b][j], Mem{Base: out, Disp: 32 * j})
		}
		g.ADDQ(stride, out)
	}
	g.ADDQ(U8(4), cnt)
	g.ADDQ(U8(4*block), bias)
	g.DECQ(left)
	g.JNZ(LabelRef("block"))
	g.end()
	return name
}

// gather emits the product of sparse rows with a vector, for one row or for a block of four.
func (g *isa) gather(block int) {
	g.fnNamed(fmt.Sprintf("gather%dAVX", block), "(w, idx, x, out ptr, n int)",
		fmt.Sprintf("writes the sums of w[%d*i+b]*x[idx[i]] over i < n to out[b], b < %d.", block, block))
	w, idx, x, out, n := g.arg("w"), g.arg("idx"), g.arg("x"), g.arg("out"), g.arg("n")
	acc, v, at := []reg.VecVirtual{g.XMM(), g.XMM(), g.XMM(), g.XMM()}, g.XMM(), g.GP64()
	for _, a := range acc {
		g.VXORPS(a, a, a)
	}
	entries := func(count int) {
		for u := range count {
			g.MOVLQSX(Mem{Base: idx, Disp: 4 * u}, at)
			from, with := Mem{Base: x, Index: at, Scale: 4}, Mem{Base: w, Disp: 4 * block * u}
			if block == 1 {
				g.VMOVSS(from, v)
				g.VFMADD231SS(with, v, acc[u])
			} else {
				g.VBROADCASTSS(from, v)
				g.VFMADD231PS(with, v, acc[u])
			}
		}
		g.ADDQ(U8(4*count), idx)
		g.ADDQ(U8(4*block*count), w)
	}
	g.SUBQ(U8(4), n)
	g.JL(LabelRef("rest"))
	g.Label("four")
	entries(4)
	g.SUBQ(U8(4), n)
	g.JGE(LabelRef("four"))
	g.Label("rest")
	g.ADDQ(U8(4), n)
	g.JZ(LabelRef("sum"))
	g.Label("one")
	entries(1)
	g.DECQ(n)
	g.JNZ(LabelRef("one"))
	g.Label("sum")
	g.VADDPS(acc[1], acc[0], acc[0])
	g.VADDPS(acc[3], acc[2], acc[2])
	g.VADDPS(acc[2], acc[0], acc[0])
	if block == 1 {
		g.VMOVSS(acc[0], Mem{Base: out})
	} else {
		g.VMOVUPS(acc[0], Mem{Base: out})
	}
	g.RET()
}
