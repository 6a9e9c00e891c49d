package kernel

import (
	"math"
	"unsafe"
)

// genericMaxPool scans the window in order and keeps m where m > v, so that a NaN lasts until the next element.
func genericMaxPool(p *poolArgs) {
	for i := range p.n {
		x, y := unsafe.Add(p.x, i*p.xs), floats(unsafe.Add(p.y, i*p.ys), p.c)
		for ch := range y {
			m := f32(x, 4*ch)
			for kh := range p.kh {
				for kw := range p.kw {
					if v := f32(x, kh*p.xh+kw*p.xw+4*ch); !(m > v) {
						m = v
					}
				}
			}
			y[ch] = m
		}
	}
}

func genericMaxPoolGrad(p *poolArgs) {
	for i := range p.n {
		x, dx := unsafe.Add(p.x, i*p.xs), unsafe.Add(p.dx, i*p.xs)
		y, dy := floats(unsafe.Add(p.y, i*p.ys), p.c), floats(unsafe.Add(p.dy, i*p.ys), p.c)
		for ch, m := range y {
			g := dy[ch]
			if p.flags&flagReLU != 0 && !(m > 0) {
				g = 0
			}
			for kh := range p.kh {
				for kw := range p.kw {
					off := kh*p.xh + kw*p.xw + 4*ch
					d := (*float32)(unsafe.Add(dx, off))
					var v float32
					if f32(x, off) == m {
						v, g = g, 0
					}
					if p.flags&flagAccumulate != 0 {
						v += *d
					}
					*d = v
				}
			}
		}
	}
}

func genericAvgPool(p *poolArgs) {
	for i := range p.n {
		x, y := unsafe.Add(p.x, i*p.xs), floats(unsafe.Add(p.y, i*p.ys), p.c)
		for ch := range y {
			var s float32
			for kh := range p.kh {
				for kw := range p.kw {
					s += f32(x, kh*p.xh+kw*p.xw+4*ch)
				}
			}
			y[ch] = s * p.scale
		}
	}
}

func genericAvgPoolGrad(p *poolArgs) {
	for i := range p.n {
		dx, dy := unsafe.Add(p.dx, i*p.xs), floats(unsafe.Add(p.dy, i*p.ys), p.c)
		for kh := range p.kh {
			for kw := range p.kw {
				d := floats(unsafe.Add(dx, kh*p.xh+kw*p.xw), p.c)
				for ch, g := range dy {
					d[ch] += float32(g * p.scale)
				}
			}
		}
	}
}

func genericAdd(dst, a, b ptr, n int, flags uint64) {
	d, x, y := floats(dst, n), floats(a, n), floats(b, n)
	for i := range d {
		d[i] = activate(x[i]+y[i], flags)
	}
}

func genericAxpy(alpha float32, x, y ptr, n int) {
	d := floats(y, n)
	for i, v := range floats(x, n) {
		d[i] += float32(alpha * v)
	}
}

func genericScale(alpha float32, x ptr, n int) {
	d := floats(x, n)
	for i := range d {
		d[i] *= alpha
	}
}

func genericReLU(dst, x ptr, n int, flags uint64) {
	d := floats(dst, n)
	for i, v := range floats(x, n) {
		d[i] = activate(v, flags)
	}
}

// genericReLUGrad passes dy where 0 < y (and y < 6 for ReLU6), and zero elsewhere.
func genericReLUGrad(dst, y, dy ptr, n int, flags uint64) {
	d, g := floats(dst, n), floats(dy, n)
	for i, v := range floats(y, n) {
		if 0 < v && (flags&flagReLU6 == 0 || v < 6) {
			d[i] = g[i]
		} else {
			d[i] = 0
		}
	}
}

// genericDropout: element i survives, scaled by h[3] (the bits of a float32), where a hash of i under the keys h[0] and h[1]
// is above h[2]; the others become zero. The hash is MurmurHash3's finalizer (Appleby, 2011), cut to 31 bits, with the second
// key added halfway.
func genericDropout(dst, src ptr, n int, h *[4]uint32) {
	d, scale := floats(dst, n), math.Float32frombits(h[3])
	for i, v := range floats(src, n) {
		x := uint32(i)*0x9e3779b9 + h[0]
		x = (x^x>>16)*0x85ebca6b + h[1]
		x = (x ^ x>>13) * 0xc2b2ae35
		x = (x ^ x>>16) >> 1
		if v *= scale; int32(x) <= int32(h[2]) {
			v = 0
		}
		d[i] = v
	}
}

