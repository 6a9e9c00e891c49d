package main

import (
	"fmt"
	"strings"
)

// Registers of the arm64 micro-kernel.
const (
	rowReg = 4  // R4..R9: rows of a, later of c
	akReg  = 10 // step of a
	bReg   = 11
	bkReg  = 12
	aOff   = 13 // offset of the current element in every row of a
	tmpReg = 14
	accVec = 8 // V8..V31: the sums; V0..V3 a row of b; V4..V7 elements of a
)

// neon emits everything for arm64.
func (a *arm) neon() {
	var init strings.Builder
	for h0 := 1; h0 <= 3; h0++ {
		for h1 := range h0 + 1 {
			if h1 != h0 && h1 != h0-1 && h1 != 0 {
				continue
			}
			for kind, w := range []int{1, 2, 3, 4, 8, 16} {
				name := fmt.Sprintf("tileNEON_%d_%d_%d", h0, h1, w)
				a.tile(name, h0, h1, w)
				fmt.Fprintf(&init, "\t{%d, %d, %d}: %s,\n", kind, h0, h1, name)
			}
		}
	}
	a.tables += "\n// tilesNEON lists the micro-kernels by kind (1, 2, 3, 4, 8, 16 columns) and halves.\nvar tilesNEON = map[[3]int]func(*tileArgs){\n" + init.String() + "}\n"
	a.sparse()
	a.depth()
	a.maxPool()
	a.quantTiles()
	a.bytes8()
	a.conversions()
	a.elementwise()
	a.optimizers()
	a.columnSums()
	a.affines()
}

// columns loads or stores a row of w columns: a whole number of vectors, or 1, 2 or 3 lanes with zeros above.
func (a *arm) columns(op string, r, v, w int) {
	switch {
	case w >= 4:
		a.span(op, r, v, w/4)
	case op == "VLD1" && w == 1:
		a.in("FMOVS (R%d), F%d", r, v)
	case op == "VLD1":
		a.in("FMOVD (R%d), F%d", r, v)
		if w == 3 {
			a.in("ADD $8, R%d, R%d", r, tmpReg)
			a.in("VLD1 (R%d), V%d.S[2]", tmpReg, v)
		}
	case w == 1:
		a.in("FMOVS F%d, (R%d)", v, r)
	default:
		a.in("FMOVD F%d, (R%d)", v, r)
		if w == 3 {
			a.in("ADD $8, R%d, R%d", r, tmpReg)
			a.in("VST1 V%d.S[2], (R%d)", v, tmpReg)
		}
	}
}

// rows sets R4… to the addresses of the rows from two bases and a stride.
func (a *arm) rows(base0, base1, stride, h0, h1 int) {
	a.field(stride, tmpReg)
	for i := range h0 + h1 {
		switch i {
		case 0:
			a.field(base0, rowReg)
		case h0:
			a.field(base1, rowReg+i)
		default:
			a.in("ADD R%d, R%d, R%d", tmpReg, rowReg+i-1, rowReg+i)
		}
	}
}

// tile emits one micro-kernel of h0+h1 rows and w columns.
func (a *arm) tile(name string, h0, h1, w int) {
	a.fn(name, "tileArgs", fmt.Sprintf("computes %d+%d rows and %d columns as tileArgs says.", h0, h1, w))
	m, nv := h0+h1, (w+3)/4
	acc := func(i, j int) int { return accVec + i*nv + j }
	var all []int
	for i := range m * nv {
		a.zero(accVec + i)
		all = append(all, accVec+i)
	}
	a.rows(tA0, tA1, tAS, h0, h1)
	a.field(tAK, akReg)
	a.field(tB, bReg)
	a.field(tBK, bkReg)
	a.in("MOVD $0, R%d", aOff)
	a.field(tK3, 3)
	a.label("loop3")
	a.field(tK2, 2)
	a.label("loop2")
	a.field(tK, 1)
	a.label("loop")
	a.columns("VLD1", bReg, 0, w)
	for i := range m {
		a.in("FMOVS (R%d)(R%d), F%d", rowReg+i, aOff, 4+i%4)
		for j := range nv {
			a.fmlaLane(acc(i, j), j, 4+i%4, 0)
		}
	}
	a.in("ADD R%d, R%d, R%d", bkReg, bReg, bReg)
	a.in("ADD R%d, R%d, R%d", akReg, aOff, aOff)
	a.in("SUBS $1, R1, R1")
	a.in("BNE loop")
	a.jump(tAJ, tBJ, 2, "loop2")
	a.jump(tAJ3, tBJ3, 3, "loop3")

	a.field(tBias, tmpReg)
	a.in("CBZ R%d, nobias", tmpReg)
	a.in("MOVD R%d, R%d", tmpReg, bReg)
	a.columns("VLD1", bReg, 0, w)
	for i := range m {
		for j := range nv {
			a.op("FADD", acc(i, j), acc(i, j), j)
		}
	}
	a.label("nobias")
	a.rows(tC0, tC1, tCS, h0, h1)
	a.field(tFlags, 1)
	a.in("TST $%d, R1", flagAccumulate)
	a.in("BEQ fresh")
	for i := range m {
		a.columns("VLD1", rowReg+i, 0, w)
		for j := range nv {
			a.op("FADD", acc(i, j), acc(i, j), j)
		}
	}
	a.label("fresh")
	a.activate(1, all, 0)
	for i := range m {
		a.columns("VST1", rowReg+i, acc(i, 0), w)
	}
	a.in("RET")
}

