package train

import (
	"github.com/espalier-ml/espalier/model/kernel"
)

// masker gives the gradient of a unit's result before the activation that is
// fused to it. It overwrites the gradient after it, which nothing else reads:
// also that of a block's result, which the block after writes anew in every
// step.
type masker struct{ out *value }

// dy is the gradient of examples [n0, n1), zero where the activation was flat.
func (m *masker) dy(w *worker, n0, n1 int) ([]float32, error) {
	v := m.out
	d := v.dy(w, n0, n1)
	if !m.masks() {
		return d, nil
	}
	return d, kernel.ActivateGrad(d, v.x(w, n0, n1), d, v.act)
}

// masks says whether dy overwrites the gradient after the activation, for which
// it needs the result.
func (m *masker) masks() bool { return m.out.act != kernel.None && !m.out.masked }

// reads is the result where dy needs it.
func (m *masker) reads() []*value {
	if m.masks() {
		return []*value{m.out}
	}
	return nil
}

// conv is a convolution with bias and activation. The gradient of its
// parameters is summed per lane, then over the lanes in order.
type conv struct {
	k  *kernel.Conv
	in port
	masker

	w, b   []float32 // weights and bias (or nil)
	gw, gb []float32 // their gradients
	wt     []float32 // transposed weights
	acc    [][]float32
	wino   winograd
}

// winograd is which of a convolution's operations go by Winograd's algorithm.
// That depends on the shape only: a step gives the same bits on every machine
// with the same kernel variant.
type winograd struct {
	k               *kernel.Winograd // nil where the shape has none
	forward, dw, dx bool
	w, wt, gw       []float32 // transformed weights, the same for the way back, transformed gradient
}

// newWinograd chooses for lanes of that many images.
func newWinograd(s kernel.ConvShape, images int, needGrad bool) (g winograd) {
	k, err := kernel.NewWinograd(s)
	if err != nil {
		return g // not a shape for it
	}
	g.k = k
	g.forward, g.dw, g.dx = k.Pays(images)
	if g.forward {
		g.w = make([]float32, k.TransformedSize())
	}
	if g.dx = g.dx && needGrad; g.dx {
		g.wt = make([]float32, k.TransformedSize())
	}
	if g.dw {
		g.gw = make([]float32, k.TransformedSize())
	}
	return g
}

func (u *conv) ports() []*port  { return []*port{&u.in} }
func (u *conv) result() *value  { return u.out }
func (u *conv) reads() []*value { return append(u.masker.reads(), u.in.value) }

func (u *conv) forward(w *worker, c chunk) error {
	e := kernel.Epilogue{Bias: u.b, Activation: u.out.act}
	x, y, n := u.in.x(w, c.n0, c.n1), u.out.x(w, c.n0, c.n1), c.n1-c.n0
	if u.wino.forward {
		return u.wino.k.Forward(&w.s, x, u.wino.w, y, 0, n, e)
	}
	return u.k.Forward(&w.s, x, u.w, y, 0, n, e)
}

func (u *conv) prepareForward(w *worker) error {
	if !u.wino.forward {
		return nil
	}
	return u.wino.k.TransformWeights(&w.s, u.w, u.wino.w)
}

func (u *conv) prepare(w *worker) error {
	if !u.in.needGrad {
		return nil
	}
	if u.wino.dx {
		return u.wino.k.TransformWeightsInput(&w.s, u.w, u.wino.wt)
	}
	return u.k.TransposeWeights(u.w, u.wt)
}

func (u *conv) backward(w *worker, c chunk) error {
	dy, err := u.dy(w, c.n0, c.n1)
	if err != nil {
		return err
	}
	acc := u.acc[c.lane]
	if c.first && !u.wino.dw {
		clear(acc)
	}
	n := c.n1 - c.n0
	gw, gb := acc[:len(acc)-len(u.b)], acc[len(acc)-len(u.b):]
	if u.wino.dw {
		err = u.wino.k.GradWeightsTransformed(&w.s, u.in.x(w, c.n0, c.n1), dy, gw, 0, n, !c.first)
	} else {
		err = u.k.GradWeights(&w.s, u.in.x(w, c.n0, c.n1), dy, gw, 0, n)
	}
	if err != nil {
		return err
	}
	if u.b != nil && !u.out.centred { // else the bias changes nothing: its gradient is, and stays, zero
		if c.first {
			clear(gb)
		}
		if err := kernel.ColumnSums(dy, gb, len(u.b), 0, n*u.k.OutH()*u.k.OutW()); err != nil {
			return err
		}
	}
	if !u.in.needGrad {
		return nil
	}
	dx := u.in.dy(w, c.n0, c.n1)
	if u.wino.dx {
		return u.wino.k.GradInput(&w.s, dy, u.wino.wt, dx, 0, n, u.in.add)
	}
	return u.k.GradInputTransposed(&w.s, dy, u.wt, dx, 0, n, u.in.add)
}

func (u *conv) backwardFinish() finisher {
	if u.wino.dw {
		return &winogradSum{laneSum{dst: [2][]float32{u.wino.gw, u.gb}, acc: u.acc}, winogradFinish{u}}
	}
	return &laneSum{dst: [2][]float32{u.gw, u.gb}, acc: u.acc}
}

// winogradSum adds the lanes' sums of transformed gradients, which
// winogradFinish then brings back.
type winogradSum struct {
	laneSum
	finish winogradFinish
}

func (s *winogradSum) then() finisher { return s.finish }

type winogradFinish struct{ u *conv }

func (winogradFinish) tasks() int { return 1 }

func (f winogradFinish) do(w *worker, _ int) error {
	clear(f.u.gw)
	return f.u.wino.k.FinishGradWeights(&w.s, f.u.wino.gw, f.u.gw)
}

// sumChunk is how many elements one task of a laneSum adds.
const sumChunk = 1 << 14

// laneSum adds the lanes' sums, in order, into two vectors laid end to end.
type laneSum struct {
	dst [2][]float32
	acc [][]float32
}

func (s *laneSum) tasks() int { return (len(s.acc[0]) + sumChunk - 1) / sumChunk }

func (s *laneSum) do(_ *worker, i int) error {
	from, to := i*sumChunk, min((i+1)*sumChunk, len(s.acc[0]))
	off := 0
	for _, d := range s.dst {
		a, b := max(from, off), min(to, off+len(d))
		if a < b {
			if err := s.add(d[a-off:b-off], a, b); err != nil {
				return err
			}
		}
		off += len(d)
	}
	return nil
}

func (s *laneSum) add(d []float32, a, b int) error {
	if len(s.acc) == 1 {
		copy(d, s.acc[0][a:b])
		return nil
	}
	if err := kernel.Add(d, s.acc[0][a:b], s.acc[1][a:b], kernel.None); err != nil {
		return err
	}
	for _, l := range s.acc[2:] {
		if err := kernel.Add(d, d, l[a:b], kernel.None); err != nil {
			return err
		}
	}
	return nil
}
