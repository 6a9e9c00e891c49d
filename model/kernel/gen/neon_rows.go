package main

// The elementwise and column kernels round as the generic ones do, multiplication and addition apart, so that a result
// does not depend on where a range begins or ends.

// move loads or stores consecutive elements, nv vectors from v on or a single element when nv is 0, and moves on.
func (a *arm) move(op string, r, v, nv int) {
	switch {
	case nv > 0 && op == "VLD1":
		a.in("VLD1.P %d(R%d), [%s]", 16*nv, r, regs(v, nv, "S4"))
	case nv > 0:
		a.in("VST1.P [%s], %d(R%d)", regs(v, nv, "S4"), 16*nv, r)
	case op == "VLD1":
		a.in("FMOVS.P 4(R%d), F%d", r, v)
	default:
		a.in("FMOVS.P F%d, 4(R%d)", v, r)
	}
}

// each emits loops over R<n> elements: most vectors at a time, then one, then single elements.
func (a *arm) each(n, most int, body func(nv int)) {
	widths := []int{most, 1, 0}
	if most == 1 {
		widths = widths[1:]
	}
	for _, nv := range widths {
		top, next, step := a.unique("loop"), a.unique("narrower"), max(4*nv, 1)
		a.label(top)
		a.in("CMP $%d, R%d", step, n)
		a.in("BLT %s", next)
		body(nv)
		a.in("SUB $%d, R%d, R%d", step, n, n)
		a.in("B %s", top)
		a.label(next)
	}
	a.in("RET")
}

// vectors is how many registers a width of each takes.
func vectors(nv int) int { return max(nv, 1) }

func span(first, n int) (vs []int) {
	for i := range n {
		vs = append(vs, first+i)
	}
	return vs
}

// spread broadcasts the lowest lane of a register.
func (a *arm) spread(v int) { a.in("VDUP V%d.S[0], V%d.S4", v, v) }

// constants broadcasts n consecutive numbers at register r, from vector v on. r moves on.
func (a *arm) constants(r, v, n int) {
	for i := range n {
		a.in("VLD1R.P 4(R%d), [V%d.S4]", r, v+i)
	}
}

func (a *arm) elementwise() {
	a.fnArgs("addNEON", "writes act(a + b).", "dst, a, b ptr, n int, flags uint64")
	a.each(3, 4, func(nv int) {
		k := vectors(nv)
		a.move("VLD1", 1, 0, nv)
		a.move("VLD1", 2, 4, nv)
		for v := range k {
			a.op("FADD", v, v, 4+v)
		}
		a.activate(4, span(0, k), 8)
		a.move("VST1", 0, 0, nv)
	})
	a.fnArgs("axpyNEON", "adds alpha*x to y.", "alpha float32, x, y ptr, n int")
	a.spread(0)
	a.each(3, 3, func(nv int) {
		a.in("MOVD R2, R4")
		a.move("VLD1", 1, 1, nv)
		a.move("VLD1", 4, 4, nv)
		for v := range vectors(nv) {
			a.op("FMUL", 1+v, 1+v, 0)
			a.op("FADD", 4+v, 4+v, 1+v)
		}
		a.move("VST1", 2, 4, nv)
	})
	a.fnArgs("scaleNEON", "multiplies x by alpha.", "alpha float32, x ptr, n int")
	a.spread(0)
	a.each(2, 3, func(nv int) {
		a.in("MOVD R1, R4")
		a.move("VLD1", 4, 1, nv)
		for v := range vectors(nv) {
			a.op("FMUL", 1+v, 1+v, 0)
		}
		a.move("VST1", 1, 1, nv)
	})
	a.fnArgs("reluNEON", "writes act(x).", "dst, x ptr, n int, flags uint64")
	a.each(2, 4, func(nv int) {
		a.move("VLD1", 1, 0, nv)
		a.activate(3, span(0, vectors(nv)), 8)
		a.move("VST1", 0, 0, nv)
	})
	a.reluGrad()
}

