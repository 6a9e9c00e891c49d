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
	s.zeros = grow(s.zeros, p.zeros())
	t := &s.wino
	t.c, t.dh, t.dw, t.step, t.next, t.flags, t.bias = p.ic, 4*6*plane, 4*plane, 16*p.ic, 4*p.ic, 0, nil
	tile := 0
	for img := i; img < i+n; img++ {
		in := x[img*p.h*p.w*p.ic:]
		for ty := range p.th {
			for _, r := range p.ins {
				t.patch(in, addr(s.zeros, 0), 6, 4*ty-p.top, 4*r.tx-p.left, p.h, p.w, p.ic)
				t.n, t.dst = r.n, addr(s.winoA, tile*p.ic)
				im.wino.input(t)
				tile += r.n
			}
		}
	}
	return plane
}

// outGrads transforms the 4 by 4 tiles of the gradient of n images of outputs into s.winoB.
func (p *winoPlan) outGrads(im *impl, s *Scratch, dy []float32, i, n int) (plane int) {
	plane = n*p.th*p.tw*p.oc + 16
	s.winoB = grow(s.winoB, 36*plane)
	s.zeros = grow(s.zeros, p.zeros())
	t := &s.wino
	t.c, t.dh, t.dw, t.step, t.next, t.flags, t.bias = p.oc, 4*6*plane, 4*plane, 16*p.oc, 4*p.oc, 0, nil
	tile := 0
	for img := i; img < i+n; img++ {
		in := dy[img*p.oh*p.ow*p.oc:]
		for ty := range p.th {
			for _, r := range p.outs {
				t.patch(in, addr(s.zeros, 0), 4, 4*ty, 4*r.tx, p.oh, p.ow, p.oc)
				t.n, t.dst = r.n, addr(s.winoB, tile*p.oc)
				im.wino.outGrad(t)
				tile += r.n
			}
		}
	}
	return plane
}

// outputs transforms the products in s.winoB to the tiles of n images of y.
func (p *winoPlan) outputs(im *impl, s *Scratch, y []float32, i, n, plane int, bias ptr, flags uint64) {
	t := &s.wino
	t.c, t.flags, t.bias, t.dh, t.dw, t.step, t.next = p.oc, flags, bias, 4*p.ow*p.oc, 4*p.oc, 4*p.oc, 16*p.oc
	tile := 0
	for img := i; img < i+n; img++ {
		out := y[img*p.oh*p.ow*p.oc:]
		for ty := range p.th {
			for _, r := range p.outs {
				t.source(addr(s.winoB, tile*p.oc), 6, 4*6*plane, 4*plane)
				t.n, t.dst, t.high, t.wide = r.n, addr(out, (4*ty*p.ow+4*r.tx)*p.oc), min(4, p.oh-4*ty), r.to
				im.wino.output(t)
				tile += r.n
			}
		}
	}
}

// winoRun is n neighbouring tiles from tx on whose patches have the same columns [from, to) inside the image.
type winoRun struct{ tx, n, from, to int }

// winoRuns divides n tiles of patches of size columns, the first at column -left of w.
func winoRuns(n, size, left, w int) (rs []winoRun) {
	for tx := range n {
		x0 := 4*tx - left
		r := winoRun{tx: tx, n: 1, from: max(-x0, 0), to: min(size, w-x0)}
		if k := len(rs) - 1; k >= 0 && rs[k].from == r.from && rs[k].to == r.to {
			rs[k].n++
		} else {
			rs = append(rs, r)
		}
	}
	return rs
}

// zeros is how many zeros stand in for a row outside the image.
func (p *winoPlan) zeros() int { return (4*p.tw + 2) * max(p.ic, p.oc) }
