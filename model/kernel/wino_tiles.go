package kernel

// run computes images [n0, n1) of y in blocks: transform the input's tiles, multiply, transform the products.
func (p *winoPlan) run(im *impl, s *Scratch, x, u, y []float32, n0, n1 int, bias ptr, flags uint64) {
	for i := n0; i < n1; i += p.images {
		n := min(p.images, n1-i)
		tiles := n * p.th * p.tw
		va := p.inputs(im, s, x, i, n)
		vb := tiles*p.oc + 16
		s.winoB = grow(s.winoB, 36*vb)
		for k := range 36 {
			m := matrix{m: tiles, n: p.oc, k: p.ic, a: addr(s.winoA, k*va), as: p.ic, ak: 1, b: addr(u, k*p.ic*p.oc), ldb: p.oc,
				c: addr(s.winoB, k*vb), ldc: p.oc}
			m.run(im, s, nil, 0)
		}
		p.outputs(im, s, y, i, n, vb, bias, flags)
	}
}

// inputs transforms the tiles of n images from image i on into s.winoA, 36 planes of [tiles][ic], and returns the
// distance between planes. It is no power of two: 36 stores go to one place of each.
func (p *winoPlan) inputs(im *impl, s *Scratch, x []float32, i, n int) (plane int) {
	plane = n*p.th*p.tw*p.ic + 16
	s.winoA = grow(s.winoA, 36*plane)
	s.patch = grow(s.patch, 36*max(p.ic, p.oc))
	t := &s.wino
	t.c, t.dh, t.dw, t.flags, t.bias = p.ic, 4*6*plane, 4*plane, 0, nil
	tile := 0
	for img := i; img < i+n; img++ {
		first := img * p.h * p.w * p.ic
		for ty := range p.th {
			for tx := range p.tw {
				y0, x0 := 4*ty-p.top, 4*tx-p.left
				t.dst = addr(s.winoA, tile*p.ic)
				if y0 >= 0 && x0 >= 0 && y0+6 <= p.h && x0+6 <= p.w {
					t.src, t.sh, t.sw = addr(x, first+(y0*p.w+x0)*p.ic), 4*p.w*p.ic, 4*p.ic
				} else {
					loadPatch(s.patch, x[first:], 0, y0, x0, 6, p.h, p.w, p.ic)
					t.src, t.sh, t.sw = addr(s.patch, 0), 4*6*p.ic, 4*p.ic
				}
				im.wino.input(t)
				tile++
			}
		}
	}
	return plane
}

// loadPatch copies the size by size patch at (y0, x0) of an image of h by w pixels with c channels, and fill outside.
func loadPatch[T float32 | uint8](dst, img []T, fill T, y0, x0, size, h, w, c int) {
	lo, hi := max(x0, 0), min(x0+size, w)
	for r := range size {
		row := dst[r*size*c : (r+1)*size*c]
		if y := y0 + r; y < 0 || y >= h || lo >= hi {
			repeat(row, fill)
			continue
		}
		repeat(row[:(lo-x0)*c], fill)
		copy(row[(lo-x0)*c:], img[((y0+r)*w+lo)*c:((y0+r)*w+hi)*c])
		repeat(row[(hi-x0)*c:], fill)
	}
}

// repeat sets all of dst to v.
func repeat[T any](dst []T, v T) {
	if len(dst) == 0 {
		return
	}
	dst[0] = v
	for n := 1; n < len(dst); n *= 2 {
		copy(dst[n:], dst[:n])
	}
}

// outGrads transforms the 4 by 4 tiles of the gradient of n images of outputs into s.winoB.
func (p *winoPlan) outGrads(im *impl, s *Scratch, dy []float32, i, n int) (plane int) {
	plane = n*p.th*p.tw*p.oc + 16
	s.winoB = grow(s.winoB, 36*plane)
	t := &s.wino
	t.c, t.dh, t.dw, t.flags, t.bias = p.oc, 4*6*plane, 4*plane, 0, nil
	tile := 0
	for img := i; img < i+n; img++ {
		first := img * p.oh * p.ow * p.oc
		for ty := range p.th {
			for tx := range p.tw {
				y0, x0 := 4*ty, 4*tx
				t.dst = addr(s.winoB, tile*p.oc)
				if y0+4 <= p.oh && x0+4 <= p.ow {
					t.src, t.sh, t.sw = addr(dy, first+(y0*p.ow+x0)*p.oc), 4*p.ow*p.oc, 4*p.oc
				} else {
					loadPatch(s.patch, dy[first:], 0, y0, x0, 4, p.oh, p.ow, p.oc)
					t.src, t.sh, t.sw = addr(s.patch, 0), 4*4*p.oc, 4*p.oc
				}
				im.wino.outGrad(t)
				tile++
			}
		}
	}
	return plane
}

// outputs transforms the products in s.winoB to the tiles of n images of y.
func (p *winoPlan) outputs(im *impl, s *Scratch, y []float32, i, n, plane int, bias ptr, flags uint64) {
	t := &s.wino
	t.c, t.sh, t.sw, t.flags, t.bias = p.oc, 4*6*plane, 4*plane, flags, bias
	tile := 0
	for img := i; img < i+n; img++ {
		out := y[img*p.oh*p.ow*p.oc:]
		for ty := range p.th {
			for tx := range p.tw {
				y0, x0 := 4*ty, 4*tx
				t.src = addr(s.winoB, tile*p.oc)
				tile++
				if y0+4 <= p.oh && x0+4 <= p.ow {
					t.dst, t.dh, t.dw = addr(out, (y0*p.ow+x0)*p.oc), 4*p.ow*p.oc, 4*p.oc
					im.wino.output(t)
					continue
				}
				if flags&flagAccumulate != 0 {
					loadPatch(s.patch, out, 0, y0, x0, 4, p.oh, p.ow, p.oc)
				}
				t.dst, t.dh, t.dw = addr(s.patch, 0), 4*4*p.oc, 4*p.oc
				im.wino.output(t)
				cols := min(4, p.ow-x0)
				for r := 0; r < 4 && y0+r < p.oh; r++ {
					copy(out[((y0+r)*p.ow+x0)*p.oc:((y0+r)*p.ow+x0+cols)*p.oc], s.patch[4*r*p.oc:])
				}
			}
		}
	}
}
