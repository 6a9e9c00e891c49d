package main

import (
	"fmt"
	"strings"
)

// quantTiles emits the micro-kernels on 8-bit integers: for every processor on pairs of 16-bit values, and with the dot
// product extension on quadruples of bytes; both exact. Kinds are 8, 16 and 32 columns, the last for few rows.
func (a *arm) quantTiles() {
	for _, dot := range []bool{false, true} {
		set, what := "quantNEON", "pairs of 16-bit values"
		if dot {
			set, what = "quantDot", "quadruples of bytes (SDOT)"
		}
		var init strings.Builder
		for h0 := 1; h0 <= 3; h0++ {
			for h1 := range h0 + 1 {
				if h1 != h0 && h1 != h0-1 && h1 != 0 {
					continue
				}
				for kind, w := range []int{8, 16, 32} {
					if w == 32 && h0+h1 > 2 {
						continue
					}
					name := fmt.Sprintf("%s_%d_%d_%d", set, h0, h1, w)
					a.quantTile(name, h0, h1, w, dot)
					fmt.Fprintf(&init, "\t{%d, %d, %d}: %s,\n", kind, h0, h1, name)
				}
			}
		}
		a.tables += fmt.Sprintf("\n// %s lists the 8-bit micro-kernels on %s by kind (8, 16, 32 columns) and halves.\nvar %s = map[[3]int]func(*quantArgs){\n%s}\n", set, what, set, init.String())
	}
}

