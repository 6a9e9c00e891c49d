//go:build !purego

package kernel

import "unsafe"

var avx512QuantTiles, avx2QuantTiles, avx2QuantSums [3][9][9]func(*quantArgs)

func fillQuant(t *[3][9][9]func(*quantArgs), from map[[3]int]func(*quantArgs)) {
	for k, f := range from {
		t[k[0]][k[1]][k[2]] = f
	}
}

// avx512Quant needs AVX-512 VNNI; processors without it use avx2Quant.
var avx512Quant = quantImpl{
	tiler: tiler{
		mr: 14, half: 7,
		width: func(m, n int) int {
			if m <= 4 {
				return width(n, 16, 4)
			}
			return width(n, 16, 2)
		},
		tile: func(t *tileArgs, h0, h1, n int) {
			vectors := (n + 15) / 16
			t.mask = 1<<(n-16*(vectors-1)) - 1
			avx512QuantTiles[min(vectors-1, 2)][h0][h1](quantOf(t))
		},
	},
	widen: widenAVX, maxPool: maxPoolBytesAVX, wino: avx2QuantWino, quantize: quantizeAVX, dequantize: dequantizeAVX,
}

var avx2Quant = quantImpl{
	tiler: tiler{
		mr: 6, half: 3,
		width: avx2QuantWidth,
		tile: func(t *tileArgs, h0, h1, n int) {
			q := quantOf(t)
			if n < 8 {
				quantEdge(q, avx2QuantTiles[0][h0][h1], h0, h1, n)
				return
			}
			avx2QuantTiles[n/16][h0][h1](q)
		},
	},
	pairs: true, widen: widenAVX, maxPool: maxPoolBytesAVX, wino: avx2QuantWino, quantize: quantizeAVX, dequantize: dequantizeAVX,
}

func avx2QuantWidth(m, n int) int {
	switch {
	case m <= 2 && n >= 32:
		return 32
	case n >= 16:
		return 16
	}
	return min(n, 8)
}

// avx2QuantWino serves AVX-512 too: there VNNI makes the direct way faster, so that wider vectors would gain nothing.
var avx2QuantWino = quantWino{
	tiler: tiler{
		mr: 6, half: 3, width: avx2QuantWidth,
		tile: func(t *tileArgs, h0, h1, n int) { avx2QuantSums[n/16][h0][h1](quantOf(t)) },
	},
	input: quantWinoInput, output: quantWinoOutput,
}

func widenAVX(dst, src ptr, n int) {
	if n >= 16 {
		widenBytes(dst, src, n)
	}
	if r := n & 15; r > 0 {
		genericWiden(unsafe.Add(dst, 2*(n-r)), unsafe.Add(src, n-r), r)
	}
}

func maxPoolBytesAVX(p *poolArgs) {
	c := p.c
	if p.c = c &^ 15; p.c > 0 {
		maxPoolBytes(p)
	}
	if r := c & 15; r > 0 {
		q := *p
		q.c, q.x, q.y = r, unsafe.Add(p.x, p.c), unsafe.Add(p.y, p.c)
		genericMaxPoolBytes(&q)
	}
	p.c = c
}

func quantizeAVX(dst, src ptr, n int, h *quantParams) {
	n8 := n &^ 7
	if n8 > 0 {
		quantize8(dst, src, n8, h)
	}
	if n8 < n {
		genericQuantize(unsafe.Add(dst, n8), at(src, n8), n-n8, h)
	}
}

func dequantizeAVX(dst, src ptr, n int, h *quantParams) {
	n8 := n &^ 7
	if n8 > 0 {
		dequantize8(dst, src, n8, h)
	}
	if n8 < n {
		genericDequantize(at(dst, n8), unsafe.Add(src, n8), n-n8, h)
	}
}