func genericColSum(x, out ptr, rows, c int) {
	o := floats(out, c)
	for r := range rows {
		for i, v := range floats(at(x, r*c), c) {
			o[i] += v
		}
	}
}

func genericColSqDev(x, mean, out ptr, rows, c int) {
	o, m := floats(out, c), floats(mean, c)
	for r := range rows {
		for i, v := range floats(at(x, r*c), c) {
			e := v - m[i]
			o[i] += float32(e * e)
		}
	}
}

func genericColDot(x, mean, dy, out ptr, rows, c int) {
	o, m := floats(out, c), floats(mean, c)
	for r := range rows {
		g := floats(at(dy, r*c), c)
		for i, v := range floats(at(x, r*c), c) {
			o[i] += float32((v - m[i]) * g[i])
		}
	}
}

func genericAffine(y, x, s, t ptr, rows, c int, flags uint64) {
	sc, sh := floats(s, c), floats(t, c)
	for r := range rows {
		d := floats(at(y, r*c), c)
		for i, v := range floats(at(x, r*c), c) {
			v = float32(v*sc[i]) + sh[i]
			if flags&flagAccumulate != 0 {
				v += d[i]
			}
			d[i] = activate(v, flags)
		}
	}
}

func genericAffine2(z, x, y, a, b, d ptr, rows, c int) {
	ca, cb, cd := floats(a, c), floats(b, c), floats(d, c)
	for r := range rows {
		o, u := floats(at(z, r*c), c), floats(at(y, r*c), c)
		for i, v := range floats(at(x, r*c), c) {
			o[i] = float32(v*ca[i]) + (float32(u[i]*cb[i]) + cd[i])
		}
	}
}

// genericAffineGrad passes dy where the activation of x*s + t is not flat, as genericReLUGrad does, and without one
// everywhere; it adds what passes, and that times x - mean, to the columns' sums.
func genericAffineGrad(dy, x, s, t, mean, sum, dot ptr, rows, c int, flags uint64) {
	sc, sh, mu, total, dots := floats(s, c), floats(t, c), floats(mean, c), floats(sum, c), floats(dot, c)
	for r := range rows {
		d := floats(at(dy, r*c), c)
		for i, v := range floats(at(x, r*c), c) {
			if y := float32(v*sc[i]) + sh[i]; flags != 0 && !(0 < y && (flags&flagReLU6 == 0 || y < 6)) {
				d[i] = 0
			}
			total[i] += d[i]
			dots[i] += float32((v - mu[i]) * d[i])
		}
	}
}

// genericSGD: h = scale, decay, L1, momentum, then the factors of v and of g' in the step: rate and 0, or under
// Nesterov rate*momentum and rate.
//
//	g' = g*scale + decay*w + l1*sign(w);  v = momentum*v + g';  w -= h[4]*v + h[5]*g'
func genericSGD(w, v, g ptr, n int, h *[6]float32) {
	ws, vs := floats(w, n), floats(v, n)
	for i, d := range floats(g, n) {
		d = float32(d*h[0]) + float32(ws[i]*h[1]) + l1Sign(ws[i], h[2])
		m := float32(vs[i]*h[3]) + d
		vs[i] = m
		ws[i] -= float32(m*h[4]) + float32(d*h[5])
	}
}

func l1Sign(w, l1 float32) float32 {
	switch {
	case w > 0:
		return l1
	case w < 0:
		return -l1
	}
	return 0
}

// genericAdam: h = scale, decay into the gradient, L1, beta1, 1-beta1, beta2, 1-beta2, rate/(1-beta1^t),
// 1/sqrt(1-beta2^t), epsilon, 1 - rate*decay (decoupled).
//
//	g' = g*scale + decay*w + l1*sign(w);  m = beta1*m + (1-beta1)*g';  v = beta2*v + (1-beta2)*g'*g'
//	w = w*(1-rate*decay) - (rate/c1)*m / (sqrt(v)/sqrt(c2) + epsilon)
func genericAdam(w, m, v, g ptr, n int, h *[11]float32) {
	ws, ms, vs := floats(w, n), floats(m, n), floats(v, n)
	for i, d := range floats(g, n) {
		d = float32(d*h[0]) + float32(ws[i]*h[1]) + l1Sign(ws[i], h[2])
		ms[i] = float32(ms[i]*h[3]) + float32(d*h[4])
		vs[i] = float32(vs[i]*h[5]) + float32(float32(d*d)*h[6])
		den := float32(float32(math.Sqrt(float64(vs[i])))*h[8]) + h[9]
		ws[i] = float32(ws[i]*h[10]) - float32(ms[i]*h[7])/den
	}
}