func (a *arm) reluGrad() {
	a.fnArgs("reluGradNEON", "passes dy where 0 < y (and y < 6 for ReLU6), and zero elsewhere.", "dst, y, dy ptr, n int, flags uint64")
	a.zero(16)
	a.in("FMOVS $6.0, F17")
	a.spread(17)
	a.zero(18) // all ones where there is no upper bound
	a.in("TST $%d, R4", flagReLU6)
	a.in("BNE bounded")
	a.in("VMOVI $255, V18.B16")
	a.label("bounded")
	a.each(3, 4, func(nv int) {
		a.move("VLD1", 1, 0, nv)
		a.move("VLD1", 2, 4, nv)
		for v := range vectors(nv) {
			a.op("FCMGT", 8, 17, v)
			a.in("VORR V18.B16, V8.B16, V8.B16")
			a.op("FCMGT", 9, v, 16)
			a.in("VAND V8.B16, V9.B16, V8.B16")
			a.in("VAND V8.B16, V%d.B16, V%d.B16", 4+v, 4+v)
		}
		a.move("VST1", 0, 4, nv)
	})
}

// regularized leaves g*h[0] + w*h[1] + sign(w)*h[2] in d = V0, with w in V1. h is broadcast from V16 on, V30 is zero and
// V31 -h[2].
func (a *arm) regularized() {
	a.op("FMUL", 0, 0, 16)
	a.op("FMUL", 4, 1, 17)
	a.op("FADD", 0, 0, 4)
	a.op("FCMGT", 4, 1, 30)
	a.in("VAND V18.B16, V4.B16, V4.B16")
	a.op("FCMGT", 5, 30, 1)
	a.in("VAND V31.B16, V5.B16, V5.B16")
	a.in("VORR V5.B16, V4.B16, V4.B16")
	a.op("FADD", 0, 0, 4)
}

// optimizers emits the steps of SGD and Adam; the vectors in the loop are w, the moments and temporaries.
func (a *arm) optimizers() {
	a.fnArgs("sgdNEON", "is a step of SGD as genericSGD says.", "w, v, grad ptr, n int, h *[6]float32")
	a.constants(4, 16, 6)
	a.zero(30)
	a.op("FSUB", 31, 30, 18)
	a.each(3, 1, func(nv int) {
		a.in("MOVD R0, R5")
		a.in("MOVD R1, R6")
		a.move("VLD1", 2, 0, nv)
		a.move("VLD1", 5, 1, nv)
		a.move("VLD1", 6, 2, nv)
		a.regularized()
		a.op("FMUL", 2, 2, 19)
		a.op("FADD", 2, 2, 0)
		a.op("FMUL", 4, 2, 20)
		a.op("FMUL", 5, 0, 21)
		a.op("FADD", 4, 4, 5)
		a.op("FSUB", 1, 1, 4)
		a.move("VST1", 0, 1, nv)
		a.move("VST1", 1, 2, nv)
	})

	a.fnArgs("adamNEON", "is a step of Adam as genericAdam says.", "w, m, v, grad ptr, n int, h *[11]float32")
	a.constants(5, 16, 11)
	a.zero(30)
	a.op("FSUB", 31, 30, 18)
	a.each(4, 1, func(nv int) {
		for i := range 3 {
			a.in("MOVD R%d, R%d", i, 6+i)
			a.move("VLD1", 6+i, 1+i, nv)
		}
		a.move("VLD1", 3, 0, nv)
		a.regularized()
		a.op("FMUL", 2, 2, 19)
		a.op("FMUL", 4, 0, 20)
		a.op("FADD", 2, 2, 4)
		a.op("FMUL", 3, 3, 21)
		a.op("FMUL", 4, 0, 0)
		a.op("FMUL", 4, 4, 22)
		a.op("FADD", 3, 3, 4)
		a.op2("FSQRT", 4, 3)
		a.op("FMUL", 4, 4, 24)
		a.op("FADD", 4, 4, 25)
		a.op("FMUL", 5, 2, 23)
		a.op("FDIV", 5, 5, 4)
		a.op("FMUL", 1, 1, 26)
		a.op("FSUB", 1, 1, 5)
		for i := range 3 {
			a.move("VST1", i, 1+i, nv)
		}
	})
}

