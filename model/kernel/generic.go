package kernel

import "unsafe"

// genericImpl is the portable variant and the reference for all others. Products are rounded before they are added
// (the conversions keep the compiler from fusing), so that its results are the same on every processor.
var genericImpl = impl{
	variant:      Generic,
	tiler:        tiler{mr: 16, half: 8, width: func(_, n int) int { return min(n, 64) }, tile: genericTile},
	quant:        genericQuant,
	depth:        genericDepth,
	depthGrad:    genericDepthGrad,
	depthBack:    genericDepthBack,
	maxPool:      genericMaxPool,
	maxPoolGrad:  genericMaxPoolGrad,
	avgPool:      genericAvgPool,
	avgPoolGrad:  genericAvgPoolGrad,
	add:          genericAdd,
	axpy:         genericAxpy,
	scale:        genericScale,
	relu:         genericReLU,
	reluGrad:     genericReLUGrad,
	dropout:      genericDropout,
	colSum:       genericColSum,
	colSqDev:     genericColSqDev,
	colDot:       genericColDot,
	affine:       genericAffine,
	affine2:      genericAffine2,
	affineGrad:   genericAffineGrad,
	sgd:          genericSGD,
	adam:         genericAdam,
	wino:         winoImpl{genericWinoInput, genericWinoOutput, genericWinoWeights, genericWinoOutGrad, genericWinoWeightGrad},
	lanes:        8,
	sparsePixels: 8,
	sparseMost:   [2]int{8, 8},
	sparse:       genericSparse,
	gather:       genericGather,
	transpose:    genericTranspose,
}

// floats views n elements at p as a slice.
func floats(p ptr, n int) []float32 { return unsafe.Slice((*float32)(p), n) }

// f32 reads the element at a byte offset.
func f32(p ptr, off int) float32 { return *(*float32)(unsafe.Add(p, off)) }

// clampReLU is max(0, v) as the vector instructions compute it: NaN and -0 stay.
func clampReLU(v float32) float32 {
	if 0 > v {
		return 0
	}
	return v
}

func activate(v float32, flags uint64) float32 {
	if flags&(flagReLU|flagReLU6) != 0 {
		v = clampReLU(v)
	}
	if flags&flagReLU6 != 0 && 6 < v {
		return 6
	}
	return v
}

func genericTile(t *tileArgs, h0, h1, n int) {
	var acc [64]float32
	for i := range h0 + h1 {
		a, c, r := t.a0, t.c0, i
		if i >= h0 {
			a, c, r = t.a1, t.c1, i-h0
		}
		a, c = unsafe.Add(a, r*t.as), unsafe.Add(c, r*t.cs)
		row := acc[:n]
		clear(row)
		ao, bo := 0, 0
		for range t.k3 {
			for range t.k2 {
				for range t.k {
					v := f32(a, ao)
					for j, w := range floats(unsafe.Add(t.b, bo), n) {
						row[j] += float32(v * w)
					}
					ao, bo = ao+t.ak, bo+t.bk
				}
				ao, bo = ao+t.aj, bo+t.bj
			}
			ao, bo = ao+t.aj3, bo+t.bj3
		}
		out := floats(c, n)
		if t.bias != nil {
			for j, w := range floats(t.bias, n) {
				row[j] += w
			}
		}
		if t.flags&flagAccumulate != 0 {
			for j, w := range out {
				row[j] += w
			}
		}
		for j, v := range row {
			out[j] = activate(v, t.flags)
		}
	}
}

func genericDepth(d *depthArgs) {
	for i := range d.n {
		x, y := unsafe.Add(d.x, i*d.xs), floats(unsafe.Add(d.y, i*d.ys), d.c)
		for ch := range y {
			var s float32
			w := 4 * ch
			for kh := range d.kh {
				for kw := range d.kw {
					s += float32(f32(x, kh*d.xh+kw*d.xw+4*ch) * f32(d.w, w))
					w += d.ww
				}
				w += d.wj
			}
			if d.bias != nil {
				s += f32(d.bias, 4*ch)
			}
			if d.flags&flagAccumulate != 0 {
				s += y[ch]
			}
			y[ch] = activate(s, d.flags)
		}
	}
}

func genericDepthGrad(r *rowsArgs) {
	z := floats(r.z, r.c)
	for ch := range z {
		var s float32
		for m := range r.m {
			for n := range r.n {
				s += float32(f32(r.x, m*r.xm+n*r.xn+4*ch) * f32(r.y, m*r.ym+n*r.yn+4*ch))
			}
		}
		z[ch] += s
	}
}

func genericDepthBack(r *rowsArgs) {
	z := floats(r.z, r.c)
	for m := range r.m {
		for n := range r.n {
			x, y := floats(unsafe.Add(r.x, m*r.xm+n*r.xn), r.c), floats(unsafe.Add(r.y, m*r.ym+n*r.yn), r.c)
			for ch, w := range z {
				x[ch] += float32(y[ch] * w)
			}
		}
	}
}

func genericTranspose(dst, src ptr, m, n, ldd, lds int) {
	for i := range m {
		for j, v := range floats(at(src, i*lds), n) {
			*(*float32)(at(dst, j*ldd+i)) = v
		}
	}
}

func genericSparse(a *sparseArgs, block, vectors int) {
	var acc [64]float32
	pixels := vectors * 8
	row := acc[:pixels]
	entry := 0
	for k := range a.blocks {
		first, n := entry, int(*(*int32)(unsafe.Add(unsafe.Pointer(a.count), 4*k)))
		for b := range block {
			v := f32(a.bias, 4*(k*block+b))
			for i := range row {
				row[i] = v
			}
			for e := first; e < first+n; e++ {
				w := f32(a.w, 4*(e*block+b))
				off := int(*(*int32)(unsafe.Add(unsafe.Pointer(a.offs), 4*e)))
				for i, x := range floats(unsafe.Add(a.x, off), pixels) {
					row[i] += float32(w * x)
				}
			}
			out := floats(unsafe.Add(a.out, (k*block+b)*a.outStride), pixels)
			for i, s := range row {
				out[i] = activate(s, a.flags)
			}
		}
		entry = first + n
	}
}

func genericGather(w ptr, idx *int32, x ptr, n, block int, out *[4]float32) {
	clear(out[:block])
	for i := range n {
		v := f32(x, 4*int(*(*int32)(unsafe.Add(unsafe.Pointer(idx), 4*i))))
		for b := range block {
			out[b] += float32(f32(w, 4*(i*block+b)) * v)
		}
	}
}
