package infer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/modeltest"
	"github.com/espalier-ml/espalier/model/zoo"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func examples(g *model.Graph, n int) []float32 {
	var x []float32
	for i := range n {
		x = append(x, modeltest.Example(g, uint64(i))...)
	}
	return x
}

func mustCompile(t testing.TB, g *model.Graph, o Options) *Plan {
	t.Helper()
	p, err := Compile(g, o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// checkAgainstReference runs n examples at several batch sizes and threads and
// compares with the plain evaluator, and the runs with each other bit by bit.
func checkAgainstReference(t *testing.T, g *model.Graph, n int) {
	t.Helper()
	x := examples(g, n)
	in := g.Input.Elements()
	var want []float32
	for i := range n {
		y, err := modeltest.Output(g, x[i*in:(i+1)*in])
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, y...)
	}
	largest := 0.0
	for _, v := range want {
		largest = max(largest, math.Abs(float64(v)))
	}
	var first []float32
	for _, o := range []Options{{}, {Batch: n}, {Batch: n, Threads: 3}, {Batch: 2}} {
		p := mustCompile(t, g, o)
		got := make([]float32, len(want))
		for pass := range 2 { // the second finds buffers as the first left them
			if pass == 1 {
				clear(got)
			}
			for i := 0; i < n; i += p.Batch() {
				j := min(n, i+p.Batch())
				if err := p.Run(x[i*in:j*in], got[i*p.OutputSize():j*p.OutputSize()]); err != nil {
					t.Fatal(err)
				}
			}
		}
		for i, v := range got {
			if d := math.Abs(float64(v) - float64(want[i])); d > 1e-5*largest+1e-4*math.Abs(float64(want[i])) || math.IsNaN(d) {
				t.Fatalf("%+v: output %d is %v: want %v", o, i, v, want[i])
			}
		}
		if first == nil {
			first = slices.Clone(got)
		}
		if !slices.Equal(first, got) {
			t.Errorf("%+v gives other bits than one example at a time", o)
		}
	}
}

func TestRandomGraphs(t *testing.T) {
	for seed := range uint64(150) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { checkAgainstReference(t, modeltest.Graph(seed), 5) })
	}
}

func TestZoo(t *testing.T) {
	for _, name := range zoo.Names() {
		t.Run(name, func(t *testing.T) {
			input := model.Shape{24, 24, 3}
			if name == "autoencoder-fc" {
				input = model.Shape{100}
			}
			classes := 7
			if name == "autoencoder-fc" {
				classes = 0
			}
			g, err := zoo.Build(name, input, classes, 3)
			if err != nil {
				t.Fatal(err)
			}
			modeltest.Fill(g, 8)
			for i := range g.Layers { // keep activations in range
				if w := g.Layers[i].Params[model.Weight]; w != nil {
					for k := range w.Data {
						w.Data[k] *= 0.2
					}
				}
			}
			checkAgainstReference(t, g, 3)
		})
	}
}

func graph(input model.Shape, layers ...model.Layer) *model.Graph {
	g := &model.Graph{Name: "test", Input: input, Layers: layers}
	for i := range layers {
		if layers[i].Name == "" {
			g.Layers[i].Name = fmt.Sprint(i)
		}
		if layers[i].Inputs == nil {
			g.Layers[i].Inputs = []int{i - 1}
		}
	}
	modeltest.Fill(g, 2)
	return g
}

func op(o model.Op, inputs ...int) model.Layer { return model.Layer{Op: o, Inputs: inputs} }

func conv3(out int) model.Conv {
	return model.Conv{Out: out, Kernel: [2]int{3, 3}, Stride: [2]int{1, 1}, Dilation: [2]int{1, 1}, Groups: 1,
		Pad: model.Pad2D{Top: 1, Left: 1, Bottom: 1, Right: 1}}
}

