package main

import (
	"bytes"
	"fmt"
	"go/format"
	"os"
	"path/filepath"
	"strings"
)

// arm writes arm64 assembly as text. Go's assembler lacks most floating-point vector instructions, so these are encoded
// here (Arm Architecture Reference Manual, C7) and written as words.
type arm struct {
	asm    strings.Builder
	decls  []decl
	tables string
	labels int
}

// Vector instructions on four single-precision lanes, with registers d, n, m at their places.
var armOps = map[string]uint32{
	"FADD": 0x4e20d400, "FSUB": 0x4ea0d400, "FMUL": 0x6e20dc00, "FMLA": 0x4e20cc00, "FMIN": 0x4ea0f400,
	"FCMGT": 0x6ea0e400, "BIF": 0x6ee01c00, "BIC": 0x4e601c00, "FDIV": 0x6e20fc00, "FMAXNM": 0x4e20c400, "SMAX": 0x4ea06400, "SMIN": 0x4ea06c00,
}

// Vector instructions of one operand. XTN narrows words to halfwords, XTNb halfwords to bytes; the forms with 2 write
// the upper half of the destination.
var armOps2 = map[string]uint32{
	"SCVTF": 0x4e21d800, "FCVTNS": 0x4e21a800, "FSQRT": 0x6ea1f800, "FCMLT0": 0x4ea0e800,
	"XTN": 0x0e612800, "XTN2": 0x4e612800, "XTNb": 0x0e212800, "XTN2b": 0x4e212800,
}

// in writes an instruction of Go's assembler.
func (a *arm) in(f string, args ...any) { fmt.Fprintf(&a.asm, "\t"+f+"\n", args...) }

func (a *arm) label(name string) { fmt.Fprintf(&a.asm, "%s:\n", name) }

// unique makes a label name.
func (a *arm) unique(name string) string {
	a.labels++
	return fmt.Sprintf("%s%d", name, a.labels)
}

// op writes an encoded instruction: Vd = Vn op Vm.
func (a *arm) op(name string, d, n, m int) {
	a.in("WORD $0x%08x // %s V%d.4S, V%d.4S, V%d.4S", armOps[name]|uint32(m)<<16|uint32(n)<<5|uint32(d), name, d, n, m)
}

// op2 writes an encoded instruction: Vd = op Vn.
func (a *arm) op2(name string, d, n int) {
	a.in("WORD $0x%08x // %s V%d, V%d", armOps2[name]|uint32(n)<<5|uint32(d), name, d, n)
}

// smlalLane writes Vd += Vn * Vm[lane]: four halfwords, the lower or the upper ones, into words. m is less than 16.
func (a *arm) smlalLane(d, n, m, lane int, upper bool) {
	w, name, half := uint32(0x0f402000), "SMLAL", "4H"
	if upper {
		w, name, half = 0x4f402000, "SMLAL2", "8H"
	}
	w |= uint32(lane&1)<<20 | uint32(lane>>1&1)<<21 | uint32(lane>>2)<<11 | uint32(m)<<16 | uint32(n)<<5 | uint32(d)
	a.in("WORD $0x%08x // %s V%d.4S, V%d.%s, V%d.H[%d]", w, name, d, n, half, m, lane)
}

// sdotLane writes Vd += the sums of products of the quadruples of signed bytes in Vn with the first one in Vm.
func (a *arm) sdotLane(d, n, m int) {
	a.in("WORD $0x%08x // SDOT V%d.4S, V%d.16B, V%d.4B[0]", 0x4f80e000|uint32(m)<<16|uint32(n)<<5|uint32(d), d, n, m)
}

// regs lists n vector registers from v on.
func regs(v, n int, arrangement string) string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf("V%d.%s", v+i, arrangement))
	}
	return strings.Join(list, ", ")
}

// fmlaLane writes Vd += Vn * Vm[lane].
func (a *arm) fmlaLane(d, n, m, lane int) {
	w := 0x4f801000 | uint32(lane&1)<<21 | uint32(lane>>1)<<11 | uint32(m)<<16 | uint32(n)<<5 | uint32(d)
	a.in("WORD $0x%08x // FMLA V%d.4S, V%d.4S, V%d.S[%d]", w, d, n, m, lane)
}

