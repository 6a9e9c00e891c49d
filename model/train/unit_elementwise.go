package train

import (
	"math"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/kernel"
)

// rectify is a ReLU or ReLU6 that could not be fused to what produces its
// input.
type rectify struct {
	in port
	masker
}

func (u *rectify) ports() []*port { return []*port{&u.in} }
func (u *rectify) result() *value { return u.out }

func (u *rectify) forward(w *worker, c chunk) error {
	return kernel.Activate(u.out.x(w, c.n0, c.n1), u.in.x(w, c.n0, c.n1), u.out.act)
}

func (u *rectify) backward(w *worker, c chunk) error {
	if !u.in.needGrad {
		return nil
	}
	dy, err := u.dy(w, c.n0, c.n1)
	if err != nil {
		return err
	}
	return u.in.pass(w, dy, c.n0, c.n1)
}

// function is any other activation: y = f(x), dx = dy * slope(x, y).
type function struct {
	in    port
	out   *value
	f     func(x float32) float32
	slope func(x, y float32) float32
}

func (u *function) ports() []*port  { return []*port{&u.in} }
func (u *function) result() *value  { return u.out }
func (u *function) reads() []*value { return []*value{u.in.value, u.out} }

func (u *function) forward(w *worker, c chunk) error {
	y := u.out.x(w, c.n0, c.n1)
	for i, x := range u.in.x(w, c.n0, c.n1) {
		y[i] = u.f(x)
	}
	return nil
}

func (u *function) backward(w *worker, c chunk) error {
	if !u.in.needGrad {
		return nil
	}
	x, y, dy := u.in.x(w, c.n0, c.n1), u.out.x(w, c.n0, c.n1), u.out.dy(w, c.n0, c.n1)
	dx := u.in.begin(w, c.n0, c.n1)
	for i, g := range dy {
		dx[i] = g * u.slope(x[i], y[i])
	}
	return u.in.end(w, c.n0, c.n1)
}

// activation gives the functions of an activation that kernels do not fuse.
func activation(a model.Activation) (f func(x float32) float32, slope func(x, y float32) float32) {
	switch a.Func {
	case model.LeakyReLU:
		return func(x float32) float32 {
				if x < 0 {
					return a.Alpha * x
				}
				return x
			}, func(x, _ float32) float32 {
				if x < 0 {
					return a.Alpha
				}
				return 1
			}
	case model.Sigmoid:
		return func(x float32) float32 { return float32(1 / (1 + math.Exp(-float64(x)))) },
			func(_, y float32) float32 { return y * (1 - y) }
	case model.Tanh:
		return func(x float32) float32 { return float32(math.Tanh(float64(x))) },
			func(_, y float32) float32 { return 1 - y*y }
	case model.HardSwish:
		return func(x float32) float32 { return x * min(max(x+3, 0), 6) / 6 },
			func(x, _ float32) float32 {
				switch {
				case x <= -3:
					return 0
				case x >= 3:
					return 1
				}
				return (2*x + 3) / 6
			}
	}
	return nil, nil
}

// softmax normalises rows of c elements.
type softmax struct {
	c   int
	in  port
	out *value
}

func (u *softmax) ports() []*port  { return []*port{&u.in} }
func (u *softmax) result() *value  { return u.out }
func (u *softmax) reads() []*value { return []*value{u.out} }

func (u *softmax) forward(w *worker, c chunk) error {
	x, y := u.in.x(w, c.n0, c.n1), u.out.x(w, c.n0, c.n1)
	for i := 0; i < len(x); i += u.c {
		softmaxRow(x[i:i+u.c], y[i:i+u.c], 1)
	}
	return nil
}

func (u *softmax) backward(w *worker, c chunk) error {
	if !u.in.needGrad {
		return nil
	}
	y, dy := u.out.x(w, c.n0, c.n1), u.out.dy(w, c.n0, c.n1)
	dx := u.in.begin(w, c.n0, c.n1)
	for i := 0; i < len(y); i += u.c {
		var dot float64
		for j, v := range y[i : i+u.c] {
			dot += float64(v) * float64(dy[i+j])
		}
		for j, v := range y[i : i+u.c] {
			dx[i+j] = v * float32(float64(dy[i+j])-dot)
		}
	}
	return u.in.end(w, c.n0, c.n1)
}

// softmaxRow writes softmax(x/t) to y and returns the logarithm of the sum of
// exp(x/t).
func softmaxRow(x, y []float32, t float64) (logSum float64) {
	top := x[0]
	for _, v := range x {
		top = max(top, v)
	}
	var sum float64
	for i, v := range x {
		e := math.Exp(float64(v-top) / t)
		y[i] = float32(e)
		sum += e
	}
	k := float32(1 / sum)
	for i := range y {
		y[i] *= k
	}
	return math.Log(sum) + float64(top)/t
}

// dropout zeroes elements with probability rate and scales the others by
// 1/(1-rate). Which ones depends on the seed, the step, the layer and the
// example's place in the batch.
type dropout struct {
	rate float64
	seed uint64  // of this layer
	step *uint64 // of the training
	in   port
	out  *value
}

func (u *dropout) ports() []*port  { return []*port{&u.in} }
func (u *dropout) result() *value  { return u.out }
func (u *dropout) reads() []*value { return nil }

func (u *dropout) forward(w *worker, c chunk) error {
	y, x, size := u.out.x(w, c.n0, c.n1), u.in.x(w, c.n0, c.n1), u.in.size
	for i := range c.n1 - c.n0 {
		if err := u.drop(w, y[i*size:(i+1)*size], x[i*size:(i+1)*size], c.n0+i); err != nil {
			return err
		}
	}
	return nil
}

func (u *dropout) backward(w *worker, c chunk) error {
	if !u.in.needGrad {
		return nil
	}
	dy, size := u.out.dy(w, c.n0, c.n1), u.in.size
	dx := u.in.begin(w, c.n0, c.n1)
	for i := range c.n1 - c.n0 {
		if err := u.drop(w, dx[i*size:(i+1)*size], dy[i*size:(i+1)*size], c.n0+i); err != nil {
			return err
		}
	}
	return u.in.end(w, c.n0, c.n1)
}

// drop writes src to dst with elements of the nth example zeroed.
func (u *dropout) drop(w *worker, dst, src []float32, n int) error {
	return kernel.Dropout(&w.s, dst, src, mix(mix(mix(u.seed)+*u.step)+uint64(n)), u.rate)
}

// mix is the finalizer of SplitMix64 (Steele, Lea and Flood, 2014).
func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
