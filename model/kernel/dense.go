package kernel

import "fmt"

// MatrixShape describes the product c[M×N] = a[M×K] · b[K×N]: element (i, p) of a at i*ARow + p*ACol, element (p, j) of b
// at p*LDB + j, element (i, j) of c at i*LDC + j. Strides count elements.
type MatrixShape struct {
	M, N, K    int
	ARow, ACol int
	LDB, LDC   int
}

// Validate returns an error wrapping ErrShape.
func (s MatrixShape) Validate() error {
	if s.M < 0 || s.N < 0 || s.K < 0 || s.ARow < 0 || s.ACol < 0 {
		return fmt.Errorf("matrix %+v: sizes and strides of a must not be negative: %w", s, ErrShape)
	}
	if s.LDB < s.N || s.LDC < s.N {
		return fmt.Errorf("matrix LDB is %d and LDC %d, want at least N %d: %w", s.LDB, s.LDC, s.N, ErrShape)
	}
	ar, ok0 := mul(s.M, s.ARow)
	ac, ok1 := mul(s.K, s.ACol)
	_, ok2 := mul(s.K, s.LDB)
	_, ok3 := mul(s.M, s.LDC)
	if !ok0 || !ok1 || !ok2 || !ok3 || ar+ac > maxElems {
		return fmt.Errorf("matrix %+v has more than %d elements: %w", s, maxElems, ErrShape)
	}
	return nil
}

// Gemm computes c = act(a·b + bias (+ c)). Every element of c is one sum in the order of K, whatever M and N: rows and
// columns may be divided between goroutines freely.
func Gemm(s *Scratch, g MatrixShape, a, b, c []float32, e Epilogue) error {
	im, err := current()
	flags, errE := e.check(g.N)
	if err := firstErr(err, errE, g.Validate()); err != nil {
		return err
	}
	if g.M == 0 || g.N == 0 {
		return nil
	}
	if g.K > 0 {
		err = firstErr(checkLen("a", a, (g.M-1)*g.ARow+(g.K-1)*g.ACol+1), checkLen("b", b, (g.K-1)*g.LDB+g.N))
	}
	if err := firstErr(err, checkLen("c", c, (g.M-1)*g.LDC+g.N)); err != nil {
		return err
	}
	m := matrix{m: g.M, n: g.N, k: g.K, a: addr(a, 0), as: g.ARow, ak: g.ACol, b: addr(b, 0), ldb: g.LDB, c: addr(c, 0), ldc: g.LDC}
	m.run(im, s.orNew(), addr(e.Bias, 0), flags)
	return nil
}

// Dense is a fully connected layer: rows of In inputs to rows of Out outputs, weights [In][Out]. It is immutable.
type Dense struct{ in, out int }

// NewDense checks the sizes; the error wraps ErrShape.
func NewDense(in, out int) (*Dense, error) {
	if n, ok := mul(in, out); !ok || n == 0 {
		return nil, fmt.Errorf("dense %d to %d: want positive sizes and at most %d weights: %w", in, out, maxElems, ErrShape)
	}
	return &Dense{in, out}, nil
}

// In is the number of inputs of a row.
func (d *Dense) In() int { return d.in }

// Out is the number of outputs of a row.
func (d *Dense) Out() int { return d.out }

// Forward computes rows [n0, n1) of y = act(x·w + bias (+ y)). Rows are independent.
func (d *Dense) Forward(s *Scratch, x, w, y []float32, n0, n1 int, e Epilogue) error {
	im, err := current()
	flags, errE := e.check(d.out)
	if err := firstErr(err, errE, checkLen("w", w, d.in*d.out), checkImages("x", x, d.in, n0, n1), checkImages("y", y, d.out, n0, n1)); err != nil {
		return err
	}
	if n0 == n1 {
		return nil
	}
	m := matrix{m: n1 - n0, n: d.out, k: d.in, a: addr(x, n0*d.in), as: d.in, ak: 1, b: addr(w, 0), ldb: d.out, c: addr(y, n0*d.out), ldc: d.out}
	m.run(im, s.orNew(), addr(e.Bias, 0), flags)
	return nil
}

// GradWeights adds xᵀ·dy over rows [n0, n1) to dw. The sum over the rows of one call is formed first and then added, so
// the division into calls shows in the last bits: divide by inputs (GradWeightsRows), or into fixed chunks.
func (d *Dense) GradWeights(s *Scratch, x, dy, dw []float32, n0, n1 int) error {
	return d.GradWeightsRows(s, x, dy, dw, n0, n1, 0, d.in)
}

// GradWeightsRows is GradWeights for the inputs [i0, i1) only, that is for rows of dw.
func (d *Dense) GradWeightsRows(s *Scratch, x, dy, dw []float32, n0, n1, i0, i1 int) error {
	im, err := current()
	if err := firstErr(err, checkLen("dw", dw, d.in*d.out), checkImages("x", x, d.in, n0, n1), checkImages("dy", dy, d.out, n0, n1)); err != nil {
		return err
	}
	if i0 < 0 || i1 < i0 || i1 > d.in {
		return fmt.Errorf("inputs [%d, %d): want 0 <= i0 <= i1 <= %d: %w", i0, i1, d.in, ErrRange)
	}
	if n0 == n1 || i0 == i1 {
		return nil
	}
	m := matrix{m: i1 - i0, n: d.out, k: n1 - n0, a: addr(x, n0*d.in+i0), as: 1, ak: d.in, b: addr(dy, n0*d.out), ldb: d.out, c: addr(dw, i0*d.out), ldc: d.out}
	m.run(im, s.orNew(), nil, flagAccumulate)
	return nil
}

// TransposeWeights writes the weights as [Out][In] to wt.
func (d *Dense) TransposeWeights(w, wt []float32) error {
	im, err := current()
	if err := firstErr(err, checkLen("w", w, d.in*d.out), checkLen("wt", wt, d.in*d.out)); err != nil {
		return err
	}
	im.transpose(addr(wt, 0), addr(w, 0), d.in, d.out, d.in, d.out)
	return nil
}

// GradInput writes rows [n0, n1) of dx = dy·wᵀ. It transposes the weights on every call; see GradInputTransposed.
func (d *Dense) GradInput(s *Scratch, dy, w, dx []float32, n0, n1 int) error {
	s = s.orNew()
	s.wt = grow(s.wt, d.in*d.out)
	if err := d.TransposeWeights(w, s.wt); err != nil {
		return err
	}
	return d.GradInputTransposed(s, dy, s.wt, dx, n0, n1)
}

// GradInputTransposed is GradInput with weights from TransposeWeights.
func (d *Dense) GradInputTransposed(s *Scratch, dy, wt, dx []float32, n0, n1 int) error {
	im, err := current()
	if err := firstErr(err, checkLen("wt", wt, d.in*d.out), checkImages("dy", dy, d.out, n0, n1), checkImages("dx", dx, d.in, n0, n1)); err != nil {
		return err
	}
	if n0 == n1 {
		return nil
	}
	m := matrix{m: n1 - n0, n: d.in, k: d.out, a: addr(dy, n0*d.out), as: d.out, ak: 1, b: addr(wt, 0), ldb: d.in, c: addr(dx, n0*d.in), ldc: d.in}
	m.run(im, s.orNew(), nil, 0)
	return nil
}
