package kernel

import "unsafe"

// forwardDepth is the depthwise convolution: one weight per tap and channel.
func (c *Conv) forwardDepth(im *impl, s *Scratch, x, w, y ptr, images int, bias ptr, flags uint64) {
	sh := &c.s
	if c.plane && im.depthPlane != nil && sh.IC%im.lanes == 0 {
		c.forwardPlane(im, s, x, w, y, images, bias, flags)
		return
	}
	d := &s.depth
	*d = depthArgs{c: sh.IC, xw: 4 * sh.DilationW * sh.IC, xh: 4 * sh.DilationH * sh.W * sh.IC,
		ww: 4 * sh.IC, bias: bias, flags: flags}
	for i := range images {
		for _, r := range c.rows {
			for _, q := range c.cols {
				d.kh, d.kw = r.k1-r.k0, q.k1-q.k0
				d.wj = 4 * (sh.KW - d.kw) * sh.IC
				d.x, d.w, d.y = x, w, at(y, i*c.outSize+(r.lo*c.ow+q.lo)*sh.IC)
				if d.kh == 0 || d.kw == 0 {
					d.kh, d.kw = 0, 0
				} else {
					d.x = at(x, i*c.inSize+c.tapOffset(r.lo, q.lo, r.k0, q.k0))
					d.w = at(w, (r.k0*sh.KW+q.k0)*sh.IC)
				}
				c.depthSpan(im, d, r.hi-r.lo, q.hi-q.lo)
			}
		}
	}
}

// forwardPlane is forwardDepth for what the primitive depthPlane computes, with lines along the rows unless these are short.
func (c *Conv) forwardPlane(im *impl, s *Scratch, x, w, y ptr, images int, bias ptr, flags uint64) {
	sh := &c.s
	pixel, row := 4*sh.IC, 4*sh.W*sh.IC
	p := &s.plane
	*p = planeArgs{n: sh.W, lines: sh.H, c: sh.IC, s: pixel, l: row, w: w, ws: 4 * sh.IC, wl: 12 * sh.IC, flags: flags, bias: bias}
	if sh.W < 8 && sh.H > sh.W {
		p.n, p.lines, p.s, p.l, p.ws, p.wl = p.lines, p.n, p.l, p.s, p.wl, p.ws
	}
	for i := range images {
		p.x, p.y = at(x, i*c.inSize), at(y, i*c.outSize)
		im.depthPlane(p)
	}
}

// depthSpan computes rows by cols outputs from where d points, in lines along the longer side when the shorter is short:
// a line is one call.
func (c *Conv) depthSpan(im *impl, d *depthArgs, rows, cols int) {
	sh := &c.s
	xs, ys := 4*sh.StrideH*sh.W*sh.IC, 4*c.ow*sh.IC
	lines, n := rows, cols
	d.xs, d.ys = 4*sh.StrideW*sh.IC, 4*sh.IC
	if cols < 8 && rows > cols {
		lines, n = cols, rows
		xs, ys, d.xs, d.ys = d.xs, d.ys, xs, ys
	}
	d.n = n
	x, y := d.x, d.y
	for i := range lines {
		d.y = unsafe.Add(y, i*ys)
		if d.kh > 0 {
			d.x = unsafe.Add(x, i*xs)
		}
		im.depth(d)
	}
}

// tapGrid sets r to the pixels of image i that tap (kh, kw) connects: x in the input, y in the output. It returns false
// when there are none.
func (c *Conv) tapGrid(r *rowsArgs, x, y ptr, i, kh, kw int) bool {
	sh := &c.s
	y0, y1 := tapRange(kh, c.oh, sh.H, sh.StrideH, sh.DilationH, sh.PadTop)
	x0, x1 := tapRange(kw, c.ow, sh.W, sh.StrideW, sh.DilationW, sh.PadLeft)
	if y0 >= y1 || x0 >= x1 {
		return false
	}
	r.m, r.n = y1-y0, x1-x0
	r.x = at(x, i*c.inSize+c.tapOffset(y0, x0, kh, kw))
	r.y = at(y, i*c.outSize+(y0*c.ow+x0)*sh.OC)
	return true
}

func (c *Conv) rowsArgs() rowsArgs {
	sh := &c.s
	return rowsArgs{c: sh.IC, xm: 4 * sh.StrideH * sh.W * sh.IC, xn: 4 * sh.StrideW * sh.IC, ym: 4 * c.ow * sh.OC, yn: 4 * sh.OC}
}

func (c *Conv) gradWeightsDepth(im *impl, s *Scratch, x, dy, dw ptr, images, t0, t1 int) {
	r := &s.rows
	*r = c.rowsArgs()
	for i := range images {
		for tap := t0; tap < t1; tap++ {
			if c.tapGrid(r, x, dy, i, tap/c.s.KW, tap%c.s.KW) {
				r.z = at(dw, tap*c.s.IC)
				im.depthGrad(r)
			}
		}
	}
}

// gradInputDepth: wt is [C][KH][KW] as TransposeWeights writes it for C groups of one channel; it is brought back to
// [KH][KW][C] in the scratch.
func (c *Conv) gradInputDepth(im *impl, s *Scratch, dy, wt, dx ptr, images int) {
	taps := c.s.KH * c.s.KW
	s.pack = grow(s.pack, c.wSize)
	im.transpose(addr(s.pack, 0), wt, c.s.IC, taps, c.s.IC, taps)
	r := &s.rows
	*r = c.rowsArgs()
	for i := range images {
		for tap := range taps {
			if c.tapGrid(r, dx, dy, i, tap/c.s.KW, tap%c.s.KW) {
				r.z = addr(s.pack, tap*c.s.IC)
				im.depthBack(r)
			}
		}
	}
}

// reversedTaps leaves the weights as [KH][KW][C] in s.pack with the taps from last to first.
func (c *Conv) reversedTaps(im *impl, s *Scratch, wt ptr) {
	taps, ch := c.s.KH*c.s.KW, c.s.IC
	s.pack = grow(s.pack, c.wSize+ch)
	im.transpose(addr(s.pack, 0), wt, ch, taps, ch, taps)
	t := s.pack[c.wSize : c.wSize+ch]
	for i, j := 0, taps-1; i < j; i, j = i+1, j-1 {
		a, b := s.pack[i*ch:(i+1)*ch], s.pack[j*ch:(j+1)*ch]
		copy(t, a)
		copy(a, b)
		copy(b, t)
	}
}
