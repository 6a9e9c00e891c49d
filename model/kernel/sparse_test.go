package kernel

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
)

// thin sets about the given fraction of the weights to zero: single ones, or blocks of 4 output channels.
func thin(r *rand.Rand, c *Conv, w []float32, sparsity float64, block int) {
	for row := 0; row < len(w); row += c.s.OC {
		for oc := 0; oc < c.s.OC; oc += block {
			if r.Float64() < sparsity {
				clear(w[row+oc : row+min(oc+block, c.s.OC)])
			}
		}
	}
}

func TestSparseConv(t *testing.T) {
	shapes := append([]ConvShape{{H: 1, W: 1, IC: 100, OC: 13, KH: 1, KW: 1}, {H: 1, W: 1, IC: 64, OC: 64, KH: 1, KW: 1}, {H: 1, W: 1, IC: 60, OC: 36, KH: 1, KW: 1, Groups: 6}}, convTable...)
	eachVariant(t, func(t *testing.T) {
		for i, sh := range shapes {
			for _, block := range []int{1, 4} {
				sparsity, n := []float64{0.9, 0, 0.7, 1}[i%4], 1+2*(i%2)
				t.Run(fmt.Sprintf("%d/block %d/sparsity %g/n %d", i, block, sparsity, n), func(t *testing.T) {
					skipSlow(t, sh)
					checkSparse(t, rng(uint64(i)), sh, block, sparsity, n)
				})
			}
		}
	})
}

func checkSparse(t *testing.T, r *rand.Rand, sh ConvShape, block int, sparsity float64, n int) {
	t.Helper()
	c, err := NewConv(sh)
	must(t, err)
	x, w, b, y := random(r, n*c.inSize, 1), random(r, c.wSize, 0), random(r, c.s.OC, 2), random(r, n*c.outSize, 3)
	thin(r, c, w.s, sparsity, block)
	p, err := NewSparseConv(sh, w.s, block)
	must(t, err)
	want := make([]float64, n*c.outSize)
	for i := range n {
		c.taps(func(xi, wi, yi int) {
			want[i*c.outSize+yi] += float64(x.s[i*c.inSize+xi]) * float64(w.s[wi])
		})
	}
	for i := range want {
		want[i] = max(0, want[i]+float64(b.s[i%sh.OC]))
	}
	s := new(Scratch)
	must(t, p.Forward(s, x.s, y.s, 0, n, Epilogue{Bias: b.s, Activation: ReLU}))
	near(t, "y", y.s, want, 1e-4)
	must(t, p.Forward(s, x.s, y.s, 0, n, Epilogue{Bias: b.s, Accumulate: true, Activation: ReLU6}))
	ref := append([]float32(nil), y.s...)
	must(t, c.Forward(s, x.s, w.s, y.s, 0, n, Epilogue{Bias: b.s, Activation: ReLU}))
	must(t, c.Forward(s, x.s, w.s, y.s, 0, n, Epilogue{Bias: b.s, Accumulate: true, Activation: ReLU6}))
	for i := range want {
		want[i] = float64(y.s[i])
	}
	near(t, "y twice", ref, want, 1e-4)
	y.check(t, "y")
	if a := testing.AllocsPerRun(2, func() { must(t, p.Forward(s, x.s, y.s, 0, n, Epilogue{Bias: b.s, Accumulate: true})) }); a != 0 {
		t.Errorf("Forward allocates %g times, want none", a)
	}
}

func TestSparseConvErrors(t *testing.T) {
	sh := ConvShape{H: 3, W: 3, IC: 2, OC: 2, KH: 1, KW: 1}
	if _, err := NewSparseConv(sh, make([]float32, 4), 3); !errors.Is(err, ErrShape) {
		t.Errorf("block 3: %v", err)
	}
	if _, err := NewSparseConv(sh, make([]float32, 3), 1); !errors.Is(err, ErrLength) {
		t.Errorf("short weights: %v", err)
	}
	if _, err := NewSparseConv(ConvShape{}, nil, 1); !errors.Is(err, ErrShape) {
		t.Errorf("no shape: %v", err)
	}
	p, err := NewSparseConv(sh, []float32{0, 1, 2, 0}, 1)
	must(t, err)
	if p.Entries() != 2 || p.Block() != 1 || p.Conv().OutSize() != 18 {
		t.Errorf("entries %d, block %d, output %d", p.Entries(), p.Block(), p.Conv().OutSize())
	}
	if err := p.Forward(nil, make([]float32, 17), make([]float32, 18), 0, 1, Epilogue{}); !errors.Is(err, ErrLength) {
		t.Errorf("short x: %v", err)
	}
}
