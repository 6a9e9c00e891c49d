package kernel

import (
	"errors"
	"fmt"
	"math"
	"testing"
)

// twin runs f under the generic variant and under v on copies of the same buffers, and compares what it left in them.
// Buffers are guarded and misaligned.
func twin(t *testing.T, v Variant, bufs []*guarded, tol float64, f func(b [][]float32)) {
	t.Helper()
	run := func(v Variant) []*guarded {
		restore, err := Force(v)
		must(t, err)
		defer restore()
		var out []*guarded
		var ss [][]float32
		for _, b := range bufs {
			g := newGuarded(len(b.s), (len(b.all)-len(b.s))%4)
			copy(g.s, b.s)
			out, ss = append(out, g), append(ss, g.s)
		}
		f(ss)
		return out
	}
	want, got := run(Generic), run(v)
	for i := range got {
		ref := make([]float64, len(want[i].s))
		for j, w := range want[i].s {
			ref[j] = float64(w)
		}
		near(t, fmt.Sprintf("buffer %d", i), got[i].s, ref, tol)
		got[i].check(t, fmt.Sprintf("buffer %d", i))
	}
}

// special scatters values that kernels must treat as the generic twin does.
func special(g *guarded, every int) {
	vals := []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.Copysign(0, -1)), 0, 1e-40, 7}
	for i := every; i < len(g.s); i += every {
		g.s[i] = vals[i/every%len(vals)]
	}
}

var lengths = []int{1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 64, 100, 129, 1000}

// rounding is how far elementwise results of v may be from the generic ones: NEON rounds at the same places.
func rounding(v Variant, tol float64) float64 {
	if v == NEON || v == NEONDot {
		return 0
	}
	return tol
}

func TestReLUKeepsNegativeZero(t *testing.T) {
	eachVariant(t, func(t *testing.T) {
		for _, act := range []Activation{ReLU, ReLU6} {
			x := make([]float32, 37)
			for i := range x {
				x[i] = float32(math.Copysign(0, -1))
			}
			y := make([]float32, len(x))
			must(t, Activate(y, x, act))
			sameBits(t, "relu", y, x)
			must(t, Add(y, x, x, act))
			sameBits(t, "add", y, x)
		}
	})
}

func TestElementwise(t *testing.T) {
	s := new(Scratch)
	ops := map[string]func(b [][]float32){
		"add":       func(b [][]float32) { must(t, Add(b[0], b[1], b[2], None)) },
		"add relu":  func(b [][]float32) { must(t, Add(b[0], b[1], b[2], ReLU)) },
		"add relu6": func(b [][]float32) { must(t, Add(b[0], b[0], b[2], ReLU6)) },
		"scaled":    func(b [][]float32) { must(t, AddScaled(b[0], 0.3, b[1])) },
		"scale":     func(b [][]float32) { must(t, Scale(b[0], -1.7)) },
		"relu":      func(b [][]float32) { must(t, Activate(b[0], b[1], ReLU)) },
		"relu6":     func(b [][]float32) { must(t, Activate(b[1], b[1], ReLU6)) },
		"relu grad": func(b [][]float32) { must(t, ActivateGrad(b[0], b[1], b[2], ReLU)) },
		"6 grad":    func(b [][]float32) { must(t, ActivateGrad(b[2], b[1], b[2], ReLU6)) },
		"no grad":   func(b [][]float32) { must(t, ActivateGrad(b[0], b[1], b[2], None)) },
	}
	for _, v := range Available() {
		for name, op := range ops {
			t.Run(string(v)+"/"+name, func(t *testing.T) {
				for i, n := range lengths {
					r := rng(uint64(n))
					bufs := []*guarded{random(r, n, i%4), random(r, n, (i+1)%4), random(r, n, (i+2)%4)}
					for _, b := range bufs {
						for j := range b.s {
							b.s[j] *= 8
						}
					}
					twin(t, v, bufs, rounding(v, 1e-6), op)
					special(bufs[1], 3)
					special(bufs[2], 5)
					twin(t, v, bufs, rounding(v, 1e-6), op)
				}
			})
		}
	}
	_ = s
}

