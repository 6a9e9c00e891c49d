package infer

import (
	"math"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/kernel"
)

// step computes one value of the plan from others, for the first n examples of
// a chunk.
type step interface {
	run(f *frame, n int) error
	// inputs and output are the places where the step keeps the numbers of its
	// values.
	inputs() []*int
	output() *int
}

// frame is what one goroutine needs to run a plan: room for every value of a
// chunk.
type frame struct {
	s      kernel.Scratch
	values [][]float32 // by value; the input and the output are set for every chunk
}

// unary is a step with one input.
type unary struct{ in, out int }

func (u *unary) inputs() []*int { return []*int{&u.in} }
func (u *unary) output() *int   { return &u.out }

type convStep struct {
	unary
	k    *kernel.Conv
	w    []float32
	bias []float32
	act  kernel.Activation
	sum  bool // add to what the output holds already

	bytes *int8Weights // of int8 networks; else nil
}

func (c *convStep) run(f *frame, n int) error {
	return c.k.Forward(&f.s, f.values[c.in], c.w, f.values[c.out], 0, n, kernel.Epilogue{Bias: c.bias, Activation: c.act, Accumulate: c.sum})
}

type denseStep struct {
	unary
	k    *kernel.Dense
	w    []float32
	bias []float32
	act  kernel.Activation
	sum  bool

	bytes *int8Weights // of int8 networks; else nil
}

func (d *denseStep) run(f *frame, n int) error {
	return d.k.Forward(&f.s, f.values[d.in], d.w, f.values[d.out], 0, n, kernel.Epilogue{Bias: d.bias, Activation: d.act, Accumulate: d.sum})
}

// affineStep is batch normalisation that could not be folded.
type affineStep struct {
	unary
	scale, shift []float32
	rows         int // per example
	act          kernel.Activation
}

func (a *affineStep) run(f *frame, n int) error {
	return kernel.Affine(f.values[a.out], f.values[a.in], a.scale, a.shift, len(a.scale), 0, n*a.rows, a.act, false)
}

type maxPoolStep struct {
	unary
	k *kernel.Pool
}

func (p *maxPoolStep) run(f *frame, n int) error {
	return p.k.Max(&f.s, f.values[p.in], f.values[p.out], 0, n)
}

type avgPoolStep struct {
	unary
	k *kernel.Pool
}

func (p *avgPoolStep) run(f *frame, n int) error {
	return p.k.Avg(&f.s, f.values[p.in], f.values[p.out], 0, n)
}

type globalAvgStep struct {
	unary
	pixels, c int
}

func (p *globalAvgStep) run(f *frame, n int) error {
	return kernel.GlobalAvg(f.values[p.in], f.values[p.out], p.pixels, p.c, 0, n)
}

type rectifyStep struct {
	unary
	size int
	act  kernel.Activation
}

func (r *rectifyStep) run(f *frame, n int) error {
	return kernel.Activate(f.values[r.out][:n*r.size], f.values[r.in][:n*r.size], r.act)
}

type functionStep struct {
	unary
	size int
	f    func(float32) float32
}

func (s *functionStep) run(f *frame, n int) error {
	y := f.values[s.out]
	for i, v := range f.values[s.in][:n*s.size] {
		y[i] = s.f(v)
	}
	return nil
}

// function gives the activations that kernels do not have.
func function(a model.Activation) func(float32) float32 {
	switch a.Func {
	case model.LeakyReLU:
		return func(x float32) float32 {
			if x < 0 {
				return a.Alpha * x
			}
			return x
		}
	case model.Sigmoid:
		return func(x float32) float32 { return float32(1 / (1 + math.Exp(-float64(x)))) }
	case model.Tanh:
		return func(x float32) float32 { return float32(math.Tanh(float64(x))) }
	case model.HardSwish:
		return func(x float32) float32 { return x * min(max(x+3, 0), 6) / 6 }
	}
	return nil
}

type softmaxStep struct {
	unary
	size, c int
}

func (s *softmaxStep) run(f *frame, n int) error {
	x, y := f.values[s.in][:n*s.size], f.values[s.out][:n*s.size]
	for i := 0; i < len(x); i += s.c {
		softmax(x[i:i+s.c], y[i:i+s.c])
	}
	return nil
}

func softmax(x, y []float32) {
	top := x[0]
	for _, v := range x {
		top = max(top, v)
	}
	var sum float64
	for i, v := range x {
		e := math.Exp(float64(v) - float64(top))
		y[i] = float32(e)
		sum += e
	}
	k := float32(1 / sum)
	for i := range y {
		y[i] *= k
	}
}

type addStep struct {
	a, b, out int
	size      int
	act       kernel.Activation
}

func (s *addStep) inputs() []*int { return []*int{&s.a, &s.b} }
func (s *addStep) output() *int   { return &s.out }

func (s *addStep) run(f *frame, n int) error {
	k := n * s.size
	return kernel.Add(f.values[s.out][:k], f.values[s.a][:k], f.values[s.b][:k], s.act)
}

type concatStep struct {
	in    []int
	width []int
	out   int
	rows  int // per example
	total int
}

func (s *concatStep) inputs() (p []*int) {
	for k := range s.in {
		p = append(p, &s.in[k])
	}
	return p
}
func (s *concatStep) output() *int { return &s.out }

func (s *concatStep) run(f *frame, n int) error {
	y, off := f.values[s.out], 0
	for k, in := range s.in {
		x, w := f.values[in], s.width[k]
		for r := range n * s.rows {
			copy(y[r*s.total+off:r*s.total+off+w], x[r*w:(r+1)*w])
		}
		off += w
	}
	return nil
}

type padStep struct {
	unary
	pad     model.Pad2D
	h, w, c int
	size    int // of the output
}

func (s *padStep) run(f *frame, n int) error {
	x, y := f.values[s.in], f.values[s.out][:n*s.size]
	clear(y)
	line := s.w * s.c
	wide := line + (s.pad.Left+s.pad.Right)*s.c
	for i := range n {
		for r := range s.h {
			p := i*s.size + (s.pad.Top+r)*wide + s.pad.Left*s.c
			copy(y[p:p+line], x[(i*s.h+r)*line:])
		}
	}
	return nil
}

// copyStep is for an output that no operator computes.
type copyStep struct {
	unary
	size int
}

func (s *copyStep) run(f *frame, n int) error {
	copy(f.values[s.out][:n*s.size], f.values[s.in])
	return nil
}
