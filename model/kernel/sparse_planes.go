package kernel

// toPlanes writes n images of x as channel planes, one set per phase of the strides, with zeros in the padding.
func (p *SparseConv) toPlanes(im *impl, s *Scratch, x []float32, n int) {
	sh := &p.c.s
	if p.c.flat || !p.padded() {
		p.lineToPlane(im, s, x, 0, 0, n*sh.H*sh.W, 1)
		return
	}
	clear(s.planes)
	for ph := range sh.StrideH {
		for pw := range sh.StrideW {
			base := (ph*sh.StrideW + pw) * sh.IC * p.plane
			y0 := firstOf(ph, sh.PadTop, sh.StrideH)
			x0 := firstOf(pw, sh.PadLeft, sh.StrideW)
			if x0 >= sh.W {
				continue
			}
			cols := (sh.W - x0 + sh.StrideW - 1) / sh.StrideW
			for iy := y0; iy < sh.H; iy += sh.StrideH {
				dst := base + (iy+sh.PadTop)/sh.StrideH*p.pitch + (x0+sh.PadLeft)/sh.StrideW
				p.lineToPlane(im, s, x, (iy*sh.W+x0)*sh.IC, dst, cols, sh.StrideW)
			}
		}
	}
}

// padded reports whether planes hold elements that no input pixel fills.
func (p *SparseConv) padded() bool {
	sh := &p.c.s
	return sh.StrideH > 1 || sh.StrideW > 1 || p.pitch != sh.W || p.rows != sh.H
}

// firstOf is the first input position whose padded position is congruent to phase modulo stride.
func firstOf(phase, pad, stride int) int { return ((phase-pad)%stride + stride) % stride }

// lineToPlane transposes n pixels of x, every step-th from index src on, to index dst of the planes of all channels. A last
// block of 8 pixels that is not full takes some again that were done before, or, if there are too few, is completed with zeros,
// which fall on padding or on pixels that are written later.
func (p *SparseConv) lineToPlane(im *impl, s *Scratch, x []float32, src, dst, n, step int) {
	c := p.c.s.IC
	full := n &^ 7
	if full > 0 {
		im.transpose(addr(s.planes, dst), addr(x, src), full, c, p.plane, step*c)
	}
	if full == n {
		return
	}
	if n > 8 {
		im.transpose(addr(s.planes, dst+n-8), addr(x, src+(n-8)*step*c), 8, c, p.plane, step*c)
		return
	}
	s.edge = grow(s.edge, max(len(s.edge), 8*max(c, p.c.s.OC)))
	clear(s.edge[:8*c])
	for i := full; i < n; i++ {
		copy(s.edge[(i-full)*c:(i-full+1)*c], x[src+i*step*c:])
	}
	im.transpose(addr(s.planes, dst+full), addr(s.edge, 0), 8, c, p.plane, c)
}

// fromPlanes writes n images of results to y, channels last, or adds them to y before the activation.
func (p *SparseConv) fromPlanes(im *impl, s *Scratch, y []float32, n int, flags uint64) {
	size := n * p.c.outSize
	out := y[:size]
	if flags&flagAccumulate != 0 {
		s.image = grow(s.image, size)
		out = s.image
	}
	for g := range p.c.s.Groups {
		if p.c.flat {
			p.lineFromPlane(im, s, out, 0, 0, n*p.c.oh*p.c.ow, g)
			continue
		}
		for oy := range p.c.oh {
			p.lineFromPlane(im, s, out, oy*p.pitch, oy*p.c.ow, p.c.ow, g)
		}
	}
	if flags&flagAccumulate != 0 {
		im.add(addr(y, 0), addr(y, 0), addr(out, 0), size, flags)
	}
}

// lineFromPlane transposes n pixels of the planes of group g, from pixel src on, to pixel dst of out. A last block of 8 pixels
// that is not full takes some again that were done before, or garbage for pixels that are written later.
func (p *SparseConv) lineFromPlane(im *impl, s *Scratch, out []float32, src, dst, n, g int) {
	oc, ocg := p.c.s.OC, p.c.ocg
	first := g * p.perGrp * p.block * p.outPlan
	full := n &^ 7
	if full > 0 {
		im.transpose(addr(out, dst*oc+g*ocg), addr(s.outs, first+src), ocg, full, oc, p.outPlan)
	}
	if full == n {
		return
	}
	from := full
	if n > 8 {
		from = n - 8
	}
	if (dst+from+8)*oc <= len(out) {
		im.transpose(addr(out, (dst+from)*oc+g*ocg), addr(s.outs, first+src+from), ocg, 8, oc, p.outPlan)
		return
	}
	s.edge = grow(s.edge, max(len(s.edge), 8*max(oc, p.c.s.IC)))
	im.transpose(addr(s.edge, 0), addr(s.outs, first+src+full), ocg, 8, ocg, p.outPlan)
	for i := full; i < n; i++ {
		copy(out[(dst+i)*oc+g*ocg:(dst+i)*oc+(g+1)*ocg], s.edge[(i-full)*ocg:])
	}
}
