package kernel

import "fmt"

// GradTiles returns the number of independent parts of the weight gradient for GradWeightsTiles.
func (c *Conv) GradTiles() int {
	if c.depthwise {
		return c.s.KH * c.s.KW
	}
	return c.s.Groups * c.s.KH * c.s.KW
}

// GradWeights adds the gradient of the weights over images [n0, n1) to dw. The images are added one after the other, in
// order, each as one sum over its pixels; so consecutive calls on the same dw give the bits of one call over the joined
// range. To divide the work between goroutines divide the parts (GradWeightsTiles), or give every fixed chunk of images
// a dw of its own and add those in a fixed order.
func (c *Conv) GradWeights(s *Scratch, x, dy, dw []float32, n0, n1 int) error {
	return c.GradWeightsTiles(s, x, dy, dw, n0, n1, 0, c.GradTiles())
}

// GradWeightsTiles is GradWeights for the parts [t0, t1) of GradTiles: each part is one tap of one group, and no two
// parts write to the same element.
func (c *Conv) GradWeightsTiles(s *Scratch, x, dy, dw []float32, n0, n1, t0, t1 int) error {
	im, err := current()
	if err := firstErr(err, checkLen("dw", dw, c.wSize), checkImages("x", x, c.inSize, n0, n1),
		checkImages("dy", dy, c.outSize, n0, n1)); err != nil {
		return err
	}
	if t0 < 0 || t1 < t0 || t1 > c.GradTiles() {
		return fmt.Errorf("parts [%d, %d): want 0 <= t0 <= t1 <= %d: %w", t0, t1, c.GradTiles(), ErrRange)
	}
	if n0 == n1 || t0 == t1 {
		return nil
	}
	s = s.orNew()
	xp, dp, wp := addr(x, n0*c.inSize), addr(dy, n0*c.outSize), addr(dw, 0)
	if c.depthwise {
		c.gradWeightsDepth(im, s, xp, dp, wp, n1-n0, t0, t1)
		return nil
	}
	taps := c.s.KH * c.s.KW
	for g := t0 / taps; g*taps < t1; g++ {
		a, b := max(t0-g*taps, 0), min(t1-g*taps, taps)
		c.gradWeightsGroup(im, s, at(xp, g*c.icg), at(dp, g*c.ocg), at(wp, g*c.ocg), n1-n0, a, b)
	}
	return nil
}

// gradWeightsGroup handles taps [t0, t1) of one group. Rows of a product are the input channels (of several taps where
// these are neighbours in memory and see the same outputs), its inner sum runs over the output's pixels.
func (c *Conv) gradWeightsGroup(im *impl, s *Scratch, x, dy, dw ptr, images, t0, t1 int) {
	sh := &c.s
	t := &s.tile
	*t = tileArgs{as: 4, ak: 4 * sh.StrideW * sh.IC, bk: 4 * sh.OC, cs: 4 * sh.OC, k3: 1, flags: flagAccumulate}
	for i := range images {
		for j := 0; j < c.ocg; {
			n := im.width(im.mr, c.ocg-j)
			for tap := t0; tap < t1; {
				kh, kw := tap/sh.KW, tap%sh.KW
				run := c.mergeTaps(kw, min(sh.KW-kw, t1-tap))
				y0, y1 := tapRange(kh, c.oh, sh.H, sh.StrideH, sh.DilationH, sh.PadTop)
				x0, x1 := tapRange(kw, c.ow, sh.W, sh.StrideW, sh.DilationW, sh.PadLeft)
				if y0 < y1 && x0 < x1 {
					t.k, t.k2 = x1-x0, y1-y0
					t.aj = 4 * (sh.StrideH*sh.W - t.k*sh.StrideW) * sh.IC
					t.bj = 4 * (c.ow - t.k) * sh.OC
					t.b = at(dy, i*c.outSize+(y0*c.ow+x0)*sh.OC+j)
					c.gradRows(im, t, at(x, i*c.inSize+c.tapOffset(y0, x0, kh, kw)), at(dw, tap*c.icg*sh.OC+j), run*c.icg, n)
				}
				tap += run
			}
			j += n
		}
	}
}

