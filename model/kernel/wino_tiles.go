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
	s.zeros = grow(s.zeros, 6*max(p.ic, p.oc))
	t := &s.wino
	t.c, t.dh, t.dw, t.flags, t.bias = p.ic, 4*6*plane, 4*plane, 0, nil
	tile := 0
	for img := i; img < i+n; img++ {
		in := x[img*p.h*p.w*p.ic:]
		for ty := range p.th {
			for tx := range p.tw {
				t.patch(in, addr(s.zeros, 0), 6, 4*ty-p.top, 4*tx-p.left, p.h, p.w, p.ic)
				t.dst = addr(s.winoA, tile*p.ic)
				im.wino.input(t)
				tile++
			}
		}
	}
	return plane
}

// outGrads transforms the 4 by 4 tiles of the gradient of n images of outputs into s.winoB.
func (p *winoPlan) outGrads(im *impl, s *Scratch, dy []float32, i, n int) (plane int) {
	plane = n*p.th*p.tw*p.oc + 16
	s.winoB = grow(s.winoB, 36*plane)
	s.zeros = grow(s.zeros, 6*max(p.ic, p.oc))
	t := &s.wino
	t.c, t.dh, t.dw, t.flags, t.bias = p.oc, 4*6*plane, 4*plane, 0, nil
	tile := 0
	for img := i; img < i+n; img++ {
		in := dy[img*p.oh*p.ow*p.oc:]
		for ty := range p.th {
			for tx := range p.tw {
				t.patch(in, addr(s.zeros, 0), 4, 4*ty, 4*tx, p.oh, p.ow, p.oc)
				t.dst = addr(s.winoB, tile*p.oc)
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
	t.c, t.flags, t.bias, t.dh, t.dw = p.oc, flags, bias, 4*p.ow*p.oc, 4*p.oc
	tile := 0
	for img := i; img < i+n; img++ {
		out := y[img*p.oh*p.ow*p.oc:]
		for ty := range p.th {
			for tx := range p.tw {
				t.source(addr(s.winoB, tile*p.oc), 6, 4*6*plane, 4*plane)
				t.dst, t.high, t.wide = addr(out, (4*ty*p.ow+4*tx)*p.oc), min(4, p.oh-4*ty), min(4, p.ow-4*tx)
				im.wino.output(t)
				tile++
			}
		}
	}
}
