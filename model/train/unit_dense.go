package train

import "github.com/espalier-ml/espalier/model/kernel"

// dense is a fully connected layer with bias and activation. The gradient of
// its weights is computed after the pass, divided by rows of the weights.
type dense struct {
	k  *kernel.Dense
	in port
	masker
	n int // examples

	w, b   []float32
	gw, gb []float32
	wt     []float32
	rows   int // of the weights, per task
}

func (u *dense) ports() []*port { return []*port{&u.in} }
func (u *dense) result() *value { return u.out }

func (u *dense) forward(w *worker, c chunk) error {
	return u.k.Forward(&w.s, u.in.x(w, c.n0, c.n1), u.w, u.out.x(w, c.n0, c.n1), 0, c.n1-c.n0, kernel.Epilogue{Bias: u.b, Activation: u.out.act})
}

func (u *dense) prepare(*worker) error {
	if !u.in.needGrad {
		return nil
	}
	return u.k.TransposeWeights(u.w, u.wt)
}

func (u *dense) backward(w *worker, c chunk) error {
	dy, err := u.dy(w, c.n0, c.n1)
	if err != nil || !u.in.needGrad {
		return err
	}
	dx := u.in.begin(w, c.n0, c.n1)
	if err := u.k.GradInputTransposed(&w.s, dy, u.wt, dx, 0, c.n1-c.n0); err != nil {
		return err
	}
	return u.in.end(w, c.n0, c.n1)
}

func (u *dense) backwardFinish() finisher { return (*denseGrad)(u) }

// denseGrad is the gradient of a dense unit's parameters over the whole batch.
type denseGrad dense

// denseTask is about how many multiplications one task should have.
const denseTask = 1 << 20

func (u *denseGrad) tasks() int {
	u.rows = max(1, denseTask/(u.n*u.k.Out()))
	u.rows = (u.rows + 59) / 60 * 60 // whole tiles of every kernel variant
	return (u.k.In() + u.rows - 1) / u.rows
}

func (u *denseGrad) do(w *worker, i int) error {
	dy := u.out.grad
	if i == 0 && u.b != nil {
		clear(u.gb)
		if err := kernel.ColumnSums(dy, u.gb, len(u.b), 0, u.n); err != nil {
			return err
		}
	}
	in, out := u.k.In(), u.k.Out()
	i0, i1 := i*u.rows, min((i+1)*u.rows, in)
	return kernel.Gemm(&w.s, kernel.MatrixShape{M: i1 - i0, N: out, K: u.n, ARow: 1, ACol: in, LDB: out, LDC: out},
		u.in.data[i0:u.n*in], dy, u.gw[i0*out:i1*out], kernel.Epilogue{})
}
