package kernel

import "fmt"

// Winograd is a 3×3 convolution with stride 1 by Winograd's algorithm F(4×4, 3×3) (Lavin and Gray, 2016): it multiplies
// transformed 6×6 tiles of the input with transformed weights, a quarter of the multiplications of the direct way, at
// the price of the transforms and of about one decimal digit of accuracy. It pays for many channels and larger images;
// which way is faster is a matter of timing. It is immutable, and takes the same slices as the Conv it stands for.
type Winograd struct {
	c        *Conv
	fwd, bwd winoPlan
}

// winoPlan is the geometry of one direction.
type winoPlan struct {
	h, w, ic, oc int
	oh, ow       int
	top, left    int // padding
	th, tw       int // tiles of 4 by 4 outputs
	ins, outs    []winoRun
	images       int // per block
}

// winoTiles is about how many tiles a block has: enough to use the weights well, few enough to stay in the cache.
const winoTiles = 32

func newWinoPlan(c *Conv) winoPlan {
	p := winoPlan{h: c.s.H, w: c.s.W, ic: c.s.IC, oc: c.s.OC, oh: c.oh, ow: c.ow, top: c.s.PadTop, left: c.s.PadLeft, th: (c.oh + 3) / 4, tw: (c.ow + 3) / 4}
	p.ins, p.outs = winoRuns(p.tw, 6, p.left, p.w), winoRuns(p.tw, 4, 0, p.ow)
	p.images = max(1, winoTiles/(p.th*p.tw))
	return p
}

// NewWinograd returns an error wrapping ErrShape unless the kernel is 3×3 with stride and dilation 1, one group, and
// padding of at most 2.
func NewWinograd(sh ConvShape) (*Winograd, error) {
	c, err := NewConv(sh)
	if err != nil {
		return nil, err
	}
	s := c.s
	if s.KH != 3 || s.KW != 3 || s.StrideH != 1 || s.StrideW != 1 || s.DilationH != 1 || s.DilationW != 1 || s.Groups != 1 {
		return nil, fmt.Errorf("winograd of %+v: want a 3×3 kernel with stride, dilation and groups 1: %w", s, ErrShape)
	}
	if max(s.PadTop, s.PadLeft, s.PadBottom, s.PadRight) > 2 {
		return nil, fmt.Errorf("winograd padding is %d, %d, %d, %d, want at most 2: %w", s.PadTop, s.PadLeft, s.PadBottom, s.PadRight, ErrShape)
	}
	b, err := NewConv(ConvShape{H: c.oh, W: c.ow, IC: s.OC, OC: s.IC, KH: 3, KW: 3, PadTop: 2 - s.PadTop, PadLeft: 2 - s.PadLeft,
		PadBottom: 2 - s.PadBottom, PadRight: 2 - s.PadRight})
	if err != nil {
		return nil, err
	}
	w := &Winograd{c: c, fwd: newWinoPlan(c), bwd: newWinoPlan(b)}
	for _, p := range []winoPlan{w.fwd, w.bwd} {
		_, ok0 := mul(36, p.th*p.tw, p.images, max(p.ic, p.oc)+1)
		_, ok1 := mul(36, p.ic, p.oc)
		if !ok0 || !ok1 {
			return nil, fmt.Errorf("winograd of %+v: tiles have more than %d elements: %w", s, maxElems, ErrShape)
		}
	}
	return w, nil
}

// Conv returns the direct convolution of the same shape.
func (w *Winograd) Conv() *Conv { return w.c }

// Pays estimates, from the shape alone and so always the same, for which operations Winograd's algorithm is faster than
// the direct one when that many images are computed per call. For the gradient of the weights each call also has to write,
// and someone to add and to bring back, a transformed gradient.
func (w *Winograd) Pays(images int) (forward, gradWeights, gradInput bool) {
	const perSum = 32 // of an element of the transformed gradient, in multiplications, as measured
	direct, f := w.c.MACs(), w.fwd.cost()
	sums := perSum * int64(w.TransformedSize()) / int64(max(1, images))
	return f < direct, f+sums < direct, w.bwd.cost() < direct
}

// cost counts multiplications of products, and transformed elements as what they were measured to take.
func (p *winoPlan) cost() int64 {
	const perElement = 9
	return 36 * int64(p.th*p.tw) * (int64(p.ic)*int64(p.oc) + perElement*int64(p.ic+p.oc))
}

// TransformedSize is the number of elements of transformed weights.
func (w *Winograd) TransformedSize() int { return 36 * w.c.s.IC * w.c.s.OC }

// TransformWeights writes the weights as Forward wants them to u.
func (w *Winograd) TransformWeights(s *Scratch, weights, u []float32) error {
	im, err := current()
	if err := firstErr(err, checkLen("w", weights, w.c.wSize), checkLen("u", u, w.TransformedSize())); err != nil {
		return err
	}
	w.transformWeights(im, s.orNew(), addr(weights, 0), u, 1)
	return nil
}

