package kernel

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// The layers of seed-cnn for 32×32×3 inputs, and typical ones of residual and depthwise-separable networks.
var benchConvs = []struct {
	name string
	s    ConvShape
}{
	{"conv1", ConvShape{H: 32, W: 32, IC: 3, OC: 32, KH: 3, KW: 3}},
	{"conv2", ConvShape{H: 15, W: 15, IC: 32, OC: 64, KH: 3, KW: 3}},
	{"conv3", ConvShape{H: 6, W: 6, IC: 64, OC: 64, KH: 3, KW: 3}},
	{"res16", ConvShape{H: 32, W: 32, IC: 16, OC: 16, KH: 3, KW: 3, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1}},
	{"res64", ConvShape{H: 8, W: 8, IC: 64, OC: 64, KH: 3, KW: 3, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1}},
	{"down32", ConvShape{H: 32, W: 32, IC: 16, OC: 32, KH: 3, KW: 3, StrideH: 2, StrideW: 2, PadBottom: 1, PadRight: 1}},
	{"down64", ConvShape{H: 16, W: 16, IC: 32, OC: 64, KH: 3, KW: 3, StrideH: 2, StrideW: 2, PadBottom: 1, PadRight: 1}},
	{"res32", ConvShape{H: 16, W: 16, IC: 32, OC: 32, KH: 3, KW: 3, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1}},
	{"point64", ConvShape{H: 25, W: 5, IC: 64, OC: 64, KH: 1, KW: 1}},
	{"point256", ConvShape{H: 6, W: 6, IC: 256, OC: 256, KH: 1, KW: 1}},
	{"depth64", ConvShape{H: 25, W: 5, IC: 64, OC: 64, KH: 3, KW: 3, Groups: 64, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1}},
	{"depth16", ConvShape{H: 48, W: 48, IC: 16, OC: 16, KH: 3, KW: 3, Groups: 16, PadTop: 1, PadLeft: 1, PadBottom: 1, PadRight: 1}},
}

func BenchmarkConv(b *testing.B) {
	for _, v := range Available() {
		if v == Generic {
			continue
		}
		for _, bc := range benchConvs {
			c, err := NewConv(bc.s)
			must(b, err)
			const n = 8
			r := rng(1)
			x, w, y, dx, dw := random(r, n*c.inSize, 0).s, random(r, c.wSize, 0).s, random(r, n*c.outSize, 0).s, random(r, n*c.inSize, 0).s, random(r, c.wSize, 0).s
			s := new(Scratch)
			wt := make([]float32, c.wSize)
			must(b, c.TransposeWeights(w, wt))
			for _, op := range []struct {
				name string
				f    func() error
			}{
				{"forward", func() error { return c.Forward(s, x, w, y, 0, n, Epilogue{Activation: ReLU}) }},
				{"weights", func() error { return c.GradWeights(s, x, y, dw, 0, n) }},
				{"input", func() error { return c.GradInputTransposed(s, y, wt, dx, 0, n, false) }},
			} {
				b.Run(fmt.Sprintf("%s/%s/%s", v, bc.name, op.name), func(b *testing.B) {
					restore, err := Force(v)
					must(b, err)
					defer restore()
					best := time.Hour // the machine may be shared: the best call tells most
					for b.Loop() {
						start := time.Now()
						must(b, op.f())
						best = min(best, time.Since(start))
					}
					b.ReportMetric(2e-9*float64(c.MACs())*n/best.Seconds(), "GFLOP/s")
					b.ReportMetric(float64(best.Microseconds()), "best-µs")
				})
			}
		}
	}
}