// TestDropout: all variants give the same bits; about the right part survives, other keys choose others, and neither
// neighbours nor keys one apart go together.
func TestDropout(t *testing.T) {
	s := new(Scratch)
	for _, v := range Available() {
		t.Run(string(v), func(t *testing.T) {
			for i, n := range lengths {
				bufs := []*guarded{random(rng(uint64(n)), n, i%4), random(rng(1), n, (i+1)%4)}
				special(bufs[1], 3)
				for _, rate := range []float64{0, 0.3, 0.999} {
					twin(t, v, bufs, 0, func(b [][]float32) { must(t, Dropout(s, b[0], b[1], uint64(n)<<31, rate)) })
					twin(t, v, bufs, 0, func(b [][]float32) { must(t, Dropout(s, b[1], b[1], 5, rate)) })
				}
			}
		})
	}
	const n, rate = 1 << 16, 0.3
	ones := make([]float32, n)
	for i := range ones {
		ones[i] = 1
	}
	keep := func(key uint64) []float32 {
		y := make([]float32, n)
		must(t, Dropout(s, y, ones, key, rate))
		return y
	}
	// Of n independent pairs, sums have a standard deviation of under half the root of n.
	together := func(name string, a, b []float32, shift int) {
		t.Helper()
		both, want := 0, (1-rate)*(1-rate)*float64(n-shift)
		for i := range n - shift {
			if a[i] > 0 && b[i+shift] > 0 {
				both++
			}
		}
		if math.Abs(float64(both)-want) > 2.5*math.Sqrt(n) {
			t.Errorf("%s: %d of %d survive together, want about %.0f", name, both, n, want)
		}
	}
	a := keep(1)
	kept := 0
	for _, v := range a {
		if v > 0 {
			kept++
			if v != float32(1/(1-rate)) {
				t.Fatalf("a one becomes %v, want %v", v, float32(1/(1-rate)))
			}
		}
	}
	if math.Abs(float64(kept)-(1-rate)*n) > 2.5*math.Sqrt(n) {
		t.Errorf("%d of %d survive, want about %.0f", kept, n, (1-rate)*n)
	}
	for shift := 1; shift < 20; shift++ {
		together(fmt.Sprintf("elements %d apart", shift), a, a, shift)
	}
	together("keys one apart", a, keep(2), 0)
	together("keys 2³² apart", a, keep(1+1<<32), 0)
	if err := Dropout(s, a, a, 1, 1); !errors.Is(err, ErrParam) {
		t.Errorf("rate 1: error is %v, want ErrParam", err)
	}
}

func TestOptimizerTwins(t *testing.T) {
	s := new(Scratch)
	ops := map[string]func(b [][]float32){
		"sgd": func(b [][]float32) { must(t, SGD(s, b[0], b[1], b[2], SGDStep{Rate: 0.1})) },
		"momentum": func(b [][]float32) {
			must(t, SGD(s, b[0], b[1], b[2], SGDStep{Rate: 0.1, Momentum: 0.9, Decay: 0.01, L1: 0.002}))
		},
		"nesterov": func(b [][]float32) {
			must(t, SGD(s, b[0], b[1], b[2], SGDStep{Rate: 0.1, Momentum: 0.9, Nesterov: true, GradScale: 0.5}))
		},
		"adam": func(b [][]float32) { must(t, Adam(s, b[0], b[1], b[3], b[2], AdamStep{Rate: 0.01, Step: 3, L1: 0.01})) },
		"adamw": func(b [][]float32) {
			must(t, Adam(s, b[0], b[1], b[3], b[2], AdamStep{Rate: 0.01, Step: 1, Decay: 0.1, Decoupled: true, GradScale: 2}))
		},
	}
	for _, v := range Available() {
		for name, op := range ops {
			t.Run(string(v)+"/"+name, func(t *testing.T) {
				for i, n := range lengths {
					r := rng(uint64(n))
					bufs := []*guarded{random(r, n, i%4), random(r, n, (i+1)%4), random(r, n, (i+2)%4), random(r, n, (i+3)%4)}
					for j := range bufs[3].s {
						bufs[3].s[j] = bufs[3].s[j]*bufs[3].s[j] + 1e-3
					}
					bufs[0].s[0] = 0
					twin(t, v, bufs, rounding(v, 2e-6), op)
				}
			})
		}
	}
}