// What is fused shows in the layers, and stays right.
func TestFusion(t *testing.T) {
	bn, relu := model.BatchNorm{Epsilon: 1e-3}, model.Activation{Func: model.ReLU}
	for name, c := range map[string]struct {
		g    *model.Graph
		want string // kind+number fused, for every step
	}{
		"conv, norm, relu": {graph(model.Shape{6, 6, 3}, op(conv3(4)), op(bn), op(relu), op(model.Flatten{}), op(model.Dense{Out: 3}), op(bn), op(bn)), "conv+2 dense+2"},
		"norm is read by two": {graph(model.Shape{6, 6, 3}, op(conv3(4)), op(bn, 0), op(relu, 1), op(model.Add{}, 1, 2), op(model.GlobalAvgPool{})),
			"conv+1 relu+0 add+0 global-avg-pool+0"},
		"conv is read by two": {graph(model.Shape{6, 6, 3}, op(conv3(3)), op(bn, 0), op(model.Add{}, 0, 1), op(relu)), "conv+0 batch-norm+0 add+1"},
		"residual": {graph(model.Shape{6, 6, 3}, op(conv3(3)), op(relu), op(conv3(5), 1), op(relu), op(conv3(3), 3), op(bn), op(model.Add{}, 5, 1), op(relu), op(conv3(2))),
			"conv+1 conv+1 conv+3 conv+0"},
		"residual, other side":      {graph(model.Shape{6, 6, 3}, op(conv3(3)), op(relu), op(conv3(3), 1), op(conv3(3)), op(model.Add{}, 1, 3), op(relu)), "conv+1 conv+0 conv+2"},
		"sum of conv and its input": {graph(model.Shape{6, 6, 3}, op(conv3(3)), op(conv3(3)), op(model.Add{}, 1, 0)), "conv+0 conv+0 add+0"},
		"residual of the input":     {graph(model.Shape{6, 6, 3}, op(conv3(3)), op(model.Add{}, 0, model.Input), op(relu)), "conv+0 add+1"},
		"both sides are convs":      {graph(model.Shape{6, 6, 3}, op(conv3(3), model.Input), op(conv3(3), model.Input), op(model.Add{}, 0, 1)), "conv+0 conv+1"},
		"sum with itself":           {graph(model.Shape{6, 6, 3}, op(conv3(3)), op(model.Add{}, 0, 0)), "conv+0 add+0"},
		"kept for later":            {graph(model.Shape{6, 6, 3}, op(conv3(3)), op(conv3(3)), op(model.Add{}, 0, 1), op(model.Concat{}, 0, 2)), "conv+0 conv+0 add+0 concat+0"},
		"pad into conv":             {graph(model.Shape{6, 6, 3}, op(model.Pad{Pad: model.Pad2D{Top: 2, Right: 1}}), op(conv3(2)), op(relu)), "pad+2"},
		"pad into pool":             {graph(model.Shape{6, 6, 3}, op(model.Pad{Pad: model.Pad2D{Top: 2, Right: 1}}), op(model.MaxPool{Kernel: [2]int{2, 2}, Stride: [2]int{2, 2}})), "pad+0 max-pool+0"},
		"nothing to do":             {graph(model.Shape{6, 6, 3}, op(model.Dropout{Rate: 0.5}), op(model.Flatten{})), "flatten+0"},
		"dead layers":               {graph(model.Shape{6, 6, 3}, op(conv3(3)), op(conv3(9), 0), op(relu, 0)), "conv+1"},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, l := range mustCompile(t, c.g, Options{}).Layers() {
				got = append(got, fmt.Sprintf("%s+%d", l.Kind, len(l.Fused)))
			}
			if s := strings.Join(got, " "); s != c.want {
				t.Errorf("steps %q: want %q", s, c.want)
			}
			checkAgainstReference(t, c.g, 3)
		})
	}
}

func TestMemoryIsShared(t *testing.T) {
	g := graph(model.Shape{8, 8, 4}, op(conv3(4)), op(conv3(4)), op(conv3(4)), op(conv3(4)), op(conv3(4)), op(conv3(4)))
	if got, want := mustCompile(t, g, Options{}).MemoryBytes(), int64(2*4*8*8*4); got != want {
		t.Errorf("%d bytes for a chain of layers of equal size: want two layers' %d", got, want)
	}
}