// BenchmarkSparse compares sparse with dense at one image.
func BenchmarkSparse(b *testing.B) {
	shapes := []struct {
		name string
		s    ConvShape
	}{
		{"conv2", ConvShape{H: 15, W: 15, IC: 32, OC: 64, KH: 3, KW: 3}},
		{"conv3", ConvShape{H: 6, W: 6, IC: 64, OC: 64, KH: 3, KW: 3}},
		{"point256", ConvShape{H: 14, W: 14, IC: 256, OC: 256, KH: 1, KW: 1}},
		{"fc1024", ConvShape{H: 1, W: 1, IC: 1024, OC: 64, KH: 1, KW: 1}},
	}
	for _, v := range Available() {
		if v == Generic {
			continue
		}
		for _, bc := range shapes {
			c, err := NewConv(bc.s)
			must(b, err)
			r := rng(1)
			x, w, y := random(r, c.inSize, 0).s, random(r, c.wSize, 0).s, random(r, c.outSize, 0).s
			run := func(name string, f func(s *Scratch) error) {
				b.Run(fmt.Sprintf("%s/%s/%s", v, bc.name, name), func(b *testing.B) {
					restore, err := Force(v)
					must(b, err)
					defer restore()
					s := new(Scratch)
					best := time.Hour
					for b.Loop() {
						start := time.Now()
						must(b, f(s))
						best = min(best, time.Since(start))
					}
					b.ReportMetric(float64(best.Nanoseconds())/1e3, "best-µs")
				})
			}
			run("dense", func(s *Scratch) error { return c.Forward(s, x, w, y, 0, 1, Epilogue{}) })
			for _, block := range []int{1, 4} {
				for _, sp := range []float64{0.7, 0.9, 0.95} {
					ww := append([]float32(nil), w...)
					thin(r, c, ww, sp, block)
					p, err := NewSparseConv(bc.s, ww, block)
					must(b, err)
					run(fmt.Sprintf("b%d/%g", block, sp), func(s *Scratch) error { return p.Forward(s, x, y, 0, 1, Epilogue{}) })
				}
			}
		}
	}
}

// bench reports the best call of f; flops may be zero.
func bench(b *testing.B, flops float64, f func() error) {
	best := time.Hour
	for b.Loop() {
		start := time.Now()
		must(b, f())
		best = min(best, time.Since(start))
	}
	b.ReportMetric(float64(best.Nanoseconds())/1e3, "best-µs")
	if flops > 0 {
		b.ReportMetric(flops/float64(best.Nanoseconds()), "GFLOP/s")
	}
}

func BenchmarkDense(b *testing.B) {
	for _, v := range Available() {
		if v == Generic {
			continue
		}
		for _, sz := range [][3]int{{64, 1024, 64}, {64, 784, 128}, {64, 64, 10}, {1, 784, 128}, {1, 1024, 64}} {
			n, in, out := sz[0], sz[1], sz[2]
			d, err := NewDense(in, out)
			must(b, err)
			r := rng(1)
			x, w, y, dx, dw := random(r, n*in, 0).s, random(r, in*out, 0).s, random(r, n*out, 0).s, random(r, n*in, 0).s, random(r, in*out, 0).s
			s := new(Scratch)
			wt := make([]float32, in*out)
			flops := 2 * float64(n*in*out)
			restore, err := Force(v)
			must(b, err)
			name := fmt.Sprintf("%s/%dx%dx%d/", v, n, in, out)
			b.Run(name+"forward", func(b *testing.B) {
				bench(b, flops, func() error { return d.Forward(s, x, w, y, 0, n, Epilogue{Activation: ReLU}) })
			})
			b.Run(name+"weights", func(b *testing.B) { bench(b, flops, func() error { return d.GradWeights(s, x, y, dw, 0, n) }) })
			b.Run(name+"input", func(b *testing.B) { bench(b, flops, func() error { return d.GradInputTransposed(s, y, wt, dx, 0, n) }) })
			b.Run(name+"transpose", func(b *testing.B) { bench(b, 0, func() error { return d.TransposeWeights(w, wt) }) })
			restore()
		}
	}
}

func BenchmarkRows(b *testing.B) {
	p, err := NewPool(PoolShape{H: 30, W: 30, C: 32, KH: 2, KW: 2, StrideH: 2, StrideW: 2})
	must(b, err)
	r := rng(1)
	const n = 8
	x, y, dy, dx := random(r, n*p.InSize(), 0).s, random(r, n*p.OutSize(), 0).s, random(r, n*p.OutSize(), 0).s, random(r, n*p.InSize(), 0).s
	w, m, v, g := random(r, 122570, 0).s, random(r, 122570, 0).s, make([]float32, 122570), random(r, 122570, 0).s
	out := make([]float32, 32)
	out64 := make([]float64, 32)
	s := new(Scratch)
	for _, va := range Available() {
		restore, err := Force(va)
		must(b, err)
		for _, op := range []struct {
			name string
			f    func() error
		}{
			{"max", func() error { return p.Max(s, x, y, 0, n) }},
			{"maxgrad", func() error { return p.MaxGrad(s, x, y, dy, dx, 0, n, true) }},
			{"avg", func() error { return p.Avg(s, x, y, 0, n) }},
			{"relugrad", func() error { return ActivateGrad(dx, x, dx, ReLU) }},
			{"colsum", func() error { return ColumnSums(x, out, 32, 0, len(x)/32) }},
			{"chansum", func() error { return ChannelSums(s, x, 32, 0, len(x)/32, out64) }},
			{"affine", func() error { return Affine(dx, x, out, out, 32, 0, len(x)/32, ReLU, false) }},
			{"adam", func() error { return Adam(s, w, m, v, g, AdamStep{Rate: 1e-3, Step: 5}) }},
			{"sgd", func() error { return SGD(s, w, m, g, SGDStep{Rate: 1e-3, Momentum: 0.9}) }},
		} {
			b.Run(fmt.Sprintf("%s/%s", va, op.name), func(b *testing.B) { bench(b, 0, op.f) })
		}
		restore()
	}
}

