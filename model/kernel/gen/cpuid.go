package main

import (
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// cpuid emits access to the CPUID instruction, for the processor's name.
func (g *isa) cpuid() {
	g.fnNamed("cpuid", "(leaf uint32) (a, b, c, d uint32)", "executes CPUID.")
	g.MOVL(g.param("leaf"), EAX)
	g.XORL(ECX, ECX)
	g.CPUID()
	for _, r := range []struct {
		name string
		reg  Op
	}{{"a", EAX}, {"b", EBX}, {"c", ECX}, {"d", EDX}} {
		b, err := g.Return(r.name).Resolve()
		if err != nil {
			panic(err)
		}
		g.MOVL(r.reg, b.Addr)
	}
	g.RET()
}
