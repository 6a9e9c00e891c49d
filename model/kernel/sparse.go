package kernel

import (
	"fmt"
	"slices"
)

// SparseConv is a convolution whose weights are mostly zero: only the others are stored and multiplied. It is for
// inference: forward only, weights fixed. It is immutable and may be used by any number of goroutines.
//
// Entries are single weights, or blocks of 4 consecutive output channels that share an input (4×1): a block is stored
// when any of its weights is not zero. The kernels work on channel planes, vectorised over pixels; Forward brings the
// channels-last input into planes (padding and strides are resolved there) and the result back.
type SparseConv struct {
	c       *Conv
	block   int
	group   int // images computed together, so that small images fill vectors
	entries int
	blocks  int // of output channels, over all groups
	perGrp  int // blocks per group
	pitch   int // pixels from one row of a plane to the next
	rows    int
	plane   int // elements of one plane
	pixels  int // of a tile run: all outputs of a plane, with the garbage between rows
	outPlan int // elements of one output plane
	count   []int32
	offs    []int32 // byte offsets into the planes
	index   []int32 // input channels of entries, for what is computed as gathered products
	w       []float32
}

// planeSlack is how far a vector of pixels may reach past the last one.
const planeSlack = 8 * 28

// fewRows is the number of images of one pixel from which vectors over images are faster than one image at a time.
const fewRows = 4

// NewSparseConv compiles weights w ([KH][KW][IC/Groups][OC]) with blocks of 1 or 4 output channels.
func NewSparseConv(sh ConvShape, w []float32, block int) (*SparseConv, error) {
	c, err := NewConv(sh)
	if err != nil {
		return nil, err
	}
	if block != 1 && block != 4 {
		return nil, fmt.Errorf("sparse block is %d, want 1 or 4: %w", block, ErrShape)
	}
	if err := checkLen("w", w, c.wSize); err != nil {
		return nil, err
	}
	p := &SparseConv{c: c, block: block, group: 1}
	s := c.s
	if c.flat {
		p.group = max(1, 64/(s.H*s.W))
	}
	p.perGrp = (c.ocg + block - 1) / block
	p.blocks = p.perGrp * s.Groups
	if err := p.layout(); err != nil {
		return nil, err
	}
	p.compile(w)
	return p, nil
}

// layout sizes the planes. For strides above 1 there is one set of planes per phase, so that pixels that are
// neighbours in the output are neighbours in the plane.
func (p *SparseConv) layout() error {
	s, c := p.c.s, p.c
	if c.flat {
		p.pitch, p.rows = p.group*s.H*s.W, 1
		p.pixels = p.pitch
	} else {
		p.pitch = max(c.ow+(s.KW-1)*s.DilationW/s.StrideW, (s.W+s.PadLeft+s.StrideW-1)/s.StrideW)
		p.rows = max(c.oh+(s.KH-1)*s.DilationH/s.StrideH, (s.H+s.PadTop+s.StrideH-1)/s.StrideH)
		p.pixels = (c.oh-1)*p.pitch + c.ow
	}
	var ok0, ok1, ok2 bool
	p.plane, ok0 = mul(p.pitch, p.rows)
	p.plane += 8
	p.outPlan = (p.pixels + 31) &^ 15
	_, ok1 = mul(p.plane, s.StrideH, s.StrideW, s.IC, 4)
	_, ok2 = mul(p.outPlan, p.blocks, p.block)
	if !ok0 || !ok1 || !ok2 {
		return fmt.Errorf("sparse conv %+v: planes have more than %d elements: %w", s, maxElems/4, ErrShape)
	}
	return nil
}

// compile lists the entries of every block in the order of the dense loops: kernel row, column, input channel.
func (p *SparseConv) compile(w []float32) {
	c, s := p.c, p.c.s
	for b := range p.blocks {
		g, oc := b/p.perGrp, b%p.perGrp*p.block
		n := 0
		for tap := range s.KH * s.KW {
			for ic := range c.icg {
				row := w[(tap*c.icg+ic)*s.OC+g*c.ocg:][:c.ocg][oc:min(oc+p.block, c.ocg)]
				if !slices.ContainsFunc(row, func(v float32) bool { return v != 0 }) {
					continue
				}
				p.w = append(p.w, row...)
				p.w = append(p.w, make([]float32, p.block-len(row))...)
				p.offs = append(p.offs, int32(4*p.tapPlane(tap/s.KW, tap%s.KW, g*c.icg+ic)))
				p.index = append(p.index, int32(g*c.icg+ic))
				n++
			}
		}
		p.count = append(p.count, int32(n))
		p.entries += n
	}
	if p.entries == 0 { // the arrays must exist
		p.w, p.offs, p.index = make([]float32, p.block), make([]int32, 1), make([]int32, 1)
	}
}