// jump ends an outer loop: a and b move by their jumps.
func (a *arm) jump(ja, jb, counter int, top string) {
	a.field(ja, tmpReg)
	a.in("ADD R%d, R%d, R%d", tmpReg, aOff, aOff)
	a.field(jb, tmpReg)
	a.in("ADD R%d, R%d, R%d", tmpReg, bReg, bReg)
	a.in("SUBS $1, R%d, R%d", counter, counter)
	a.in("BNE %s", top)
}

// sparse emits the sparse convolutions for blocks of 1 and 4 output channels.
func (a *arm) sparse() {
	var init strings.Builder
	for _, block := range []int{1, 4} {
		for nv := 1; nv <= map[int]int{1: 8, 4: 5}[block]; nv++ {
			name := fmt.Sprintf("sparseNEON_b%d_v%d", block, nv)
			a.sparseTile(name, block, nv)
			fmt.Fprintf(&init, "\t{%d, %d}: %s,\n", block, nv, name)
		}
	}
	a.tables += "\n// sparseNEON lists the sparse kernels by block and vectors of pixels.\nvar sparseNEON = map[[2]int]func(*sparseArgs){\n" + init.String() + "}\n"
}

func (a *arm) sparseTile(name string, block, nv int) {
	a.fn(name, "sparseArgs", fmt.Sprintf("computes %d vectors of pixels for blocks of %d channels as sparseArgs says.", nv, block))
	for i, off := range []int{sBlocks, sX, sCount, sOffs, sW, sOut, sOutStride, sBias, sFlags} {
		a.field(off, 1+i)
	}
	const blocks, x, cnt, offs, w, out, stride, bias, flags, n, at = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
	acc := func(b, j int) int { return accVec + b*nv + j } // V0..V5: pixels and weights
	var all []int
	a.label("block")
	for b := range block {
		a.in("FMOVS %d(R%d), F0", 4*b, bias)
		for j := range nv {
			a.in("VDUP V0.S[0], V%d.S4", acc(b, j))
			all = append(all, acc(b, j))
		}
	}
	a.in("MOVW.P 4(R%d), R%d", cnt, n)
	a.in("CBZ R%d, store", n)
	a.label("entry")
	a.in("MOVW.P 4(R%d), R%d", offs, at)
	a.in("ADD R%d, R%d, R%d", x, at, at)
	if block == 4 {
		a.in("VLD1.P 16(R%d), [V7.S4]", w)
		a.span("VLD1", at, 0, nv)
		for b := range block {
			for j := range nv {
				a.fmlaLane(acc(b, j), j, 7, b)
			}
		}
	} else {
		a.in("FMOVS.P 4(R%d), F7", w)
		for j := 0; j < nv; j += 4 {
			k := min(4, nv-j)
			if j+k < nv {
				a.in("VLD1.P %d(R%d), [%s]", 16*k, at, "V0.S4, V1.S4, V2.S4, V3.S4")
			} else {
				a.span("VLD1", at, 0, k)
			}
			for i := range k {
				a.fmlaLane(acc(0, j+i), i, 7, 0)
			}
		}
	}
	a.in("SUBS $1, R%d, R%d", n, n)
	a.in("BNE entry")
	a.label("store")
	a.activate(flags, all, 0)
	for b := range block {
		a.in("MOVD R%d, R%d", out, at)
		a.span("VST1", at, acc(b, 0), nv)
		a.in("ADD R%d, R%d, R%d", stride, out, out)
	}
	a.in("ADD $%d, R%d, R%d", 4*block, bias, bias)
	a.in("SUBS $1, R%d, R%d", blocks, blocks)
	a.in("BNE block")
	a.in("RET")
}