// BenchmarkQuant compares 8-bit with float32 convolutions at one image.
func BenchmarkQuant(b *testing.B) {
	shapes := append(slices.Clip(benchConvs), struct {
		name string
		s    ConvShape
	}{"fc1024", ConvShape{H: 1, W: 1, IC: 1024, OC: 64, KH: 1, KW: 1}})
	for _, v := range Available() {
		if v == Generic {
			continue
		}
		for _, bc := range shapes {
			c, err := NewConv(bc.s)
			must(b, err)
			r := rng(1)
			x, w, y := random(r, c.inSize, 0).s, random(r, c.wSize, 0).s, random(r, c.outSize, 0).s
			scale := make([]float32, bc.s.OC)
			q, err := NewQConv(bc.s, make([]int8, c.wSize), Requant{InZero: 3, Scale: scale})
			must(b, err)
			qx, qy := make([]uint8, c.inSize), make([]uint8, c.outSize)
			s := new(Scratch)
			restore, err := Force(v)
			must(b, err)
			b.Run(fmt.Sprintf("%s/%s/float32", v, bc.name), func(b *testing.B) {
				bench(b, 2*float64(c.MACs()), func() error { return c.Forward(s, x, w, y, 0, 1, Epilogue{}) })
			})
			b.Run(fmt.Sprintf("%s/%s/int8", v, bc.name), func(b *testing.B) {
				bench(b, 2*float64(c.MACs()), func() error { return q.Forward(s, qx, qy, 0, 1) })
			})
			if wq, err := NewQWinograd(q); err == nil {
				b.Run(fmt.Sprintf("%s/%s/int8-winograd", v, bc.name), func(b *testing.B) {
					bench(b, 2*float64(c.MACs()), func() error { return wq.Forward(s, qx, qy, 0, 1) })
				})
			}
			restore()
		}
	}
}

// BenchmarkWinograd compares with direct convolution.
func BenchmarkWinograd(b *testing.B) {
	for _, v := range Available() {
		if v == Generic {
			continue
		}
		for _, bc := range benchConvs {
			wg, err := NewWinograd(bc.s)
			if err != nil {
				continue
			}
			for _, n := range []int{1, 8} {
				c := wg.c
				r := rng(1)
				x, w, y, dx, dw := random(r, n*c.inSize, 0).s, random(r, c.wSize, 0).s, random(r, n*c.outSize, 0).s, random(r, n*c.inSize, 0).s, random(r, c.wSize, 0).s
				s := new(Scratch)
				wt, u, ub := make([]float32, c.wSize), make([]float32, wg.TransformedSize()), make([]float32, wg.TransformedSize())
				must(b, c.TransposeWeights(w, wt))
				restore, err := Force(v)
				must(b, err)
				for _, op := range []struct {
					name string
					f    func() error
				}{
					{"forward/direct", func() error { return c.Forward(s, x, w, y, 0, n, Epilogue{}) }},
					{"forward/winograd", func() error { return wg.Forward(s, x, u, y, 0, n, Epilogue{}) }},
					{"weights/direct", func() error { return c.GradWeights(s, x, y, dw, 0, n) }},
					{"weights/winograd", func() error { return wg.GradWeights(s, x, y, dw, 0, n) }},
					{"input/direct", func() error { return c.GradInputTransposed(s, y, wt, dx, 0, n, false) }},
					{"input/winograd", func() error { return wg.GradInput(s, y, ub, dx, 0, n, false) }},
					{"transform", func() error { return wg.TransformWeights(s, w, u) }},
				} {
					b.Run(fmt.Sprintf("%s/%s/n%d/%s", v, bc.name, n, op.name), func(b *testing.B) { bench(b, 0, op.f) })
				}
				restore()
			}
		}
	}
}