// tapPlane is the offset of output pixel 0 as tap (kh, kw) sees it in the planes of channel ic.
func (p *SparseConv) tapPlane(kh, kw, ic int) int {
	s := p.c.s
	y, x := kh*s.DilationH, kw*s.DilationW
	phase := y%s.StrideH*s.StrideW + x%s.StrideW
	return (phase*s.IC+ic)*p.plane + y/s.StrideH*p.pitch + x/s.StrideW
}

// Conv returns the dense convolution of the same shape.
func (p *SparseConv) Conv() *Conv { return p.c }

// Block is the number of output channels of an entry.
func (p *SparseConv) Block() int { return p.block }

// Entries is the number of stored blocks; each has Block weights.
func (p *SparseConv) Entries() int { return p.entries }

// Forward computes images [n0, n1) of y = act(conv(x) + bias (+ y)), as Conv.Forward.
func (p *SparseConv) Forward(s *Scratch, x, y []float32, n0, n1 int, e Epilogue) error {
	im, err := current()
	flags, errE := e.check(p.c.s.OC)
	if err := firstErr(err, errE, checkImages("x", x, p.c.inSize, n0, n1), checkImages("y", y, p.c.outSize, n0, n1)); err != nil || n0 == n1 {
		return err
	}
	s = s.orNew()
	p.loadBias(s, e.Bias)
	if p.c.flat && p.c.s.H*p.c.s.W == 1 && n1-n0 < fewRows {
		for i := n0; i < n1; i++ {
			p.forwardRow(im, s, x[i*p.c.inSize:], y[i*p.c.outSize:], flags)
		}
		return nil
	}
	s.planes = grow(s.planes, p.plane*p.c.s.StrideH*p.c.s.StrideW*p.c.s.IC+planeSlack)
	s.outs = grow(s.outs, p.outPlan*p.blocks*p.block+planeSlack)
	for i := n0; i < n1; i += p.group {
		n := min(p.group, n1-i)
		p.toPlanes(im, s, x[i*p.c.inSize:], n)
		p.tiles(im, s, flags, n)
		p.fromPlanes(im, s, y[i*p.c.outSize:], n, flags)
	}
	return nil
}

// loadBias spreads the bias over the blocks, zeros where there is none.
func (p *SparseConv) loadBias(s *Scratch, bias []float32) {
	s.pack = grow(s.pack, p.blocks*p.block)
	clear(s.pack)
	if bias == nil {
		return
	}
	for g := range p.c.s.Groups {
		copy(s.pack[g*p.perGrp*p.block:], bias[g*p.c.ocg:(g+1)*p.c.ocg])
	}
}

// forwardRow computes one image of one pixel, where there is nothing to vectorise over but the entries.
func (p *SparseConv) forwardRow(im *impl, s *Scratch, x, y []float32, flags uint64) {
	e := 0
	for b, n := range p.count {
		clear(s.quad[:])
		if n > 0 {
			im.gather(addr(p.w, e*p.block), &p.index[e], addr(x, 0), int(n), p.block, &s.quad)
		}
		oc := b % p.perGrp * p.block
		out := y[b/p.perGrp*p.c.ocg+oc:][:min(p.block, p.c.ocg-oc)]
		for i := range out {
			v := s.pack[b*p.block+i] + s.quad[i]
			if flags&flagAccumulate != 0 {
				v += out[i]
			}
			out[i] = activate(v, flags)
		}
		e += int(n)
	}
}

// tiles runs the kernel over the pixels of n images.
func (p *SparseConv) tiles(im *impl, s *Scratch, flags uint64, n int) {
	pixels := p.pixels
	if p.c.flat {
		pixels = n * p.c.s.H * p.c.s.W
	}
	a := &s.spars
	*a = sparseArgs{blocks: p.blocks, count: &p.count[0], offs: &p.offs[0], w: addr(p.w, 0), outStride: 4 * p.outPlan, bias: addr(s.pack, 0), flags: flags}
	if flags&flagAccumulate != 0 {
		a.flags = 0 // the activation follows the addition
	}
	most := im.sparseMost[0]
	if p.block == 4 {
		most = im.sparseMost[1]
	}
	vectors := (pixels + im.sparsePixels - 1) / im.sparsePixels
	step := evenStep(vectors, most)
	for v := 0; v < vectors; v += step {
		a.x, a.out = addr(s.planes, v*im.sparsePixels), addr(s.outs, v*im.sparsePixels)
		im.sparse(a, p.block, min(step, vectors-v))
	}
}