// byColumns emits loops over strips of R<c> columns and, within them, R<rows> rows. before and after see a strip, row a
// row of it, with matrices (registers) at the row in R10 and on.
func (a *arm) byColumns(matrices []int, rows, c, most int, before, row, after func(nv int)) {
	a.in("LSL $2, R%d, R9", c)
	a.each(c, most, func(nv int) {
		before(nv)
		for i, r := range matrices {
			a.in("MOVD R%d, R%d", r, 10+i)
			a.in("ADD $%d, R%d, R%d", max(16*nv, 4), r, r)
		}
		top := a.unique("row")
		a.in("MOVD R%d, R8", rows)
		a.label(top)
		row(nv)
		for i := range matrices {
			a.in("ADD R9, R%d, R%d", 10+i, 10+i)
		}
		a.in("SUBS $1, R8, R8")
		a.in("BNE %s", top)
		after(nv)
	})
}

// peek loads or stores as move does, without moving on.
func (a *arm) peek(op string, r, v, nv int) { a.columns(op, r, v, max(4*nv, 1)) }

func (a *arm) columnSums() {
	for _, kind := range []string{"colSum", "colSqDev", "colDot"} {
		doc, params := "adds rows to out.", "x, out ptr, rows, c int"
		matrices, mean, out, rows := []int{0}, -1, 1, 2
		switch kind {
		case "colSqDev":
			doc, params = "adds the rows of (x-mean)^2 to out.", "x, mean, out ptr, rows, c int"
			mean, out, rows = 1, 2, 3
		case "colDot":
			doc, params = "adds the rows of (x-mean)*dy to out.", "x, mean, dy, out ptr, rows, c int"
			matrices, mean, out, rows = []int{0, 2}, 1, 3, 4
		}
		a.fnArgs(kind+"NEON", doc, params)
		a.byColumns(matrices, rows, rows+1, 4, func(nv int) {
			a.peek("VLD1", out, 16, nv)
			if mean >= 0 {
				a.move("VLD1", mean, 20, nv)
			}
		}, func(nv int) {
			a.peek("VLD1", 10, 0, nv)
			if kind == "colDot" {
				a.peek("VLD1", 11, 4, nv)
			}
			for v := range vectors(nv) {
				switch kind {
				case "colSqDev":
					a.op("FSUB", v, v, 20+v)
					a.op("FMUL", v, v, v)
				case "colDot":
					a.op("FSUB", v, v, 20+v)
					a.op("FMUL", v, v, 4+v)
				}
				a.op("FADD", 16+v, 16+v, v)
			}
		}, func(nv int) { a.move("VST1", out, 16, nv) })
	}
}

func (a *arm) affines() {
	a.fnArgs("affineNEON", "writes act(x*s + t), or with the old y added.", "y, x, s, t ptr, rows, c int, flags uint64")
	a.byColumns([]int{0, 1}, 4, 5, 4, func(nv int) {
		a.move("VLD1", 2, 16, nv)
		a.move("VLD1", 3, 20, nv)
	}, func(nv int) {
		k, fresh := vectors(nv), a.unique("fresh")
		a.peek("VLD1", 11, 0, nv)
		for v := range k {
			a.op("FMUL", v, v, 16+v)
			a.op("FADD", v, v, 20+v)
		}
		a.in("TST $%d, R6", flagAccumulate)
		a.in("BEQ %s", fresh)
		a.peek("VLD1", 10, 4, nv)
		for v := range k {
			a.op("FADD", v, v, 4+v)
		}
		a.label(fresh)
		a.activate(6, span(0, k), 8)
		a.peek("VST1", 10, 0, nv)
	}, func(int) {})

	a.fnArgs("affine2NEON", "writes a*x + b*y + d.", "z, x, y, a, b, d ptr, rows, c int")
	a.byColumns([]int{0, 1, 2}, 6, 7, 4, func(nv int) {
		for i := range 3 {
			a.move("VLD1", 3+i, 16+4*i, nv)
		}
	}, func(nv int) {
		a.peek("VLD1", 11, 0, nv)
		a.peek("VLD1", 12, 4, nv)
		for v := range vectors(nv) {
			a.op("FMUL", v, v, 16+v)
			a.op("FMUL", 4+v, 4+v, 20+v)
			a.op("FADD", 4+v, 4+v, 24+v)
			a.op("FADD", v, v, 4+v)
		}
		a.peek("VST1", 10, 0, nv)
	}, func(int) {})
}
