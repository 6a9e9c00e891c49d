package kernel

import (
	"errors"
	"fmt"
	"math"
	"testing"
)

// These tests compare with definitions written independently of the kernels; twin_test.go extends them to all sizes.

func TestPoolDefinition(t *testing.T) {
	shapes := []PoolShape{
		{H: 6, W: 5, C: 3, KH: 2, KW: 2, StrideH: 2, StrideW: 2},
		{H: 7, W: 7, C: 17, KH: 3, KW: 3, StrideH: 2, StrideW: 2, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1},
		{H: 5, W: 6, C: 4, KH: 3, KW: 2, PadTop: 2, PadRight: 1, CountPad: true},
		{H: 5, W: 5, C: 2, KH: 1, KW: 1, StrideH: 2, StrideW: 3},
	}
	eachVariant(t, func(t *testing.T) {
		for i, sh := range shapes {
			p, err := NewPool(sh)
			must(t, err)
			r := rng(uint64(i))
			x, dy := random(r, p.InSize(), 0).s, random(r, p.OutSize(), 0).s
			sh = p.Shape()
			y, avg := make([]float64, p.OutSize()), make([]float64, p.OutSize())
			dmax, davg := make([]float64, p.InSize()), make([]float64, p.InSize())
			for o := range y {
				ch, ox, oy := o%sh.C, o/sh.C%p.ow, o/sh.C/p.ow
				best, count := -1, 0
				var in []int
				for kh := range sh.KH {
					for kw := range sh.KW {
						iy, ix := oy*sh.StrideH-sh.PadTop+kh, ox*sh.StrideW-sh.PadLeft+kw
						if iy < 0 || ix < 0 || iy >= sh.H || ix >= sh.W {
							continue
						}
						j := (iy*sh.W+ix)*sh.C + ch
						in, count = append(in, j), count+1
						if best < 0 || x[j] > x[best] {
							best = j
						}
						avg[o] += float64(x[j])
					}
				}
				if sh.CountPad {
					count = sh.KH * sh.KW
				}
				y[o], avg[o] = float64(x[best]), avg[o]/float64(count)
				dmax[best] += float64(dy[o])
				for _, j := range in {
					davg[j] += float64(dy[o]) / float64(count)
				}
			}
			gotY, gotDX := make([]float32, p.OutSize()), make([]float32, p.InSize())
			must(t, p.Max(nil, x, gotY, 0, 1))
			near(t, "max", gotY, y, 0)
			must(t, p.MaxGrad(nil, x, gotY, dy, gotDX, 0, 1, false))
			near(t, "max gradient", gotDX, dmax, 1e-6)
			must(t, p.Avg(nil, x, gotY, 0, 1))
			near(t, "average", gotY, avg, 1e-6)
			must(t, p.AvgGrad(nil, dy, gotDX, 0, 1))
			near(t, "average gradient", gotDX, davg, 1e-6)
		}
	})
}

func TestMaxGradMask(t *testing.T) {
	eachVariant(t, func(t *testing.T) {
		p, err := NewPool(PoolShape{H: 2, W: 4, C: 1, KH: 2, KW: 2, StrideH: 2, StrideW: 2})
		must(t, err)
		x := []float32{0, 0, 1, 3, 0, 0, 3, 2}
		y, dy, dx := []float32{0, 3}, []float32{5, 7}, make([]float32, 8)
		must(t, p.MaxGrad(nil, x, y, dy, dx, 0, 1, false))
		near(t, "dx", dx, []float64{5, 0, 0, 7, 0, 0, 0, 0}, 0)
		must(t, p.MaxGrad(nil, x, y, dy, dx, 0, 1, true))
		near(t, "masked dx", dx, []float64{0, 0, 0, 7, 0, 0, 0, 0}, 0)
	})
}