// quantTile emits one micro-kernel of h0+h1 rows and w columns.
func (a *arm) quantTile(name string, h0, h1, w int, dot bool) {
	a.fn(name, "quantArgs", fmt.Sprintf("computes %d+%d rows and %d columns as quantArgs says.", h0, h1, w))
	m, nv := h0+h1, w/4
	acc := func(i, j int) int { return accVec + i*nv + j }
	a.field(tBias, tmpReg)
	a.span("VLD1", tmpReg, acc(0, 0), nv)
	for i := 1; i < m; i++ {
		for j := range nv {
			a.in("VMOV V%d.B16, V%d.B16", acc(0, j), acc(i, j))
		}
	}
	if dot {
		a.in("VMOVI $128, V7.B16")
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
	a.quantProducts(m, w, acc, dot)
	a.in("ADD R%d, R%d, R%d", bkReg, bReg, bReg)
	a.in("ADD R%d, R%d, R%d", akReg, aOff, aOff)
	a.in("SUBS $1, R1, R1")
	a.in("BNE loop")
	a.jump(tAJ, tBJ, 2, "loop2")
	a.jump(tAJ3, tBJ3, 3, "loop3")
	a.quantEpilogue(h0, h1, nv, acc)
}

// quantProducts emits one step of the inner loop, 16 columns at a time: weights in V0..V3, the rows of a in V4..V6.
func (a *arm) quantProducts(m, w int, acc func(i, j int) int, dot bool) {
	a.in("MOVD R%d, R%d", bReg, tmpReg)
	for first := 0; first < w; first += 16 {
		nv := min(4, (w-first)/4)
		if dot {
			a.in("VLD1.P %d(R%d), [%s]", 16*nv, tmpReg, regs(0, nv, "B16"))
		} else { // even elements of the pairs of 8 columns, then odd ones
			for j := 0; j < nv; j += 2 {
				a.in("VLD2.P 32(R%d), [%s]", tmpReg, regs(j, 2, "H8"))
			}
		}
		for i := range m {
			x := 4 + i%3
			if first == 0 {
				a.in("FMOVS (R%d)(R%d), F%d", rowReg+i, aOff, x)
				if dot { // to signed, less 128
					a.in("VEOR V7.B16, V%d.B16, V%d.B16", x, x)
				}
			}
			if dot {
				for j := range nv {
					a.sdotLane(acc(i, first/4+j), j, x)
				}
				continue
			}
			for e := range 2 {
				for j := 0; j < nv; j += 2 {
					a.smlalLane(acc(i, first/4+j), j+e, x, e, false)
					a.smlalLane(acc(i, first/4+j+1), j+e, x, e, true)
				}
			}
		}
	}
}

// quantEpilogue rounds the sums to bytes and stores them.
func (a *arm) quantEpilogue(h0, h1, nv int, acc func(i, j int) int) {
	a.field(qScale, bReg)
	for j := 0; j < nv; j += 4 {
		k := min(4, nv-j)
		a.in("VLD1.P %d(R%d), [%s]", 16*k, bReg, regs(0, k, "S4"))
		for i := range h0 + h1 {
			for e := range k {
				v := acc(i, j+e)
				a.op2("SCVTF", v, v)
				a.op("FMUL", v, v, e)
				a.op2("FCVTNS", v, v)
			}
		}
	}
	for v, off := range []int{qZero, qLo, qHi} {
		a.in("ADD $%d, R0, R%d", off, tmpReg)
		a.in("VLD1R (R%d), [V%d.S4]", tmpReg, v)
	}
	a.rows(tC0, tC1, tCS, h0, h1)
	for i := range h0 + h1 {
		for j := range nv {
			a.in("VADD V0.S4, V%d.S4, V%d.S4", acc(i, j), acc(i, j))
			a.op("SMAX", acc(i, j), acc(i, j), 1)
			a.op("SMIN", acc(i, j), acc(i, j), 2)
		}
		for j := 0; j < nv; j += 2 {
			a.narrow(acc(i, j), acc(i, j+1))
		}
		if nv == 2 {
			a.op2("XTNb", acc(i, 0), acc(i, 0))
			a.in("FMOVD F%d, (R%d)", acc(i, 0), rowReg+i)
			continue
		}
		for j := 0; j < nv; j += 4 {
			a.op2("XTNb", acc(i, j), acc(i, j))
			a.op2("XTN2b", acc(i, j), acc(i, j+2))
			a.in("VST1.P [V%d.B16], 16(R%d)", acc(i, j), rowReg+i)
		}
	}
	a.in("RET")
}

// narrow leaves in d the low halfwords of the words of d and n.
func (a *arm) narrow(d, n int) {
	a.op2("XTN", d, d)
	a.op2("XTN2", d, n)
}

// bytes8 emits what else works on bytes.
func (a *arm) bytes8() {
	a.fnArgs("widenNEON", "widens n bytes to 16 bits; n a positive multiple of 16.", "dst, src ptr, n int")
	a.label("loop")
	a.in("VLD1.P 16(R1), [V0.B16]")
	a.in("VUSHLL2 $0, V0.B16, V2.H8")
	a.in("VUSHLL $0, V0.B8, V1.H8")
	a.in("VST1.P [V1.H8, V2.H8], 32(R0)")
	a.in("SUBS $16, R2, R2")
	a.in("BNE loop")
	a.in("RET")

	a.fn("maxPoolBytesNEON", "poolArgs", "takes the maximum of every window of bytes; channels a multiple of 16.")
	a.field(pC, 1)
	a.in("MOVD $0, R2")
	a.label("strip")
	a.pixels(pY, pYS, func() {
		a.in("VLD1 (R4), [V8.B16]")
		a.taps(func() {
			a.in("VLD1 (R6), [V0.B16]")
			a.in("VUMAX V0.B16, V8.B16, V8.B16")
		}, func() {})
		a.in("VST1 [V8.B16], (R10)")
	})
	a.in("ADD $16, R2, R2")
	a.in("CMP R1, R2")
	a.in("BLT strip")
	a.in("RET")
}

// conversions emits quantization and its inverse for n elements, n a positive multiple of 8.
func (a *arm) conversions() {
	constants := func(offs ...int) { // from V16 on
		for i, off := range offs {
			a.in("ADD $%d, R3, R4", off)
			a.in("VLD1R (R4), [V%d.S4]", 16+i)
		}
	}
	a.fnArgs("quantizeNEON", "writes clamp(round(src/scale) + zero, lo, hi) as bytes; n a positive multiple of 8.", "dst, src ptr, n int, h *quantParams")
	constants(0, 16, 20, 4, 8, 12)
	a.label("loop")
	a.in("VLD1.P 32(R1), [V0.S4, V1.S4]")
	for v := range 2 {
		a.op("FDIV", v, v, 16)
		a.op("FMAXNM", v, v, 17) // the number where v is NaN, which the division has made quiet
		a.op("FMIN", v, v, 18)
		a.op2("FCVTNS", v, v)
		a.in("VADD V19.S4, V%d.S4, V%d.S4", v, v)
		a.op("SMAX", v, v, 20)
		a.op("SMIN", v, v, 21)
	}
	a.narrow(0, 1)
	a.op2("XTNb", 0, 0)
	a.in("FMOVD.P F0, 8(R0)")
	a.in("SUBS $8, R2, R2")
	a.in("BNE loop")
	a.in("RET")

	a.fnArgs("dequantizeNEON", "writes (src - zero)*scale; n a positive multiple of 8.", "dst, src ptr, n int, h *quantParams")
	constants(0, 4)
	a.label("loop")
	a.in("FMOVD.P 8(R1), F2")
	a.in("VUSHLL $0, V2.B8, V2.H8")
	a.in("VUSHLL $0, V2.H4, V0.S4")
	a.in("VUSHLL2 $0, V2.H8, V1.S4")
	for v := range 2 {
		a.in("VSUB V17.S4, V%d.S4, V%d.S4", v, v)
		a.op2("SCVTF", v, v)
		a.op("FMUL", v, v, 16)
	}
	a.in("VST1.P [V0.S4, V1.S4], 32(R0)")
	a.in("SUBS $8, R2, R2")
	a.in("BNE loop")
	a.in("RET")
}