func TestColumnTwins(t *testing.T) {
	for _, v := range Available() {
		t.Run(string(v), func(t *testing.T) {
			for _, c := range []int{1, 3, 8, 16, 19, 31, 32, 64, 70, 130} {
				for _, rows := range []int{1, 2, 5, 131} {
					r := rng(uint64(c*1000 + rows))
					bufs := []*guarded{random(r, rows*c, 1), random(r, rows*c, 2), random(r, c, 3), random(r, c, 0), random(r, c, 1)}
					s := new(Scratch)
					f64 := func(out []float32, f func(o []float64) error) {
						o := make([]float64, c)
						must(t, f(o))
						for i := range o {
							out[i] = float32(o[i])
						}
					}
					for _, op := range []func(b [][]float32){
						func(b [][]float32) { must(t, ColumnSums(b[0], b[2], c, 0, rows)) },
						func(b [][]float32) { f64(b[2], func(o []float64) error { return ChannelSums(s, b[0], c, 0, rows, o) }) },
						func(b [][]float32) {
							f64(b[2], func(o []float64) error { return ChannelSquares(s, b[0], b[3], c, 0, rows, o) })
						},
						func(b [][]float32) {
							f64(b[2], func(o []float64) error { return ChannelDots(s, b[0], b[3], b[1], c, 0, rows, o) })
						},
						func(b [][]float32) { must(t, Affine(b[1], b[0], b[2], b[3], c, 0, rows, ReLU, false)) },
						func(b [][]float32) { must(t, Affine(b[1], b[0], b[2], b[3], c, 0, rows, ReLU6, true)) },
						func(b [][]float32) { must(t, Combine(b[0], b[0], b[1], b[2], b[3], b[4], c, 0, rows)) },
					} {
						twin(t, v, bufs, rounding(v, 1e-5), op)
					}
				}
			}
		})
	}
}

// TestAffineGrad: it gives the bits of the three operations it stands for, on every variant.
func TestAffineGrad(t *testing.T) {
	eachVariant(t, func(t *testing.T) {
		for _, c := range []int{1, 3, 8, 16, 19, 31, 32, 64, 70, 130} {
			for _, rows := range []int{1, 2, 5, 131, 300} {
				for i, act := range []Activation{None, ReLU, ReLU6} {
					r := rng(uint64(c*1000 + rows))
					x, dy := random(r, rows*c, i), random(r, rows*c, (i+1)%4)
					scale, shift, mean := random(r, c, 1), random(r, c, 2), random(r, c, 3)
					for j := range scale.s {
						scale.s[j] *= 9
					}
					if rows == 5 {
						special(x, 7)
						special(dy, 5)
					}
					want, y := append([]float32(nil), dy.s...), make([]float32, rows*c)
					must(t, Affine(y, x.s, scale.s, shift.s, c, 0, rows, act, false))
					must(t, ActivateGrad(want, y, want, act))
					sums, dots, gotS, gotD := make([]float64, c), make([]float64, c), make([]float64, c), make([]float64, c)
					must(t, ChannelSums(nil, want, c, 0, rows, sums))
					must(t, ChannelDots(nil, x.s, mean.s, want, c, 0, rows, dots))
					must(t, AffineGrad(nil, dy.s, x.s, scale.s, shift.s, mean.s, c, 0, rows, act, gotS, gotD))
					sameBits(t, "dy", dy.s, want)
					for j := range sums {
						if gotS[j] != sums[j] && !math.IsNaN(sums[j]) || gotD[j] != dots[j] && !math.IsNaN(dots[j]) {
							t.Fatalf("%d rows, channel %d of %d: sums %v and %v, want %v and %v", rows, j, c, gotS[j], gotD[j], sums[j], dots[j])
						}
					}
					for _, g := range []*guarded{x, dy, scale, shift, mean} {
						g.check(t, "affine grad")
					}
				}
			}
		}
	})
}