// mergeTaps returns how many of the n taps of a kernel row from kw on can share one product: neighbours in memory whose
// valid outputs are the same.
func (c *Conv) mergeTaps(kw, n int) int {
	sh := &c.s
	if sh.DilationW != 1 || sh.Groups != 1 {
		return 1
	}
	x0, x1 := tapRange(kw, c.ow, sh.W, sh.StrideW, 1, sh.PadLeft)
	run := 1
	for run < n {
		a, b := tapRange(kw+run, c.ow, sh.W, sh.StrideW, 1, sh.PadLeft)
		if a != x0 || b != x1 {
			break
		}
		run++
	}
	return run
}

// gradRows covers m rows of the gradient with tiles.
func (c *Conv) gradRows(im *impl, t *tileArgs, a, out ptr, m, cols int) {
	step := evenStep(m, im.mr)
	for r := 0; r < m; r += step {
		h0, h1 := halves(min(step, m-r))
		t.a0, t.c0 = at(a, r), at(out, r*c.s.OC)
		t.second(4*h0, 4*h0*c.s.OC, h1)
		im.tile(t, h0, h1, cols)
	}
}

// TransposeWeights writes to wt (WeightSize elements) the weights as GradInputTransposed wants them:
// [Groups][KH][KW][OC/Groups][IC/Groups].
func (c *Conv) TransposeWeights(w, wt []float32) error {
	im, err := current()
	if err := firstErr(err, checkLen("w", w, c.wSize), checkLen("wt", wt, c.wSize)); err != nil {
		return err
	}
	taps := c.s.KH * c.s.KW
	for g := range c.s.Groups {
		for tap := range taps {
			im.transpose(addr(wt, (g*taps+tap)*c.ocg*c.icg), addr(w, tap*c.icg*c.s.OC+g*c.ocg), c.icg, c.ocg, c.icg, c.s.OC)
		}
	}
	return nil
}

// GradInput writes the gradient of images [n0, n1) of the input to dx. Images are independent. It transposes the weights
// on every call; a caller that works in chunks transposes once and calls GradInputTransposed.
func (c *Conv) GradInput(s *Scratch, dy, w, dx []float32, n0, n1 int) error {
	s = s.orNew()
	s.wt = grow(s.wt, c.wSize)
	if err := c.TransposeWeights(w, s.wt); err != nil {
		return err
	}
	return c.GradInputTransposed(s, dy, s.wt, dx, n0, n1, false)
}

// GradInputTransposed is GradInput with weights from TransposeWeights. With add the gradient is added to what dx holds.
func (c *Conv) GradInputTransposed(s *Scratch, dy, wt, dx []float32, n0, n1 int, add bool) error {
	im, err := current()
	if err := firstErr(err, checkLen("wt", wt, c.wSize), checkImages("dy", dy, c.outSize, n0, n1),
		checkImages("dx", dx, c.inSize, n0, n1)); err != nil {
		return err
	}
	if n0 == n1 {
		return nil
	}
	s = s.orNew()
	var flags uint64
	if add {
		flags = flagAccumulate
	}
	dp, xp, wp := addr(dy, n0*c.outSize), addr(dx, n0*c.inSize), addr(wt, 0)
	if c.flat && c.s.Groups == 1 {
		rows := (n1 - n0) * c.oh * c.ow
		m := matrix{m: rows, n: c.s.IC, k: c.s.OC, a: dp, as: c.s.OC, ak: 1, b: wp, ldb: c.s.IC, c: xp, ldc: c.s.IC}
		m.run(im, s, nil, flags)
		return nil
	}
	if c.back != nil {
		c.reversedTaps(im, s, wp)
		c.back.forwardDepth(im, s, dp, addr(s.pack, 0), xp, n1-n0, nil, flags)
		return nil
	}
	if !add && (c.depthwise || c.grad().gaps || c.grad().few) {
		clear(dx[n0*c.inSize : n1*c.inSize])
	}
	if c.depthwise {
		c.gradInputDepth(im, s, dp, wp, xp, n1-n0)
		return nil
	}
	for g := range c.s.Groups {
		d, w, x := at(dp, g*c.ocg), at(wp, g*c.s.KH*c.s.KW*c.ocg*c.icg), at(xp, g*c.icg)
		if c.grad().few {
			c.gradInputTaps(im, s, d, w, x, n1-n0)
		} else {
			c.gradInputGroup(im, s, d, w, x, n1-n0, flags)
		}
	}
	return nil
}

