//go:build !purego

package kernel

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/cpu"
)

// platformImpls returns NEON, which every arm64 processor has, after its form with the dot product extension where
// that is there. What has no NEON form runs the generic one.
func platformImpls() []*impl {
	cpuBrand = brand()
	neon := genericImpl
	neon.variant = NEON
	neon.mr, neon.half = 6, 3
	neon.width = func(_, n int) int {
		for _, w := range []int{16, 8, 4} {
			if n >= w {
				return w
			}
		}
		return n
	}
	var tiles [6][4][4]func(*tileArgs)
	for k, f := range tilesNEON {
		tiles[k[0]][k[1]][k[2]] = f
	}
	kinds := [17]uint8{1: 0, 2: 1, 3: 2, 4: 3, 8: 4, 16: 5}
	neon.tile = func(a *tileArgs, h0, h1, n int) { tiles[kinds[n]][h0][h1](a) }
	var sparse [5][9]func(*sparseArgs)
	for k, f := range sparseNEON {
		sparse[k[0]][k[1]] = f
	}
	neon.lanes, neon.sparsePixels, neon.sparseMost = 4, 4, [2]int{8, 5}
	neon.sparse = func(a *sparseArgs, block, vectors int) { sparse[block][vectors](a) }
	neon.depth = depthWithRest
	neon.maxPool = maxPoolWithRest
	neon.quant = neonQuant
	neon.add, neon.axpy, neon.scale, neon.relu, neon.reluGrad = addNEON, axpyNEON, scaleNEON, reluNEON, reluGradNEON
	neon.colSum, neon.colSqDev, neon.colDot, neon.affine, neon.affine2 = colSumNEON, colSqDevNEON, colDotNEON, affineNEON, affine2NEON
	neon.sgd, neon.adam = sgdNEON, adamNEON
	if !cpu.ARM64.HasASIMDDP {
		return []*impl{&neon}
	}
	dot := neon
	dot.variant, dot.quant = NEONDot, dotQuant
	return []*impl{&dot, &neon}
}

// depthWithRest leaves the channels past a multiple of 4 to the generic form.
func depthWithRest(d *depthArgs) {
	c := d.c
	if d.c = c &^ 3; d.c > 0 {
		depthNEON(d)
	}
	if c&3 != 0 {
		r, off := *d, d.c
		r.c, r.x, r.w, r.y, r.bias = c&3, at(d.x, off), at(d.w, off), at(d.y, off), atOrNil(d.bias, off)
		genericDepth(&r)
	}
	d.c = c
}

func maxPoolWithRest(p *poolArgs) {
	c := p.c
	if p.c = c &^ 3; p.c > 0 {
		maxPoolNEON(p)
	}
	if c&3 != 0 {
		r := *p
		r.c, r.x, r.y = c&3, at(p.x, p.c), at(p.y, p.c)
		genericMaxPool(&r)
	}
	p.c = c
}

// brand names the processor by its main identification register, which Linux shows.
func brand() string {
	const midr = "/sys/devices/system/cpu/cpu0/regs/identification/midr_el1"
	b, err := os.ReadFile(midr)
	if err != nil {
		return "arm64"
	}
	return fmt.Sprintf("arm64 %s", strings.TrimSpace(string(b)))
}