// TestAffineAdd: it gives the bits of the operations it stands for, on every variant.
func TestAffineAdd(t *testing.T) {
	eachVariant(t, func(t *testing.T) {
		for _, c := range []int{1, 3, 16, 19, 64, 3000} {
			for _, rows := range []int{1, 5, 131} {
				for i, act := range []Activation{None, ReLU, ReLU6} {
					r := rng(uint64(c*1000 + rows))
					x, z, y := random(r, rows*c, i), random(r, rows*c, (i+1)%4), random(r, rows*c, 0)
					a, b, u, v := random(r, c, 1), random(r, c, 2), random(r, c, 3), random(r, c, 0)
					want := append([]float32(nil), z.s...)
					must(t, Affine(want, x.s, a.s, b.s, c, 0, rows, act, true))
					must(t, AffineAdd(y.s, x.s, a.s, b.s, z.s, nil, nil, c, 0, rows, act, None))
					sameBits(t, "plain", y.s, want)
					must(t, Affine(want, z.s, u.s, v.s, c, 0, rows, ReLU, false))
					must(t, Affine(want, x.s, a.s, b.s, c, 0, rows, act, true))
					must(t, AffineAdd(z.s, x.s, a.s, b.s, z.s, u.s, v.s, c, 0, rows, act, ReLU))
					sameBits(t, "both", z.s, want)
					for _, g := range []*guarded{x, z, y, a, b, u, v} {
						g.check(t, "affine add")
					}
				}
			}
		}
	})
	one := make([]float32, 1)
	if err := AffineAdd(one, one, one, one, one, one, nil, 1, 0, 1, None, None); !errors.Is(err, ErrLength) {
		t.Errorf("no zShift: error is %v, want ErrLength", err)
	}
}

func TestPoolTwins(t *testing.T) {
	shapes := []PoolShape{
		{H: 30, W: 30, C: 32, KH: 2, KW: 2, StrideH: 2, StrideW: 2},
		{H: 13, W: 13, C: 64, KH: 2, KW: 2, StrideH: 2, StrideW: 2},
		{H: 7, W: 6, C: 19, KH: 2, KW: 2, StrideH: 2, StrideW: 2, PadTop: 1, PadLeft: 1, PadBottom: 1},
		{H: 9, W: 11, C: 33, KH: 3, KW: 3, StrideH: 2, StrideW: 2, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1},
		{H: 5, W: 6, C: 1, KH: 2, KW: 3},
		{H: 8, W: 9, C: 100, KH: 1, KW: 2, StrideH: 3, StrideW: 3},
		{H: 4, W: 4, C: 7, KH: 4, KW: 4, CountPad: true, PadTop: 2, PadRight: 3},
	}
	for _, v := range Available() {
		for i, sh := range shapes {
			t.Run(fmt.Sprintf("%s/%d", v, i), func(t *testing.T) {
				p, err := NewPool(sh)
				must(t, err)
				const n = 2
				r := rng(uint64(i))
				bufs := []*guarded{random(r, n*p.InSize(), 1), random(r, n*p.OutSize(), 2), random(r, n*p.OutSize(), 3), random(r, n*p.InSize(), 0)}
				for j := range bufs[0].s { // ties
					bufs[0].s[j] = float32(int(bufs[0].s[j] * 4))
				}
				s := new(Scratch)
				both := func(b [][]float32) {
					must(t, p.Max(s, b[0], b[1], 0, n))
					must(t, p.MaxGrad(s, b[0], b[1], b[2], b[3], 0, n, i%2 == 0))
				}
				twin(t, v, bufs, 1e-6, both)
				special(bufs[0], 5)
				twin(t, v, bufs, 1e-6, both)
				twin(t, v, bufs[:2], 1e-6, func(b [][]float32) { must(t, p.Avg(s, b[0], b[1], 0, n)) })
				twin(t, v, bufs, 1e-6, func(b [][]float32) { must(t, p.AvgGrad(s, b[2], b[3], 0, n)) })
				pixels := sh.H * sh.W
				twin(t, v, bufs[:2], 1e-6, func(b [][]float32) { must(t, GlobalAvg(b[0], b[1], pixels, sh.C, 0, n)) })
				twin(t, v, bufs, 1e-6, func(b [][]float32) { must(t, GlobalAvgGrad(b[2], b[3], pixels, sh.C, 0, n)) })
			})
		}
	}
}

