//go:build !purego

package kernel

import (
	"encoding/binary"
	"strings"
	"unsafe"

	"golang.org/x/sys/cpu"
)

// platformImpls returns the vector variants that this processor and its operating system support, best first.
func platformImpls() []*impl {
	cpuBrand = brand()
	x := &cpu.X86
	if !x.HasAVX2 || !x.HasFMA || !x.HasBMI2 {
		return nil
	}
	impls := []*impl{&avx2Impl}
	if x.HasAVX512F && x.HasAVX512BW && x.HasAVX512DQ && x.HasAVX512VL {
		impls = append([]*impl{&avx512Impl}, impls...)
	}
	if !x.HasAVX512VNNI {
		avx512Impl.quant = avx2Quant
	}
	fillQuant(&avx512QuantTiles, quant512)
	fillQuant(&avx2QuantTiles, quant256)
	fillQuant(&avx2QuantSums, quantSums256)
	fill(&avx512Tiles, tiles512)
	fill(&avx2Tiles, tiles256)
	for k, f := range sparse512 {
		avx512Sparse[k[0]][k[1]] = f
	}
	for k, f := range sparse256 {
		avx2Sparse[k[0]][k[1]] = f
	}
	return impls
}

// brand returns the name the processor gives itself.
func brand() string {
	if top, _, _, _ := cpuid(0x80000000); top < 0x80000004 {
		return "amd64"
	}
	var b []byte
	for leaf := uint32(0x80000002); leaf <= 0x80000004; leaf++ {
		a, bx, c, d := cpuid(leaf)
		for _, r := range []uint32{a, bx, c, d} {
			b = binary.LittleEndian.AppendUint32(b, r)
		}
	}
	return strings.Join(strings.Fields(strings.TrimRight(string(b), "\x00")), " ")
}

// tileTable holds micro-kernels by kind and halves.
type tileTable [8][9][9]func(*tileArgs)

var avx512Tiles, avx2Tiles tileTable

// Sparse kernels by block and number of vectors.
var avx512Sparse, avx2Sparse [5][29]func(*sparseArgs)

func fill(t *tileTable, from map[[3]int]func(*tileArgs)) {
	for k, f := range from {
		t[k[0]][k[1]][k[2]] = f
	}
}

// width chooses among 1, 2, 4 and 8 vectors of lanes columns: the fewest that hold n columns if the last is used at
// all, but no more than most.
func width(n, lanes, most int) int {
	for v := most; v > 2; v /= 2 {
		if n >= v*lanes {
			return v * lanes
		}
		if n > (v-1)*lanes {
			return n
		}
	}
	return min(n, 2*lanes)
}

// kind maps a width to a row of tileTable and the number of columns of a last vector that is not full, or 0.
func kind(n, lanes int) (k, rest int) {
	rest = n % lanes
	switch vectors := (n + lanes - 1) / lanes; {
	case vectors > 4:
		k = 6
	case vectors > 2:
		k = 4
	case vectors > 1:
		k = 2
	}
	if rest != 0 {
		k++
	}
	return k, rest
}

var avx512Impl = impl{
	variant: AVX512,
	tiler: tiler{
		mr: 15, half: 7,
		width: func(m, n int) int {
			switch {
			case m == 1:
				return width(n, 16, 8)
			case m <= 4:
				return width(n, 16, 4)
			}
			return width(n, 16, 2)
		},
		tile: func(a *tileArgs, h0, h1, n int) {
			k, rest := kind(n, 16)
			a.mask = 1<<rest - 1
			avx512Tiles[k][h0][h1](a)
		},
	},
	quant: avx512Quant,
	wino:  winoImpl{winoInput512, winoOutput512, winoWeights512, winoOutGrad512, winoWeightGrad512},
	depth: func(d *depthArgs) {
		if d.kh == 3 && d.kw == 3 {
			depthNine512(d)
			return
		}
		depth512(d)
	},
	depthPlane: depthPlane512, depthGrad: depthGrad512, depthBack: depthBack512,
	maxPool: func(p *poolArgs) {
		if p.kh == 2 && p.kw == 2 {
			maxPool2512(p)
			return
		}
		maxPool512(p)
	},
	maxPoolGrad: func(p *poolArgs) {
		if p.kh == 2 && p.kw == 2 && p.flags&flagAccumulate == 0 {
			maxPoolGrad2512(p)
			return
		}
		maxPoolGrad512(p)
	},
	avgPool: avgPool512, avgPoolGrad: avgPoolGrad512,
	add: add512, axpy: axpy512, scale: scale512, relu: relu512, reluGrad: reluGrad512, dropout: dropout512,
	colSum: colSum512, colSqDev: colSqDev512, colDot: colDot512, affine: affine512, affine2: affine2512,
	affineGrad: affineGrad512,
	sgd:        sgd512, adam: adam512, transpose: transposeAVX, peak: peak512,
	lanes: 16, sparsePixels: 8, sparseMost: [2]int{28, 6}, gather: gatherAVX,
	sparse: func(a *sparseArgs, block, vectors int) { avx512Sparse[block][vectors](a) },
}