func TestRunAllocatesNothing(t *testing.T) {
	g, err := zoo.Build("resnet-8", model.Shape{16, 16, 3}, 10, 1)
	if err != nil {
		t.Fatal(err)
	}
	p := mustCompile(t, g, Options{Batch: 3})
	x, y := examples(g, 3), make([]float32, 30)
	if n := testing.AllocsPerRun(20, func() {
		if err := p.Run(x, y); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations per run: want none", n)
	}
}

func TestErrors(t *testing.T) {
	g := graph(model.Shape{4}, op(model.Dense{Out: 3}))
	for _, o := range []Options{{Batch: -1}, {Batch: maxBatch + 1}, {Threads: -1}} {
		if _, err := Compile(g, o); !errors.Is(err, ErrOptions) {
			t.Errorf("%+v: %v: want %v", o, err, ErrOptions)
		}
	}
	p := mustCompile(t, g, Options{Batch: 2})
	for _, n := range [][2]int{{3, 3}, {12, 9}, {8, 3}, {4, 4}} {
		if err := p.Run(make([]float32, n[0]), make([]float32, n[1])); !errors.Is(err, ErrLength) {
			t.Errorf("%v values: %v: want %v", n, err, ErrLength)
		}
	}
	bad := g.Clone()
	bad.Layers[0].Params[model.Weight].Data = nil
	if _, err := Compile(bad, Options{}); !errors.Is(err, model.ErrShape) {
		t.Errorf("%v: want %v", err, model.ErrShape)
	}
}

// table is a list of examples with labels.
type table struct {
	x      []float32
	size   int
	labels []int32
}

func (s *table) Batch(x []float32, labels []int32, indices []int32) {
	for k, i := range indices {
		copy(x[k*s.size:(k+1)*s.size], s.x[int(i)*s.size:])
		labels[k] = s.labels[i]
	}
}

func TestEvaluate(t *testing.T) {
	// The output is the input: the class is the place of the largest value.
	g := graph(model.Shape{4}, op(model.Flatten{}))
	soft := graph(model.Shape{4}, op(model.Softmax{}))
	r := rand.New(rand.NewPCG(1, 2))
	s := &table{size: 4}
	var indices []int32
	correct, loss := 0, 0.0
	for i := range 500 {
		x := []float32{float32(r.NormFloat64()), float32(r.NormFloat64()), float32(r.NormFloat64()), float32(r.NormFloat64())}
		label := int32(r.IntN(4))
		s.x, s.labels = append(s.x, x...), append(s.labels, label)
		if i%3 == 0 {
			continue
		}
		indices = append(indices, int32(i))
		if x[label] == slices.Max(x) {
			correct++
		}
		var sum float64
		for _, v := range x {
			sum += math.Exp(float64(v))
		}
		loss += math.Log(sum) - float64(x[label])
	}
	want := Score{Accuracy: float64(correct) / float64(len(indices)), Loss: loss / float64(len(indices)), Correct: correct, Examples: len(indices)}
	var first Score
	for _, threads := range []int{1, 2, 7} {
		got, err := Evaluate(t.Context(), g, s, indices, EvaluateOptions{Threads: threads})
		if err != nil {
			t.Fatal(err)
		}
		if threads == 1 {
			first = got
		}
		if got != first {
			t.Errorf("%d threads: %+v: want %+v as with one", threads, got, first)
		}
		probabilities, err := Evaluate(t.Context(), soft, s, indices, EvaluateOptions{Threads: threads})
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range []Score{got, probabilities} {
			if v.Correct != want.Correct || v.Accuracy != want.Accuracy || v.Examples != want.Examples || math.Abs(v.Loss-want.Loss) > 1e-5 {
				t.Errorf("%+v: want %+v", v, want)
			}
		}
	}
}

func TestEvaluateStops(t *testing.T) {
	g := graph(model.Shape{4}, op(model.Flatten{}))
	s := &table{size: 4, x: make([]float32, 4), labels: []int32{0}}
	indices := make([]int32, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	calls := 0
	if _, err := Evaluate(ctx, g, s, indices, EvaluateOptions{Gate: func(context.Context) error {
		if calls++; calls == 3 {
			cancel()
		}
		return nil
	}}); !errors.Is(err, context.Canceled) || calls != 3 {
		t.Errorf("%v after %d batches: want cancelled after 3", err, calls)
	}
	closed := errors.New("closed")
	if _, err := Evaluate(t.Context(), g, s, indices, EvaluateOptions{Threads: 4, Gate: func(context.Context) error { return closed }}); !errors.Is(err, closed) {
		t.Errorf("%v: want the gate's error", err)
	}
	s.labels[0] = 4
	if _, err := Evaluate(t.Context(), g, s, indices, EvaluateOptions{}); !errors.Is(err, ErrOutput) {
		t.Errorf("%v: want %v", err, ErrOutput)
	}
	if _, err := Evaluate(t.Context(), g, s, nil, EvaluateOptions{}); !errors.Is(err, ErrLength) {
		t.Errorf("%v: want %v", err, ErrLength)
	}
	image := graph(model.Shape{4, 4, 2}, op(conv3(2)))
	if _, err := Evaluate(t.Context(), image, s, indices, EvaluateOptions{}); !errors.Is(err, ErrOutput) {
		t.Errorf("%v: want %v", err, ErrOutput)
	}
}

func TestTeacher(t *testing.T) {
	g := graph(model.Shape{5}, op(model.Dense{Out: 3, Bias: true}), op(model.Softmax{}))
	teach, err := Teacher(g)
	if err != nil {
		t.Fatal(err)
	}
	logits := *g
	logits.Layers = g.Layers[:1]
	const n = 150
	x, got := examples(g, n), make([]float32, 3*n)
	if err := teach(x, n, got); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		want, err := modeltest.Output(&logits, x[i*5:(i+1)*5])
		if err != nil {
			t.Fatal(err)
		}
		for j, v := range want {
			if math.Abs(float64(v-got[i*3+j])) > 1e-5 {
				t.Fatalf("example %d: logits %v: want %v", i, got[i*3:(i+1)*3], want)
			}
		}
	}
	if err := teach(x, n+1, got); !errors.Is(err, ErrLength) {
		t.Errorf("%v: want %v", err, ErrLength)
	}
}

// prune zeroes a fraction of the weights, in blocks of neighbouring outputs.
func prune(g *model.Graph, fraction float64, block int) {
	r := rand.New(rand.NewPCG(6, 6))
	for i := range g.Layers {
		w := g.Layers[i].Params[model.Weight]
		if w == nil {
			continue
		}
		out := w.Shape[len(w.Shape)-1]
		for row := 0; row < len(w.Data); row += out {
			for b := 0; b < out; b += block {
				if r.Float64() < fraction {
					clear(w.Data[row+b : row+min(out, b+block)])
				}
			}
		}
	}
}

// Every kernel gives the same results but for rounding, on every graph.
func TestKernelsAgree(t *testing.T) {
	var graphs []*model.Graph
	for seed := range uint64(60) {
		graphs = append(graphs, modeltest.Graph(seed))
	}
	graphs = append(graphs, graph(model.Shape{9, 7, 3}, op(conv3(16)), op(model.Activation{Func: model.ReLU}), op(conv3(16)), op(model.Activation{Func: model.ReLU6}),
		op(conv3(16)), op(model.Add{}, 4, 1), op(model.MaxPool{Kernel: [2]int{2, 2}, Stride: [2]int{2, 2}}), op(conv3(20)), op(model.GlobalAvgPool{})))
	for seed, g := range graphs {
		prune(g, 0.8, 1+3*(seed%2))
		dense := mustCompile(t, g, Options{Batch: 3})
		x := examples(g, 3)
		want := make([]float32, 3*dense.OutputSize())
		if err := dense.Run(x, want); err != nil {
			t.Fatal(err)
		}
		for _, k := range []string{KernelSparse, KernelSparse4x1, KernelWinograd, "tune"} {
			o := Options{Batch: 3, Tune: k == "tune", Kernels: map[string]string{}}
			for _, l := range dense.Layers() {
				if l.Kernel == KernelDense && !o.Tune && (k != KernelWinograd || fitsWinograd(g, l.Name)) {
					o.Kernels[l.Name] = k
				}
			}
			p := mustCompile(t, g, o)
			got := make([]float32, len(want))
			if err := p.Run(x, got); err != nil {
				t.Fatal(err)
			}
			for i, v := range got {
				if math.Abs(float64(v-want[i])) > 1e-4*(1+math.Abs(float64(want[i]))) || math.IsNaN(float64(v)) {
					t.Fatalf("seed %d, %s: output %d is %v: want %v", seed, k, i, v, want[i])
				}
			}
		}
	}
}

func fitsWinograd(g *model.Graph, layer string) bool {
	i, _ := g.Index(layer)
	o, ok := g.Layers[i].Op.(model.Conv)
	ones := [2]int{1, 1}
	return ok && o.Kernel == [2]int{3, 3} && o.Stride == ones && o.Dilation == ones && o.Groups == 1
}

// A choice that was told can be made again, without timing.
func TestKernelsAreRecorded(t *testing.T) {
	g, err := zoo.Build("lenet-5", model.Shape{28, 28, 1}, 10, 1)
	if err != nil {
		t.Fatal(err)
	}
	prune(g, 0.95, 4)
	tuned := mustCompile(t, g, Options{Tune: true})
	kernels := map[string]string{}
	for _, l := range tuned.Layers() {
		kernels[l.Name] = l.Kernel
		if timed := l.Time > 0; timed != (l.Kernel != "plain") {
			t.Errorf("layer %q: kernel %s, time %v: want a time for every layer with weights", l.Name, l.Kernel, l.Time)
		}
	}
	again := mustCompile(t, g, Options{Kernels: kernels})
	x, a, b := examples(g, 1), make([]float32, 10), make([]float32, 10)
	if err := errors.Join(tuned.Run(x, a), again.Run(x, b)); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(a, b) {
		t.Errorf("%v with the recorded kernels: want %v", b, a)
	}
	for layer, k := range map[string]string{"nowhere": KernelDense, "conv1": "fast", "pool1": KernelSparse} {
		if _, err := Compile(g, Options{Kernels: map[string]string{layer: k}}); !errors.Is(err, ErrOptions) {
			t.Errorf("kernel %s of %q: %v: want %v", k, layer, err, ErrOptions)
		}
	}
}