func TestDenseTwins(t *testing.T) {
	for _, v := range Available() {
		t.Run(string(v), func(t *testing.T) {
			for i, sz := range [][3]int{{1, 784, 128}, {1, 64, 10}, {5, 33, 17}, {64, 128, 10}, {17, 9, 130}, {3, 1, 1}, {2, 20, 61}, {4, 7, 200}, {31, 65, 49}} {
				n, in, out := sz[0], sz[1], sz[2]
				d, err := NewDense(in, out)
				must(t, err)
				r := rng(uint64(i))
				bufs := []*guarded{random(r, n*in, 0), random(r, in*out, 1), random(r, out, 2), random(r, n*out, 3), random(r, in*out, 2), random(r, n*in, 1)}
				s := new(Scratch)
				twin(t, v, bufs, 5e-5, func(b [][]float32) {
					must(t, d.GradWeights(s, b[0], b[3], b[4], 0, n))
					must(t, d.GradInput(s, b[3], b[1], b[5], 0, n))
					must(t, d.Forward(s, b[0], b[1], b[3], 0, n, Epilogue{Bias: b[2], Activation: ReLU}))
				})
			}
		})
	}
}

// FuzzMatrix compares matrix products with arbitrary strides under every variant with the definition.
func FuzzMatrix(f *testing.F) {
	f.Add(uint64(1), uint8(3), uint8(5), uint8(7), uint8(0), uint8(2), true)
	f.Add(uint64(2), uint8(40), uint8(70), uint8(0), uint8(3), uint8(0), false)
	f.Fuzz(func(t *testing.T, seed uint64, m, n, k, padA, padB uint8, transposed bool) {
		g := MatrixShape{M: int(m%70) + 1, N: int(n%140) + 1, K: int(k % 50), LDB: int(n%140) + 1 + int(padB%5), LDC: int(n%140) + 1 + int(padA%3)}
		g.ARow, g.ACol = g.K+int(padA%4), 1
		if transposed {
			g.ARow, g.ACol = 1, g.M+int(padA%4)
		}
		r := rng(seed)
		a, b, c := random(r, g.M*g.ARow+g.K*g.ACol, 1), random(r, (g.K+1)*g.LDB, 2), random(r, g.M*g.LDC, 3)
		want := make([]float64, len(c.s))
		for i := range want {
			want[i] = float64(c.s[i])
		}
		for i := range g.M {
			for j := range g.N {
				sum := float64(c.s[i*g.LDC+j])
				for p := range g.K {
					sum += float64(a.s[i*g.ARow+p*g.ACol]) * float64(b.s[p*g.LDB+j])
				}
				want[i*g.LDC+j] = sum
			}
		}
		old := append([]float32(nil), c.s...)
		for _, v := range Available() {
			restore, err := Force(v)
			must(t, err)
			copy(c.s, old)
			must(t, Gemm(nil, g, a.s, b.s, c.s, Epilogue{Accumulate: true}))
			restore()
			near(t, string(v), c.s, want, 1e-4)
			c.check(t, "c")
		}
	})
}
