package kernel

import "unsafe"

// winoArgs describes a transform of n patches with c channels. Row i of the source lies at rows[i], which points at column
// from; columns before from and from to on are zero. Element (i, j) of the result goes to dst + i*dh + j*dw. Results of
// transforms to outputs and weights pass through the epilogue; only the first high rows and wide columns are stored.
// Distances in bytes.
type winoArgs struct {
	c          int
	rows       [6]ptr
	sw         int
	from, to   int
	dst        ptr
	dh, dw     int
	high, wide int
	flags      uint64
	bias       ptr
	n          int              // tiles, one after the other
	step, next int              // from one tile's source, and its result, to the next one's
	tmp        [36 * 16]float32 //nolint:unused // the assembly's scratch, at wTmp in gen/winograd.go
}

// source sets the rows of a patch of n by n elements, sh and sw bytes apart.
func (p *winoArgs) source(src ptr, n, sh, sw int) {
	for i := range n {
		p.rows[i] = unsafe.Add(src, i*sh)
	}
	p.sw, p.from, p.to = sw, 0, n
}

// patch sets the rows of the n by n patch at (y0, x0) of an image of h by w pixels with c channels. Rows outside the image
// lie in zeros, which holds n*c of them.
func (p *winoArgs) patch(img []float32, zeros ptr, n, y0, x0, h, w, c int) {
	lo, hi := max(x0, 0), min(x0+n, w)
	if lo >= hi {
		lo, hi = x0, x0
	}
	p.sw, p.from, p.to = 4*c, lo-x0, hi-x0
	for i := range n {
		if y := y0 + i; y >= 0 && y < h && lo < hi {
			p.rows[i] = addr(img, (y*w+lo)*c)
		} else {
			p.rows[i] = zeros
		}
	}
}

// winoImpl is one variant's transforms of Winograd's F(4×4, 3×3).
type winoImpl struct {
	input      func(*winoArgs) // 6×6 → 6×6: Bᵀ·d·B
	output     func(*winoArgs) // 6×6 → 4×4: Aᵀ·m·A, epilogue
	weights    func(*winoArgs) // 3×3 → 6×6: G·g·Gᵀ
	outGrad    func(*winoArgs) // 4×4 → 6×6: A·y·Aᵀ
	weightGrad func(*winoArgs) // 6×6 → 3×3: Gᵀ·m·G, epilogue
}

func genericWinoInput(p *winoArgs) {
	winoTransform(p, 6, 6, func(d [6]float32) (o [6]float32) {
		a, b := d[4]-float32(4*d[2]), d[3]-float32(4*d[1])
		c, e := d[4]-d[2], float32(2*(d[3]-d[1]))
		o[0] = d[4] - float32(5*d[2]) + float32(4*d[0])
		o[1], o[2], o[3], o[4] = a+b, a-b, c+e, c-e
		o[5] = d[5] - float32(5*d[3]) + float32(4*d[1])
		return o
	})
}

func genericWinoOutput(p *winoArgs) {
	winoTransform(p, 6, 4, func(m [6]float32) (o [6]float32) {
		s1, s2, s3, s4 := m[1]+m[2], m[1]-m[2], m[3]+m[4], m[3]-m[4]
		o[0], o[1], o[2], o[3] = m[0]+s1+s3, s2+float32(2*s4), s1+float32(4*s3), s2+float32(8*s4)+m[5]
		return o
	})
}

func genericWinoWeights(p *winoArgs) {
	winoTransform(p, 3, 6, func(w [6]float32) (o [6]float32) {
		e, f := -float32((w[0]+w[2])*(1./6)), float32(w[2]*(1./6))+float32(w[0]*(1./24))
		o[0], o[5] = w[0]*(1./4), w[2]
		o[1], o[2] = e-float32(w[1]*(1./6)), e+float32(w[1]*(1./6))
		o[3], o[4] = f+float32(w[1]*(1./12)), f-float32(w[1]*(1./12))
		return o
	})
}

func genericWinoOutGrad(p *winoArgs) {
	winoTransform(p, 4, 6, func(y [6]float32) (o [6]float32) {
		e, d := y[0]+y[2], y[1]+y[3]
		e2, d2 := y[0]+float32(4*y[2]), float32(2*y[1])+float32(8*y[3])
		o[0], o[1], o[2], o[3], o[4], o[5] = y[0], e+d, e-d, e2+d2, e2-d2, y[3]
		return o
	})
}

func genericWinoWeightGrad(p *winoArgs) {
	winoTransform(p, 6, 3, func(m [6]float32) (o [6]float32) {
		a, b, c, d := m[1]+m[2], m[2]-m[1], m[3]+m[4], m[3]-m[4]
		o[0] = float32(m[0]*(1./4)) - float32(a*(1./6)) + float32(c*(1./24))
		o[1] = float32(b*(1./6)) + float32(d*(1./12))
		o[2] = m[5] + float32((c-a)*(1./6))
		return o
	})
}

// winoTransform applies f to the columns of the in by in patches, then to the rows of what that gives.
func winoTransform(p *winoArgs, in, out int, f func(x [6]float32) [6]float32) {
	for tile := range p.n {
		winoTile(p, in, out, tile*p.step, tile*p.next, f)
	}
}

// winoTile is one patch, whose source and result lie that far from the first one's.
func winoTile(p *winoArgs, in, out, src, dst int, f func(x [6]float32) [6]float32) {
	high, wide := out, out
	if out < 6 && in > 4 { // those with an epilogue
		high, wide = p.high, p.wide
	}
	for ch := range p.c {
		var mid [6][6]float32
		var x [6]float32
		for j := range in {
			for i := range in {
				x[i] = 0
				if j >= p.from && j < p.to {
					x[i] = f32(p.rows[i], src+(j-p.from)*p.sw+4*ch)
				}
			}
			for i, v := range f(x) {
				mid[i][j] = v
			}
		}
		for i := range high {
			o := f(mid[i])
			for j := range wide {
				v, d := o[j], (*float32)(unsafe.Add(p.dst, dst+i*p.dh+j*p.dw+4*ch))
				if p.bias != nil {
					v += f32(p.bias, 4*ch)
				}
				if p.flags&flagAccumulate != 0 {
					v += *d
				}
				*d = activate(v, p.flags)
			}
		}
	}
}