// strips emits body for 16 channels at a time, then for 4; the number of channels (R1, bytes after this) is a multiple
// of 4. R2 is the byte offset of the strip.
func (a *arm) strips(body func(nv int)) {
	a.field(pC, 1)
	a.in("LSL $2, R1, R1")
	a.in("MOVD $0, R2")
	for _, nv := range []int{4, 1} {
		top, next := a.unique("strip"), a.unique("narrower")
		a.label(top)
		a.in("ADD $%d, R2, R3", 16*nv)
		a.in("CMP R1, R3")
		a.in("BGT %s", next)
		body(nv)
		a.in("ADD $%d, R2, R2", 16*nv)
		a.in("B %s", top)
		a.label(next)
	}
	a.in("RET")
}

// bump adds the word at an offset of the arguments to a register.
func (a *arm) bump(off, r int) {
	a.field(off, tmpReg)
	a.in("ADD R%d, R%d, R%d", tmpReg, r, r)
}

// taps emits the loops over kernel rows (R7) and columns (R8) for a window at R4; body sees the tap at R6.
func (a *arm) taps(body, afterRow func()) {
	rows, cols := a.unique("rows"), a.unique("cols")
	a.field(pKH, 7)
	a.in("MOVD R4, R5")
	a.label(rows)
	a.field(pKW, 8)
	a.in("MOVD R5, R6")
	a.label(cols)
	body()
	a.bump(pXW, 6)
	a.in("SUBS $1, R8, R8")
	a.in("BNE %s", cols)
	a.bump(pXH, 5)
	afterRow()
	a.in("SUBS $1, R7, R7")
	a.in("BNE %s", rows)
}

// pixels emits the loop over output pixels (R9) with x at R4 and y at R10.
func (a *arm) pixels(y, ys int, body func()) {
	top := a.unique("pixel")
	a.field(pX, 4)
	a.in("ADD R2, R4, R4")
	a.field(y, 10)
	a.in("ADD R2, R10, R10")
	a.field(pN, 9)
	a.label(top)
	body()
	a.bump(pXS, 4)
	a.bump(ys, 10)
	a.in("SUBS $1, R9, R9")
	a.in("BNE %s", top)
}

func (a *arm) depth() {
	a.fn("depthNEON", "depthArgs", "is a depthwise convolution of a line of pixels; channels a multiple of 4.")
	a.strips(func(nv int) {
		a.pixels(dY, dYS, func() {
			var all []int
			for j := range nv {
				a.zero(accVec + j)
				all = append(all, accVec+j)
			}
			empty, nobias, fresh := a.unique("empty"), a.unique("nobias"), a.unique("fresh")
			a.field(pKH, 7)
			a.in("CBZ R7, %s", empty)
			a.field(dW, 11)
			a.in("ADD R2, R11, R11")
			a.taps(func() {
				a.span("VLD1", 6, 0, nv)
				a.span("VLD1", 11, 4, nv)
				for j := range nv {
					a.op("FMLA", accVec+j, j, 4+j)
				}
				a.bump(dWW, 11)
			}, func() { a.bump(dWJ, 11) })
			a.label(empty)
			a.field(dBias, 11)
			a.in("CBZ R11, %s", nobias)
			a.in("ADD R2, R11, R11")
			a.span("VLD1", 11, 0, nv)
			for j := range nv {
				a.op("FADD", accVec+j, accVec+j, j)
			}
			a.label(nobias)
			a.field(dFlags, 12)
			a.in("TST $%d, R12", flagAccumulate)
			a.in("BEQ %s", fresh)
			a.span("VLD1", 10, 0, nv)
			for j := range nv {
				a.op("FADD", accVec+j, accVec+j, j)
			}
			a.label(fresh)
			a.activate(12, all, 0)
			a.span("VST1", 10, accVec, nv)
		})
	})
}

func (a *arm) maxPool() {
	a.fn("maxPoolNEON", "poolArgs", "takes the maximum of every window; channels a multiple of 4.")
	a.strips(func(nv int) {
		a.pixels(pY, pYS, func() {
			a.span("VLD1", 4, accVec, nv)
			a.taps(func() {
				a.span("VLD1", 6, 0, nv)
				for j := range nv { // keep m where m > v
					a.op("FCMGT", 4+j, accVec+j, j)
					a.op("BIF", accVec+j, j, 4+j)
				}
			}, func() {})
			a.span("VST1", 10, accVec, nv)
		})
	})
}