// TestOptimizersDefinition follows three steps of each rule, written as in PyTorch's documentation, in float64.
func TestOptimizersDefinition(t *testing.T) {
	const n = 21
	eachVariant(t, func(t *testing.T) {
		for _, p := range []SGDStep{{Rate: 0.1}, {Rate: 0.1, Momentum: 0.9, Decay: 0.01}, {Rate: 0.05, Momentum: 0.8, Nesterov: true, L1: 0.01, GradScale: 0.5}} {
			r := rng(3)
			w, v := random(r, n, 0).s, make([]float32, n)
			w64, v64 := widenAll(w), make([]float64, n)
			for range 3 {
				g := random(r, n, 0).s
				must(t, SGD(nil, w, v, g, p))
				for i := range w64 {
					d := float64(g[i])*scaleOrOne(p.GradScale) + p.Decay*w64[i] + p.L1*float64(sign(w64[i]))
					v64[i] = p.Momentum*v64[i] + d
					if p.Nesterov {
						d += p.Momentum * v64[i]
					} else {
						d = v64[i]
					}
					w64[i] -= p.Rate * d
				}
			}
			near(t, fmt.Sprintf("sgd %+v", p), w, w64, 1e-6)
		}
		for _, p := range []AdamStep{{Rate: 0.01}, {Rate: 0.01, Decay: 0.1, Beta1: 0.8, Beta2: 0.95, Epsilon: 1e-6}, {Rate: 0.02, Decay: 0.1, Decoupled: true, GradScale: 3}} {
			r := rng(4)
			w, m, v := random(r, n, 0).s, make([]float32, n), make([]float32, n)
			w64, m64, v64 := widenAll(w), make([]float64, n), make([]float64, n)
			b1, b2, eps := p.Beta1, p.Beta2, p.Epsilon
			if b1 == 0 {
				b1, b2, eps = 0.9, 0.999, 1e-8
			}
			for step := 1; step <= 3; step++ {
				g := random(r, n, 0).s
				p.Step = step
				must(t, Adam(nil, w, m, v, g, p))
				for i := range w64 {
					d := float64(g[i]) * scaleOrOne(p.GradScale)
					if p.Decoupled {
						w64[i] -= p.Rate * p.Decay * w64[i]
					} else {
						d += p.Decay * w64[i]
					}
					m64[i] = b1*m64[i] + (1-b1)*d
					v64[i] = b2*v64[i] + (1-b2)*d*d
					mh, vh := m64[i]/(1-math.Pow(b1, float64(step))), v64[i]/(1-math.Pow(b2, float64(step)))
					w64[i] -= p.Rate * mh / (math.Sqrt(vh) + eps)
				}
			}
			near(t, fmt.Sprintf("adam %+v", p), w, w64, 1e-5)
		}
	})
}

func widenAll(s []float32) []float64 {
	out := make([]float64, len(s))
	for i, v := range s {
		out[i] = float64(v)
	}
	return out
}

func sign(v float64) int {
	switch {
	case v > 0:
		return 1
	case v < 0:
		return -1
	}
	return 0
}

// TestBatchNorm builds batch normalisation from the primitives and compares it, and its gradient, with the definition.
func TestBatchNorm(t *testing.T) {
	const rows, c = 300, 19
	eachVariant(t, func(t *testing.T) {
		r := rng(8)
		x, dy := random(r, rows*c, 0).s, random(r, rows*c, 0).s
		for i := range x {
			x[i] = x[i]*3 + 100 // a mean far from zero
		}
		gamma, beta := random(r, c, 0).s, random(r, c, 0).s
		sum, sq, dots, dsum := make([]float64, c), make([]float64, c), make([]float64, c), make([]float64, c)
		must(t, ChannelSums(nil, x, c, 0, rows, sum))
		mean, inv, scale, shift := make([]float32, c), make([]float64, c), make([]float32, c), make([]float32, c)
		for i := range mean {
			mean[i] = float32(sum[i] / rows)
		}
		must(t, ChannelSquares(nil, x, mean, c, 0, rows, sq))
		for i := range mean {
			inv[i] = 1 / math.Sqrt(sq[i]/rows+1e-5)
			scale[i] = float32(float64(gamma[i]) * inv[i])
			shift[i] = beta[i] - mean[i]*scale[i]
		}
		y, dx := make([]float32, rows*c), make([]float32, rows*c)
		must(t, Affine(y, x, scale, shift, c, 0, rows, None, false))
		must(t, ChannelSums(nil, dy, c, 0, rows, dsum))
		must(t, ChannelDots(nil, x, mean, dy, c, 0, rows, dots))
		a, b, d := make([]float32, c), make([]float32, c), make([]float32, c)
		for i := range a {
			k := float64(scale[i]) * inv[i] * inv[i] * dots[i] / rows
			a[i], b[i] = float32(-k), scale[i]
			d[i] = float32(k*float64(mean[i]) - float64(scale[i])*dsum[i]/rows)
		}
		must(t, Combine(dx, x, dy, a, b, d, c, 0, rows))
		for ch := range c {
			wantY, wantDX := batchNormColumn(x, dy, ch, c, rows, float64(gamma[ch]), float64(beta[ch]))
			for i := range rows {
				if e := math.Abs(float64(y[i*c+ch]) - wantY[i]); e > 2e-4 {
					t.Fatalf("y[%d, %d] = %g, want %g", i, ch, y[i*c+ch], wantY[i])
				}
				if e := math.Abs(float64(dx[i*c+ch]) - wantDX[i]); e > 2e-5 {
					t.Fatalf("dx[%d, %d] = %g, want %g", i, ch, dx[i*c+ch], wantDX[i])
				}
			}
		}
	})
}

