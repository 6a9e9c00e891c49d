package infer

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/kernel"
	"github.com/espalier-ml/espalier/model/modeltest"
	"github.com/espalier-ml/espalier/model/zoo"
)

// quantized gives n examples of g and the int8 network made with them.
func quantized(t *testing.T, g *model.Graph, n int) (*table, *model.Graph) {
	t.Helper()
	s := &table{x: examples(g, n), size: g.Input.Elements(), labels: make([]int32, n)}
	indices := make([]int32, n)
	for i := range indices {
		indices[i] = int32(i)
	}
	q, err := Quantize(t.Context(), g, s, indices)
	if err != nil {
		t.Fatal(err)
	}
	return s, q
}

func run(t *testing.T, p *Plan, x []float32) []float32 {
	t.Helper()
	n := len(x) / p.InputSize()
	y := make([]float32, n*p.OutputSize())
	for i := 0; i < n; i += p.Batch() {
		j := min(n, i+p.Batch())
		if err := p.Run(x[i*p.InputSize():j*p.InputSize()], y[i*p.OutputSize():j*p.OutputSize()]); err != nil {
			t.Fatal(err)
		}
	}
	return y
}

// distance is the root of the mean squared difference, relative to the spread
// of want.
func distance(got, want []float32) float64 {
	var mean, diff, spread float64
	for _, v := range want {
		mean += float64(v) / float64(len(want))
	}
	for i, v := range want {
		diff += (float64(v) - float64(got[i])) * (float64(v) - float64(got[i]))
		spread += (float64(v) - mean) * (float64(v) - mean)
	}
	return math.Sqrt(diff / (spread + 1e-12))
}

func TestBytesAreCloseToFloats(t *testing.T) {
	for _, name := range []string{"mlp-784-128-10", "lenet-5", "seed-cnn", "resnet-8", "ds-cnn", "mobilenet-025"} {
		t.Run(name, func(t *testing.T) {
			g, err := zoo.Build(name, model.Shape{28, 28, 1}, 10, 1)
			if err != nil {
				t.Fatal(err)
			}
			s, q := quantized(t, g, 40)
			want := run(t, mustCompile(t, g, Options{Batch: 8}), s.x)
			p := mustCompile(t, q, Options{Batch: 8})
			got := run(t, p, s.x)
			if d := distance(got, want); !(d < 0.12) {
				t.Errorf("outputs are %.3f of their spread away", d)
			}
			weights, bytes := 0, 0
			for _, l := range p.Layers() {
				if l.Kind == "conv" || l.Kind == "dense" {
					weights++
				}
				if l.Kernel == KernelInt8 {
					bytes++
				}
			}
			if bytes != weights {
				t.Errorf("%d of %d layers with weights on bytes: want all", bytes, weights)
			}
			for _, o := range []Options{{}, {Batch: 5, Threads: 2}} {
				if !slices.Equal(got, run(t, mustCompile(t, q, o), s.x)) {
					t.Errorf("%+v gives other bits than batch 8", o)
				}
			}
		})
	}
}

// Kernel variants give the same bytes, where all layers are bytes.
func TestBytesAreTheSameEverywhere(t *testing.T) {
	g, err := zoo.Build("seed-cnn", model.Shape{20, 20, 3}, 10, 1)
	if err != nil {
		t.Fatal(err)
	}
	s, q := quantized(t, g, 6)
	var first []float32
	for _, v := range kernel.Available() {
		restore, err := kernel.Force(v)
		if err != nil {
			t.Fatal(err)
		}
		got := run(t, mustCompile(t, q, Options{}), s.x)
		restore()
		if first == nil {
			first = got
		}
		if !slices.Equal(first, got) {
			t.Errorf("%s gives other results than %s", v, kernel.Available()[0])
		}
	}
}

