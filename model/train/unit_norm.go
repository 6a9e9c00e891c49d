package train

import (
	"math"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/kernel"
)

// norm is batch normalisation with the statistics of the batch. It takes two
// passes each way, so it is two units: normStats, then normApply.
//
// Every chunk leaves its sum and its squared deviations from its own mean; they
// are merged in the order of the chunks in float64 (Chan, Golub and LeVeque,
// 1979). The running variance takes the unbiased estimate, as PyTorch does.
type norm struct {
	in port
	masker
	op   model.BatchNorm
	c    int
	rows int // per example
	n    int // examples

	scale, shift   []float32
	gScale, gShift []float32
	mean, variance []float32 // running

	sums, squares [][]float64 // per forward chunk
	counts        []int
	chunkMean     [][]float32 // per worker
	dots, dySums  [][]float64 // per backward chunk

	bMean            []float32 // of the batch
	sigma            []float64
	a, b             []float32 // y = a*x + b
	ga, gb, gd       []float32 // dx = ga*x + gb*dy + gd
	mean64, square64 []float64
}

func newNorm(op model.BatchNorm, in, out *value, c, n int) *norm {
	u := &norm{in: port{value: in}, masker: masker{out: out}, op: op, c: c, rows: in.size / c, n: n}
	for _, p := range []*[]float32{&u.bMean, &u.a, &u.b, &u.ga, &u.gb, &u.gd} {
		*p = make([]float32, c)
	}
	for _, p := range []*[]float64{&u.sigma, &u.mean64, &u.square64} {
		*p = make([]float64, c)
	}
	return u
}

// setSlots makes room for what chunks leave.
func (u *norm) setSlots(forward, backward, workers int) {
	rows := func(n int) [][]float64 {
		r := make([][]float64, n)
		for i := range r {
			r[i] = make([]float64, u.c)
		}
		return r
	}
	u.sums, u.squares, u.counts = rows(forward), rows(forward), make([]int, forward)
	u.dots, u.dySums = rows(backward), rows(backward)
	for range workers {
		u.chunkMean = append(u.chunkMean, make([]float32, u.c))
	}
}

// normStats gathers the statistics, and on the way back writes the gradient of
// the input.
type normStats struct{ *norm }

func (u normStats) ports() []*port  { return []*port{&u.in} }
func (u normStats) result() *value  { return u.in.value }
func (u normStats) reads() []*value { return []*value{u.in.value} }

func (u normStats) forward(w *worker, c chunk) error {
	x, rows := u.in.x(w, c.n0, c.n1), (c.n1-c.n0)*u.rows
	sum, square, mean := u.sums[c.slot], u.squares[c.slot], u.chunkMean[w.id]
	clear(sum)
	clear(square)
	if err := kernel.ChannelSums(&w.s, x, u.c, 0, rows, sum); err != nil {
		return err
	}
	for i, s := range sum {
		mean[i] = float32(s / float64(rows))
	}
	u.counts[c.slot] = rows
	return kernel.ChannelSquares(&w.s, x, mean, u.c, 0, rows, square)
}

func (u normStats) forwardFinish() finisher { return (*normForward)(u.norm) }

// normForward merges the chunks' statistics.
type normForward norm

func (u *normForward) tasks() int { return 1 }

func (u *normForward) do(*worker, int) error {
	clear(u.mean64)
	clear(u.square64)
	total := 0.0
	for s, sum := range u.sums {
		n := float64(u.counts[s])
		for i, v := range sum {
			m := v / n
			off := m - float64(float32(m))
			d := m - u.mean64[i]
			u.square64[i] += u.squares[s][i] - n*off*off + d*d*total*n/(total+n)
			u.mean64[i] += d * n / (total + n)
		}
		total += n
	}
	mom := float64(u.op.Momentum)
	for i, m := range u.mean64 {
		v := u.square64[i] / total
		u.sigma[i] = math.Sqrt(v + float64(u.op.Epsilon))
		u.bMean[i] = float32(m)
		a := float64(u.scale[i]) / u.sigma[i]
		u.a[i] = float32(a)
		u.b[i] = float32(float64(u.shift[i]) - m*a)
		if total > 1 {
			v *= total / (total - 1)
		}
		u.mean[i] = float32((1-mom)*float64(u.mean[i]) + mom*m)
		u.variance[i] = float32((1-mom)*float64(u.variance[i]) + mom*v)
	}
	return nil
}

func (u normStats) backward(w *worker, c chunk) error {
	if !u.in.needGrad {
		return nil
	}
	rows := (c.n1 - c.n0) * u.rows
	dy := u.out.dy(w, c.n0, c.n1)
	dx := u.in.begin(w, c.n0, c.n1)
	if err := kernel.Combine(dx, u.in.x(w, c.n0, c.n1), dy, u.ga, u.gb, u.gd, u.c, 0, rows); err != nil {
		return err
	}
	return u.in.end(w, c.n0, c.n1)
}

// normApply normalises, and on the way back gathers the sums that the gradients
// need.
type normApply struct{ *norm }

func (u normApply) ports() []*port  { return []*port{&u.in} }
func (u normApply) result() *value  { return u.out }
func (u normApply) reads() []*value { return []*value{u.in.value} }

func (u normApply) forward(w *worker, c chunk) error {
	return kernel.Affine(u.out.x(w, c.n0, c.n1), u.in.x(w, c.n0, c.n1), u.a, u.b, u.c, 0, (c.n1-c.n0)*u.rows, u.out.act, false)
}

func (u normApply) backward(w *worker, c chunk) error {
	rows, act := (c.n1-c.n0)*u.rows, u.out.act
	if u.out.masked {
		act = kernel.None
	}
	sum, dot := u.dySums[c.slot], u.dots[c.slot]
	clear(sum)
	clear(dot)
	return kernel.AffineGrad(&w.s, u.out.dy(w, c.n0, c.n1), u.in.x(w, c.n0, c.n1), u.a, u.b, u.bMean, u.c, 0, rows, act, sum, dot)
}

func (u normApply) backwardFinish() finisher { return (*normBackward)(u.norm) }

// normBackward turns the chunks' sums into the gradients of scale and shift and
// the coefficients of the gradient of the input.
type normBackward norm

func (u *normBackward) tasks() int { return 1 }

func (u *normBackward) do(*worker, int) error {
	n := float64(u.n * u.rows)
	for i := range u.c {
		var sum, dot float64
		for s := range u.dots {
			sum += u.dySums[s][i]
			dot += u.dots[s][i]
		}
		a := float64(u.scale[i]) / u.sigma[i]
		k := a * dot / (n * u.sigma[i] * u.sigma[i])
		u.gShift[i] = float32(sum)
		u.gScale[i] = float32(dot / u.sigma[i])
		u.ga[i] = float32(-k)
		u.gb[i] = float32(a)
		u.gd[i] = float32(k*float64(u.bMean[i]) - a*sum/n)
	}
	return nil
}