// gradInputTaps adds, tap by tap, products of output gradients and transposed weights to the shifted pixels of dx: for
// small images, where few input positions see the same taps, but many outputs one tap.
func (c *Conv) gradInputTaps(im *impl, s *Scratch, dy, wt, dx ptr, images int) {
	sh := &c.s
	t := &s.tile
	*t = tileArgs{k: c.ocg, k2: 1, k3: 1, ak: 4, bk: 4 * c.icg, flags: flagAccumulate}
	for j := 0; j < c.icg; {
		n := im.width(im.mr, c.icg-j)
		for i := range images {
			for tap := range sh.KH * sh.KW {
				kh, kw := tap/sh.KW, tap%sh.KW
				y0, y1 := tapRange(kh, c.oh, sh.H, sh.StrideH, sh.DilationH, sh.PadTop)
				x0, x1 := tapRange(kw, c.ow, sh.W, sh.StrideW, sh.DilationW, sh.PadLeft)
				if y0 >= y1 || x0 >= x1 {
					continue
				}
				t.b = at(wt, tap*c.ocg*c.icg+j)
				g := grid{m: y1 - y0, n: x1 - x0, a: at(dy, i*c.outSize+(y0*c.ow+x0)*sh.OC), am: 4 * c.ow * sh.OC, an: 4 * sh.OC,
					c: at(dx, i*c.inSize+c.tapOffset(y0, x0, kh, kw)+j), cm: 4 * sh.StrideH * sh.W * sh.IC, cn: 4 * sh.StrideW * sh.IC}
				g.run(&im.tiler, t, n)
			}
		}
		j += n
	}
}

// gradInputGroup computes dx as a convolution of dy with transposed weights. Input positions a stride apart see the same
// taps; so every element is one sum, over output channels and taps, with one writer.
func (c *Conv) gradInputGroup(im *impl, s *Scratch, dy, wt, dx ptr, images int, flags uint64) {
	sh, b := &c.s, c.grad()
	plane := 4 * c.ocg * c.icg // of a tap
	t := &s.tile
	*t = tileArgs{k: c.ocg, ak: 4, bk: 4 * c.icg, flags: flags, aj: -4 * (b.stepW.out*sh.OC + c.ocg), bj: (b.stepW.tap - 1) * plane}
	for j := 0; j < c.icg; {
		n := im.width(im.mr, c.icg-j)
		for i := range images {
			for _, r := range b.rows {
				for _, q := range b.cols {
					t.k2, t.k3 = q.taps, r.taps
					t.aj3 = 4 * (q.taps*b.stepW.out - b.stepH.out*c.ow) * sh.OC
					t.bj3 = (b.stepH.tap*sh.KW - q.taps*b.stepW.tap) * plane
					t.b = at(wt, (r.tap*sh.KW+q.tap)*c.ocg*c.icg+j)
					g := grid{m: r.n, n: q.n, a: at(dy, i*c.outSize+(r.out*c.ow+q.out)*sh.OC), am: 4 * c.ow * sh.OC, an: 4 * sh.OC,
						c: at(dx, i*c.inSize+(r.in*sh.W+q.in)*sh.IC+j), cm: 4 * sh.StrideH * sh.W * sh.IC, cn: 4 * sh.StrideW * sh.IC}
					g.run(&im.tiler, t, n)
				}
			}
		}
		j += n
	}
}