func (a *arm) zero(v int) { a.in("VEOR V%d.B16, V%d.B16, V%d.B16", v, v, v) }

// fn starts a function with one pointer argument, which it leaves in R0.
func (a *arm) fn(name, typ, doc string) {
	a.decls = append(a.decls, decl{name, "(p *" + typ + ")", name + " " + doc})
	fmt.Fprintf(&a.asm, "\n// func %s(p *%s)\nTEXT ·%s(SB), NOSPLIT, $0-8\n", name, typ, name)
	a.in("MOVD p+0(FP), R0")
}

// fnArgs starts a function with parameters of one word each, written as in Go, which it leaves in R0, R1 and so on. A
// float32 goes to the vector register of that number instead.
func (a *arm) fnArgs(name, doc, params string) {
	a.decls = append(a.decls, decl{name, "(" + params + ")", name + " " + doc})
	var names []string
	float := map[string]bool{}
	for _, p := range strings.Split(params, ", ") {
		n, typ, _ := strings.Cut(p, " ")
		names = append(names, n)
		float[n] = typ == "float32"
	}
	fmt.Fprintf(&a.asm, "\n// func %s(%s)\nTEXT ·%s(SB), NOSPLIT, $0-%d\n", name, params, name, 8*len(names))
	for i, n := range names {
		if float[n] {
			a.in("FMOVS %s+%d(FP), F%d", n, 8*i, i)
		} else {
			a.in("MOVD %s+%d(FP), R%d", n, 8*i, i)
		}
	}
}

// field loads the word at an offset of the arguments.
func (a *arm) field(off, r int) { a.in("MOVD %d(R0), R%d", off, r) }

// span loads or stores n consecutive vectors from v on at register r, which is clobbered if there are more than four.
func (a *arm) span(op string, r, v, n int) {
	for n > 0 {
		k := min(n, 4)
		list, mem, post := "["+regs(v, k, "S4")+"]", fmt.Sprintf("(R%d)", r), ""
		if n > 4 {
			post, mem = ".P", fmt.Sprintf("%d(R%d)", 16*k, r)
		}
		if op == "VLD1" {
			a.in("VLD1%s %s, %s", post, mem, list)
		} else {
			a.in("VST1%s %s, %s", post, list, mem)
		}
		v, n = v+k, n-k
	}
}

// activate applies the activation in flags (a register) to vectors; tmp is free.
func (a *arm) activate(flags int, vs []int, tmp int) {
	done := a.unique("linear")
	a.in("TST $%d, R%d", flagReLU|flagReLU6, flags)
	a.in("BEQ %s", done)
	for _, v := range vs { // zero where v < 0: neither NaN nor -0
		a.op2("FCMLT0", tmp, v)
		a.op("BIC", v, v, tmp)
	}
	a.in("TST $%d, R%d", flagReLU6, flags)
	a.in("BEQ %s", done)
	a.in("FMOVS $6.0, F%d", tmp)
	a.in("VDUP V%d.S[0], V%d.S4", tmp, tmp)
	for _, v := range vs {
		a.op("FMIN", v, v, tmp)
	}
	a.label(done)
}

func (a *arm) write(dir string) error {
	base := filepath.Join(dir, "neon_arm64")
	head := "// Code generated by model/kernel/gen. DO NOT EDIT.\n\n//go:build !purego\n\n"
	if err := os.WriteFile(base+".s", []byte(head+"#include \"textflag.h\"\n"+a.asm.String()), 0o644); err != nil {
		return err
	}
	var b bytes.Buffer
	b.WriteString(head + "package kernel\n")
	for _, d := range a.decls {
		fmt.Fprintf(&b, "\n// %s\n//\n//go:noescape\nfunc %s%s\n", d.doc, d.name, d.sig)
	}
	b.WriteString(a.tables)
	src, err := format.Source(b.Bytes())
	if err != nil {
		return err
	}
	return os.WriteFile(base+".go", src, 0o644)
}