var avx2Impl = impl{
	variant: AVX2,
	tiler: tiler{
		mr: 6, half: 3,
		width: func(m, n int) int {
			switch m {
			case 1:
				return width(n, 8, 8)
			case 2:
				return width(n, 8, 4)
			}
			return width(n, 8, 2)
		},
		tile: func(a *tileArgs, h0, h1, n int) {
			k, rest := kind(n, 8)
			a.mask = uint64(rest)
			avx2Tiles[k][h0][h1](a)
		},
	},
	quant: avx2Quant,
	wino:  winoImpl{winoInput256, winoOutput256, winoWeights256, winoOutGrad256, winoWeightGrad256},
	depth: func(d *depthArgs) {
		if d.kh == 3 && d.kw == 3 {
			depthNine256(d)
			return
		}
		depth256(d)
	},
	depthPlane: depthPlane256, depthGrad: depthGrad256, depthBack: depthBack256,
	maxPool: func(p *poolArgs) {
		if p.kh == 2 && p.kw == 2 {
			maxPool2256(p)
			return
		}
		maxPool256(p)
	},
	maxPoolGrad: func(p *poolArgs) {
		if p.kh == 2 && p.kw == 2 && p.flags&flagAccumulate == 0 {
			maxPoolGrad2256(p)
			return
		}
		maxPoolGrad256(p)
	},
	avgPool: avgPool256, avgPoolGrad: avgPoolGrad256,
	add: add256, axpy: axpy256, scale: scale256, relu: relu256, reluGrad: reluGrad256, dropout: dropout256,
	colSum: colSum256, colSqDev: colSqDev256, colDot: colDot256, affine: affine256, affine2: affine2256,
	affineGrad: affineGrad256,
	sgd:        sgd256, adam: adam256, transpose: transposeAVX, peak: peak256,
	lanes: 8, sparsePixels: 8, sparseMost: [2]int{12, 3}, gather: gatherAVX,
	sparse: func(a *sparseArgs, block, vectors int) { avx2Sparse[block][vectors](a) },
}

// transposeAVX transposes blocks of 8 by 8, and the rest in Go. It goes along the rows of src, or along those of dst
// where these would compete for cache lines, or are the longer ones and not too many lines.
func transposeAVX(dst, src ptr, m, n, ldd, lds int) {
	m8, n8 := m&^7, n&^7
	switch {
	case n8 == 0 || m8 == 0:
	case aliases(ldd), n8 < m8 && m8 <= 128:
		for j := 0; j < n8; j += 8 {
			transpose8(at(dst, j*ldd), at(src, j), m8/8, 4*ldd, 4*lds, 32, 32*lds)
		}
	default:
		for i := 0; i < m8; i += 8 {
			transpose8(at(dst, i), at(src, i*lds), n8/8, 4*ldd, 4*lds, 32*ldd, 32)
		}
	}
	if m8 < m && n8 > 0 {
		genericTranspose(at(dst, m8), at(src, m8*lds), m-m8, n8, ldd, lds)
	}
	if n8 < n {
		genericTranspose(at(dst, n8*ldd), at(src, n8), m, n-n8, ldd, lds)
	}
}

func gatherAVX(w ptr, idx *int32, x ptr, n, block int, out *[4]float32) {
	if block == 1 {
		gather1AVX(w, unsafe.Pointer(idx), x, unsafe.Pointer(out), n)
		return
	}
	gather4AVX(w, unsafe.Pointer(idx), x, unsafe.Pointer(out), n)
}