// TransformWeightsInput writes the weights as GradInput wants them to u.
func (w *Winograd) TransformWeightsInput(s *Scratch, weights, u []float32) error {
	s = s.orNew()
	s.wt = grow(s.wt, w.c.wSize)
	im, err := current()
	if err := firstErr(err, checkLen("u", u, w.TransformedSize()), w.c.TransposeWeights(weights, s.wt)); err != nil {
		return err
	}
	w.transformWeights(im, s, addr(s.wt, 8*w.c.s.IC*w.c.s.OC), u, -1)
	return nil
}

// transformWeights transforms planes of one tap each, from the first tap forwards or from the last backwards.
func (w *Winograd) transformWeights(im *impl, s *Scratch, src ptr, u []float32, dir int) {
	plane := 4 * w.c.s.IC * w.c.s.OC
	t := &s.wino
	t.c = w.c.s.IC * w.c.s.OC
	t.n = 1
	t.source(src, 3, 3*plane*dir, plane*dir)
	t.dst, t.dh, t.dw, t.flags, t.bias = addr(u, 0), 6*plane, plane, 0, nil
	im.wino.weights(t)
}

// Forward is Conv.Forward with weights from TransformWeights.
func (w *Winograd) Forward(s *Scratch, x, u, y []float32, n0, n1 int, e Epilogue) error {
	im, err := current()
	flags, errE := e.check(w.c.s.OC)
	if err := firstErr(err, errE, checkLen("u", u, w.TransformedSize()), checkImages("x", x, w.c.inSize, n0, n1),
		checkImages("y", y, w.c.outSize, n0, n1)); err != nil || n0 == n1 {
		return err
	}
	w.fwd.run(im, s.orNew(), x, u, y, n0, n1, addr(e.Bias, 0), flags)
	return nil
}

// GradInput is Conv.GradInputTransposed with weights from TransformWeightsInput.
func (w *Winograd) GradInput(s *Scratch, dy, u, dx []float32, n0, n1 int, add bool) error {
	im, err := current()
	if err := firstErr(err, checkLen("u", u, w.TransformedSize()), checkImages("dy", dy, w.c.outSize, n0, n1),
		checkImages("dx", dx, w.c.inSize, n0, n1)); err != nil || n0 == n1 {
		return err
	}
	var flags uint64
	if add {
		flags = flagAccumulate
	}
	w.bwd.run(im, s.orNew(), dy, u, dx, n0, n1, nil, flags)
	return nil
}

// GradWeights adds the gradient of the weights over images [n0, n1) to dw. The sum over the images of one call is
// formed in the transformed domain and then added: the division into calls shows in the last bits, so give every fixed
// chunk of images a call of its own.
func (w *Winograd) GradWeights(s *Scratch, x, dy, dw []float32, n0, n1 int) error {
	s = s.orNew()
	s.winoU = grow(s.winoU, w.TransformedSize())
	if err := w.GradWeightsTransformed(s, x, dy, s.winoU, n0, n1, false); err != nil {
		return err
	}
	return w.FinishGradWeights(s, s.winoU, dw)
}

// GradWeightsTransformed writes the gradient over images [n0, n1) in the transformed domain to du (TransformedSize
// elements), or adds it, block by block; a block has as many images as fit the cache, counted from n0. What several calls or
// goroutines gathered is added in a fixed order and brought back by FinishGradWeights.
func (w *Winograd) GradWeightsTransformed(s *Scratch, x, dy, du []float32, n0, n1 int, add bool) error {
	im, err := current()
	if err := firstErr(err, checkLen("du", du, w.TransformedSize()), checkImages("x", x, w.c.inSize, n0, n1),
		checkImages("dy", dy, w.c.outSize, n0, n1)); err != nil {
		return err
	}
	if n0 == n1 && !add {
		clear(du)
	}
	s = s.orNew()
	p := &w.fwd
	for i := n0; i < n1; i += p.images {
		n := min(p.images, n1-i)
		va := p.inputs(im, s, x, i, n)
		vb := p.outGrads(im, s, dy, i, n)
		var flags uint64
		if add || i > n0 {
			flags = flagAccumulate
		}
		for k := range 36 {
			m := matrix{m: p.ic, n: p.oc, k: n * p.th * p.tw, a: addr(s.winoA, k*va), as: 1, ak: p.ic, b: addr(s.winoB, k*vb), ldb: p.oc,
				c: addr(du, k*p.ic*p.oc), ldc: p.oc}
			m.run(im, s, nil, flags)
		}
	}
	return nil
}

// FinishGradWeights adds the gradient of the weights that du holds in the transformed domain to dw.
func (w *Winograd) FinishGradWeights(s *Scratch, du, dw []float32) error {
	im, err := current()
	if err := firstErr(err, checkLen("du", du, w.TransformedSize()), checkLen("dw", dw, w.c.wSize)); err != nil {
		return err
	}
	s = s.orNew()
	plane := 4 * w.c.s.IC * w.c.s.OC
	t := &s.wino
	t.n, t.c, t.high, t.wide = 1, w.c.s.IC*w.c.s.OC, 3, 3
	t.source(addr(du, 0), 6, 6*plane, plane)
	t.dst, t.dh, t.dw, t.flags, t.bias = addr(dw, 0), 3*plane, plane, flagAccumulate, nil
	im.wino.weightGrad(t)
	return nil
}