// Winograd's way in whole numbers gives the same bytes, and a plan takes it by name or
// by timing.
func TestBytesByWinograd(t *testing.T) {
	g, err := zoo.Build("seed-cnn", model.Shape{20, 20, 3}, 10, 1)
	if err != nil {
		t.Fatal(err)
	}
	s, q := quantized(t, g, 6)
	want := run(t, mustCompile(t, q, Options{}), s.x)
	forced := mustCompile(t, q, Options{Batch: 4, Kernels: map[string]string{"conv2": KernelInt8Winograd, "conv3": KernelInt8}})
	if got := run(t, forced, s.x); !slices.Equal(got, want) {
		t.Error("winograd gives other results")
	}
	told := map[string]string{}
	for _, l := range forced.Layers() {
		told[l.Name] = l.Kernel
	}
	if told["conv2"] != KernelInt8Winograd || told["conv3"] != KernelInt8 {
		t.Errorf("kernels %v", told)
	}
	tuned := mustCompile(t, q, Options{Tune: true})
	if got := run(t, tuned, s.x); !slices.Equal(got, want) {
		t.Error("the fastest kernels give other results")
	}
	for _, l := range tuned.Layers() {
		if l.Kind == "conv" && l.Time <= 0 {
			t.Errorf("layer %s has no time", l.Name)
		}
	}
	if _, err := Compile(q, Options{Kernels: map[string]string{"conv1": KernelInt8Winograd}}); !errors.Is(err, ErrOptions) {
		t.Errorf("winograd of three channels: error %v: want %v", err, ErrOptions)
	}
	if _, err := Compile(q, Options{Kernels: map[string]string{"conv2": KernelDense}}); !errors.Is(err, ErrOptions) {
		t.Errorf("float32 kernel of bytes: error %v: want %v", err, ErrOptions)
	}
}

// Graphs of any kind run, whatever part of them can be bytes.
func TestBytesOnRandomGraphs(t *testing.T) {
	var sum float64
	const graphs = 80
	for seed := range uint64(graphs) {
		g := modeltest.Graph(seed)
		s, q := quantized(t, g, 12)
		want := run(t, mustCompile(t, g, Options{Batch: 4}), s.x)
		d := distance(run(t, mustCompile(t, q, Options{Batch: 4}), s.x), want)
		if math.IsNaN(d) {
			t.Errorf("seed %d: outputs are not numbers", seed)
		}
		sum += min(d, 1)
		for name := range q.Quant.Weights { // a layer less is a conversion more
			delete(q.Quant.Weights, name)
			break
		}
		run(t, mustCompile(t, q, Options{Batch: 4}), s.x)
	}
	if mean := sum / graphs; !(mean < 0.1) {
		t.Errorf("outputs are on average %.3f of their spread away", mean)
	}
}

func TestBytesSteps(t *testing.T) {
	relu := model.Activation{Func: model.ReLU}
	g := graph(model.Shape{6, 6, 3}, op(conv3(4)), op(relu), op(model.MaxPool{Kernel: [2]int{2, 2}, Stride: [2]int{2, 2}}), op(conv3(4)),
		op(model.Activation{Func: model.Tanh}), op(model.Flatten{}), op(model.Dense{Out: 3}), op(model.Softmax{}))
	_, q := quantized(t, g, 4)
	var got []string
	for _, l := range mustCompile(t, q, Options{}).Layers() {
		got = append(got, fmt.Sprint(l.Kind, " ", l.Kernel))
	}
	want := "quantize plain, conv int8, max-pool plain, conv int8, dequantize plain, tanh plain, quantize plain, dense int8, dequantize plain, softmax plain"
	if s := strings.Join(got, ", "); s != want {
		t.Errorf("steps %s: want %s", s, want)
	}
}

func TestBytesAllocateNothing(t *testing.T) {
	g, err := zoo.Build("ds-cnn", model.Shape{16, 16, 1}, 10, 1)
	if err != nil {
		t.Fatal(err)
	}
	s, q := quantized(t, g, 2)
	p := mustCompile(t, q, Options{})
	y := make([]float32, 10)
	if n := testing.AllocsPerRun(10, func() {
		if err := p.Run(s.x[:256], y); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations per run: want none", n)
	}
}

func TestQuantizeErrors(t *testing.T) {
	g := graph(model.Shape{2}, op(model.Dense{Out: 2}))
	s := &table{x: []float32{1, float32(math.Inf(1))}, size: 2, labels: []int32{0}}
	if _, err := Quantize(t.Context(), g, s, []int32{0}); !errors.Is(err, model.ErrQuant) {
		t.Errorf("%v: want %v", err, model.ErrQuant)
	}
	if _, err := Quantize(t.Context(), g, s, nil); !errors.Is(err, ErrLength) {
		t.Errorf("%v: want %v", err, ErrLength)
	}
}