// batchNormColumn is batch normalisation of one channel and its gradient, by the definition.
func batchNormColumn(x, dy []float32, ch, c, rows int, gamma, beta float64) (y, dx []float64) {
	var mean, variance, sumD, sumDX float64
	for i := range rows {
		mean += float64(x[i*c+ch]) / float64(rows)
	}
	for i := range rows {
		variance += (float64(x[i*c+ch]) - mean) * (float64(x[i*c+ch]) - mean) / float64(rows)
	}
	inv := 1 / math.Sqrt(variance+1e-5)
	for i := range rows {
		sumD += float64(dy[i*c+ch])
		sumDX += float64(dy[i*c+ch]) * (float64(x[i*c+ch]) - mean) * inv
	}
	for i := range rows {
		xhat := (float64(x[i*c+ch]) - mean) * inv
		y = append(y, gamma*xhat+beta)
		dx = append(dx, gamma*inv*(float64(dy[i*c+ch])-sumD/float64(rows)-xhat*sumDX/float64(rows)))
	}
	return y, dx
}

func TestErrors(t *testing.T) {
	x := make([]float32, 8)
	f := make([]float64, 8)
	pool := func(s PoolShape) error { _, err := NewPool(s); return err }
	dense := func(in, out int) error { _, err := NewDense(in, out); return err }
	d, err := NewDense(2, 3)
	must(t, err)
	for name, tt := range map[string]struct{ err, want error }{
		"pool padding":  {pool(PoolShape{H: 4, W: 4, C: 1, KH: 2, KW: 2, PadTop: 2}), ErrShape},
		"pool window":   {pool(PoolShape{H: 4, W: 4, C: 1, KH: 5, KW: 2}), ErrShape},
		"pool empty":    {pool(PoolShape{}), ErrShape},
		"dense empty":   {dense(0, 3), ErrShape},
		"dense huge":    {dense(1<<20, 1<<20), ErrShape},
		"dense rows":    {d.GradWeightsRows(nil, x, x, x, 0, 1, 0, 3), ErrRange},
		"dense short":   {d.Forward(nil, x, x, x, 0, 3, Epilogue{}), ErrLength},
		"dense wt":      {d.TransposeWeights(x, x[:5]), ErrLength},
		"add":           {Add(x, x[1:], x, None), ErrLength},
		"activation":    {Add(x, x, x, 7), ErrParam},
		"affine grad":   {AffineGrad(nil, x, x, x, x, x, len(x), 0, 1, ReLU, make([]float64, len(x)), nil), ErrLength},
		"grad":          {ActivateGrad(x, x, nil, ReLU), ErrLength},
		"no channels":   {ColumnSums(x, x, 0, 0, 1), ErrShape},
		"columns":       {ColumnSums(x, x[:1], 2, 0, 4), ErrLength},
		"column range":  {ColumnSums(x, x, 2, 3, 1), ErrRange},
		"sums":          {ChannelSums(nil, x, 2, 0, 4, f[:1]), ErrLength},
		"affine":        {Affine(x, x, x[:1], x, 2, 0, 4, None, false), ErrLength},
		"combine":       {Combine(x, x, x, x, x, nil, 2, 0, 4), ErrLength},
		"rate":          {SGD(nil, x, x, x, SGDStep{}), ErrParam},
		"momentum":      {SGD(nil, x, x, x, SGDStep{Rate: 1, Momentum: 1}), ErrParam},
		"decay":         {SGD(nil, x, x, x, SGDStep{Rate: 1, Decay: math.NaN()}), ErrParam},
		"scale":         {SGD(nil, x, x, x, SGDStep{Rate: 1, GradScale: math.Inf(1)}), ErrParam},
		"step":          {Adam(nil, x, x, x, x, AdamStep{Rate: 1}), ErrParam},
		"beta":          {Adam(nil, x, x, x, x, AdamStep{Rate: 1, Step: 1, Beta1: 0.5, Beta2: 1}), ErrParam},
		"moments":       {Adam(nil, x, x[1:], x, x, AdamStep{Rate: 1, Step: 1}), ErrLength},
		"matrix":        {Gemm(nil, MatrixShape{M: 2, N: 2, K: 2, ARow: 2, ACol: 1, LDB: 1, LDC: 2}, x, x, x, Epilogue{}), ErrShape},
		"matrix short":  {Gemm(nil, MatrixShape{M: 2, N: 2, K: 2, ARow: 9, ACol: 1, LDB: 2, LDC: 2}, x, x, x, Epilogue{}), ErrLength},
		"matrix huge":   {Gemm(nil, MatrixShape{M: 1 << 30, N: 2, K: 2, ARow: 1 << 30, ACol: 1, LDB: 2, LDC: 2}, x, x, x, Epilogue{}), ErrShape},
		"global":        {GlobalAvg(x, x, 0, 2, 0, 1), ErrShape},
		"global short":  {GlobalAvgGrad(x, x, 5, 2, 0, 1), ErrLength},
		"quantize":      {Quantize(nil, make([]uint8, 2), x, 0, 1), ErrParam},
		"dequantize":    {Dequantize(nil, x, nil, 1, 1), ErrLength},
		"empty is fine": {Add(nil, nil, nil, None), nil},
	} {
		if !errors.Is(tt.err, tt.want) {
			t.Errorf("%s: error is %v, want %v", name, tt.err, tt.want)
		}
	}
}
