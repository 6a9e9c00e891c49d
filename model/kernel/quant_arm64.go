//go:build !purego

package kernel

import "unsafe"

// neonQuant runs on every processor, dotQuant on those with the dot product extension.
var (
	neonQuant = newNEONQuant(quantNEON, true)
	dotQuant  = newNEONQuant(quantDot, false)
)

func newNEONQuant(from map[[3]int]func(*quantArgs), pairs bool) quantImpl {
	var tiles [3][4][4]func(*quantArgs)
	for k, f := range from {
		tiles[k[0]][k[1]][k[2]] = f
	}
	return quantImpl{
		tiler: tiler{
			mr: 6, half: 3,
			width: func(m, n int) int {
				switch {
				case m <= 2 && n >= 32:
					return 32
				case n >= 16:
					return 16
				}
				return min(n, 8)
			},
			tile: func(t *tileArgs, h0, h1, n int) {
				q := quantOf(t)
				if n < 8 {
					quantEdge(q, tiles[0][h0][h1], h0, h1, n)
					return
				}
				tiles[n/16][h0][h1](q)
			},
		},
		pairs: pairs, signed: !pairs, widen: widenWithRest, maxPool: maxPoolBytesWithRest, wino: genericQuantWino,
		quantize: quantizeWithRest, dequantize: dequantizeWithRest,
	}
}

func widenWithRest(dst, src ptr, n int) {
	if n >= 16 {
		widenNEON(dst, src, n&^15)
	}
	if r := n & 15; r > 0 {
		genericWiden(unsafe.Add(dst, 2*(n-r)), unsafe.Add(src, n-r), r)
	}
}

func maxPoolBytesWithRest(p *poolArgs) {
	c := p.c
	if p.c = c &^ 15; p.c > 0 {
		maxPoolBytesNEON(p)
	}
	if r := c & 15; r > 0 {
		q := *p
		q.c, q.x, q.y = r, unsafe.Add(p.x, p.c), unsafe.Add(p.y, p.c)
		genericMaxPoolBytes(&q)
	}
	p.c = c
}

func quantizeWithRest(dst, src ptr, n int, h *quantParams) {
	n8 := n &^ 7
	if n8 > 0 {
		quantizeNEON(dst, src, n8, h)
	}
	if n8 < n {
		genericQuantize(unsafe.Add(dst, n8), at(src, n8), n-n8, h)
	}
}

func dequantizeWithRest(dst, src ptr, n int, h *quantParams) {
	n8 := n &^ 7
	if n8 > 0 {
		dequantizeNEON(dst, src, n8, h)
	}
	if n8 < n {
		genericDequantize(at(dst, n8), unsafe.Add(src, n8), n-n8, h)
	}
}
