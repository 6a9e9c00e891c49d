package train

import (
	"context"
	"errors"
	"iter"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/data"
	"github.com/espalier-ml/espalier/model/zoo"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// blobs is a source of examples around one centre per class.
type blobs struct {
	batches []*data.Batch
}

func newBlobs(shape model.Shape, classes, examples, batch int) *blobs {
	r := rand.New(rand.NewPCG(4, 2))
	size := shape.Elements()
	centres := make([]float32, classes*size)
	for i := range centres {
		centres[i] = float32(r.NormFloat64())
	}
	s := &blobs{}
	for from := 0; from < examples; from += batch {
		b := &data.Batch{}
		for range min(batch, examples-from) {
			c := r.IntN(classes)
			b.Labels = append(b.Labels, int32(c))
			for k := range size {
				b.Inputs = append(b.Inputs, centres[c*size+k]+float32(r.NormFloat64()))
			}
		}
		s.batches = append(s.batches, b)
	}
	return s
}

func (s *blobs) Steps() int                      { return len(s.batches) }
func (s *blobs) Epoch(int) iter.Seq[*data.Batch] { return slices.Values(s.batches) }

// small has every kind of unit that sums over examples, and dropout.
func small() *model.Graph {
	bn := model.BatchNorm{Epsilon: 1e-3, Momentum: 0.1}
	relu := model.Activation{Func: model.ReLU}
	depthwise := convOp(8, 3, 1, 1)
	depthwise.Groups = 8
	return chain(model.Shape{9, 9, 2}, convOp(8, 3, 1, 1), bn, relu, model.MaxPool{Kernel: two(2), Stride: two(2)}, depthwise, bn, relu,
		convOp(6, 3, 1, 0), relu, model.Flatten{}, model.Dense{Out: 16, Bias: true}, relu, model.Dropout{Rate: 0.2}, model.Dense{Out: 4, Bias: true}, model.Softmax{})
}

func weightsOf(g *model.Graph) []float32 {
	var all []float32
	for i := range g.Layers {
		for _, n := range g.Layers[i].ParamNames() {
			all = append(all, g.Layers[i].Params[n].Data...)
		}
	}
	return all
}

func sameBits(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) })
}

func mustTrain(t *testing.T, g *model.Graph, src Source, o Options) Result {
	t.Helper()
	r, err := Train(t.Context(), g, src, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestTrainLearns(t *testing.T) {
	src := newBlobs(model.Shape{9, 9, 2}, 4, 150, 32)
	for name, o := range map[string]Options{
		"adam":  {},
		"adamw": {Optimizer: AdamW, Rate: 0.003, WeightDecay: 0.01, Schedule: Schedule{Kind: Cosine, WarmUp: 0.1}},
		"sgd":   {Optimizer: SGD, Momentum: 0.9, Nesterov: true, Rate: 0.01, Clip: 5, WeightDecay: 1e-4, L1: 1e-5},
		"plain": {Optimizer: SGD, Rate: 0.02, LabelSmoothing: 0.05},
	} {
		o.Epochs = 12
		r := mustTrain(t, small(), src, o)
		if first, last := r.Losses[0], r.Losses[len(r.Losses)-1]; !(last < first/2) {
			t.Errorf("%s: losses %v: want the last below half the first", name, r.Losses)
		}
		if r.Steps != 60 || r.Epochs != 12 {
			t.Errorf("%s: %d steps, %v epochs: want 60 and 12", name, r.Steps, r.Epochs)
		}
	}
}

// Threads, repetition and the order in which goroutines run leave the bits alone;
// the seed does not.
func TestTrainIsReproducible(t *testing.T) {
	src := newBlobs(model.Shape{9, 9, 2}, 4, 75, 32)
	images := newBlobs(model.Shape{5, 5, 2}, 3, 75, 32)
	weights := func(threads int, seed uint64) []float32 {
		g, src := small(), src
		if seed == 4 { // values that are computed again
			g, src = residuals()["identity"], images
		}
		if seed == 3 { // convolutions by Winograd's algorithm
			g = chain(g.Input, convOp(16, 3, 1, 1), model.Activation{Func: model.ReLU}, convOp(16, 3, 1, 1), model.Activation{Func: model.ReLU}, model.GlobalAvgPool{}, model.Dense{Out: 4})
		}
		mustTrain(t, g, src, Options{Epochs: 3, Threads: threads, Seed: seed, Clip: 1})
		return weightsOf(g)
	}
	for _, seed := range []uint64{1, 3, 4} {
		one := weights(1, seed)
		for _, threads := range []int{1, 2, 3, 5, 16} {
			if !sameBits(one, weights(threads, seed)) {
				t.Errorf("seed %d: %d threads give other bits than 1", seed, threads)
			}
		}
	}
	if sameBits(weights(1, 1), weights(1, 2)) {
		t.Error("another seed gives the same bits despite dropout")
	}
}

func TestTrainAllocatesNothingPerStep(t *testing.T) {
	for _, name := range []string{"seed-cnn", "resnet-8"} {
		t.Run(name, func(t *testing.T) { checkAllocations(t, name) })
	}
}

func checkAllocations(t *testing.T, name string) {
	t.Helper()
	g, err := zoo.Build(name, model.Shape{20, 20, 3}, 10, 1)
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Threads: 2}.withDefaults()
	tr, err := newTraining(t.Context(), g, newBlobs(g.Input, 10, 16, 16), o)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.team.close()
	b := tr.src.(*blobs).batches[0]
	step := func() {
		if err := tr.step(b); err != nil {
			t.Fatal(err)
		}
	}
	step()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	allocs := testing.AllocsPerRun(50, step)
	runtime.ReadMemStats(&after)
	bytes := float64(after.TotalAlloc-before.TotalAlloc) / 51
	t.Logf("%.0f allocations, %.0f bytes per step", allocs, bytes)
	// What is left is Gorgonia's machine: a few small objects per operator.
	if operators := float64(3*len(tr.nets[16].blocks) + 2); allocs > 12*operators || bytes > 1000*operators {
		t.Errorf("%.0f allocations, %.0f bytes per step of %.0f operators", allocs, bytes, operators)
	}
}

// Training seed-cnn at batch 64 stays well under the 150 MB it may take.
func TestTrainMemory(t *testing.T) {
	g, err := zoo.Build("seed-cnn", model.Shape{32, 32, 3}, 10, 1)
	if err != nil {
		t.Fatal(err)
	}
	src := newBlobs(g.Input, 10, 64, 64)
	heap := func() float64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc) / 1e6
	}
	before := heap()
	tr, err := newTraining(t.Context(), g, src, Options{Threads: 2}.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	defer tr.team.close()
	if err := tr.step(src.batches[0]); err != nil {
		t.Fatal(err)
	}
	used := heap() - before
	t.Logf("%.1f MB", used)
	if used > 60 {
		t.Errorf("%.1f MB of heap: want at most 60, so that twice that, as the collector lets it grow, stays under 150", used)
	}
}

// A worker trains one network after the other: nothing of a training that ended
// may stay in memory.
func TestTrainIsFreed(t *testing.T) {
	src := newBlobs(model.Shape{28, 28, 1}, 10, 64, 64)
	heap := func() uint64 {
		runtime.GC()
		runtime.GC() // the first may only queue finalizers
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	var before uint64
	for i := range 6 {
		g, err := zoo.Build("seed-cnn", model.Shape{28, 28, 1}, 10, 1)
		if err != nil {
			t.Fatal(err)
		}
		mustTrain(t, g, src, Options{Steps: 2})
		if i == 0 {
			before = heap()
		}
	}
	if after := heap(); after > before+before/4+1<<20 {
		t.Errorf("five more trainings left %d bytes in memory besides the %d after the first", after-before, before)
	}
}

func TestMasksHold(t *testing.T) {
	g := small()
	keep := make([]bool, len(g.Layers[0].Params[model.Weight].Data))
	for i := range keep {
		keep[i] = i%3 == 0
	}
	late := slices.Repeat([]bool{true}, len(g.Layers[10].Params[model.Weight].Data))
	masks := Masks{"0": {model.Weight: keep, model.Bias: nil}, "10": {model.Weight: late}}
	src := newBlobs(g.Input, 4, 75, 32)
	mustTrain(t, g, src, Options{Epochs: 4, Masks: masks, Optimizer: AdamW, WeightDecay: 0.01, L1: 1e-4, Clip: 1,
		BeforeStep: func(s, steps int, g *model.Graph) (bool, error) {
			if s == steps/2 { // masks may grow on the way, as in gradual pruning
				for i := range late {
					late[i] = i%2 == 0
				}
			}
			return s == steps/2, nil
		}})
	for layer, mask := range map[int][]bool{0: keep, 10: late} {
		moved := 0
		for i, v := range g.Layers[layer].Params[model.Weight].Data {
			if !mask[i] && v != 0 {
				t.Fatalf("layer %d: masked weight %d is %v", layer, i, v)
			}
			if mask[i] && v != 0 {
				moved++
			}
		}
		if moved == 0 {
			t.Errorf("layer %d: no weight is left", layer)
		}
	}
}

func TestTrainStops(t *testing.T) {
	src := newBlobs(model.Shape{9, 9, 2}, 4, 96, 32)
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		steps := 0
		g := small()
		before := weightsOf(g)
		_, err := Train(ctx, g, src, Options{Epochs: 100, OnProgress: func(p Progress) {
			if steps++; steps == 4 {
				cancel()
			}
		}})
		if !errors.Is(err, context.Canceled) || steps != 4 {
			t.Errorf("%v after %d steps: want cancelled after 4", err, steps)
		}
		if sameBits(before, weightsOf(g)) {
			t.Error("the graph does not hold the weights of the last step")
		}
	})
	t.Run("gate", func(t *testing.T) {
		gate := errors.New("closed")
		calls := 0
		_, err := Train(t.Context(), small(), src, Options{Gate: func(context.Context) error {
			if calls++; calls == 3 {
				return gate
			}
			return nil
		}})
		if !errors.Is(err, gate) {
			t.Errorf("%v: want the gate's error", err)
		}
	})
	t.Run("patience", func(t *testing.T) {
		scores := []float64{1, 3, 2, 2.5, 9}
		calls := 0
		var kept []float32
		g := small()
		r := mustTrain(t, g, src, Options{Epochs: 10, Patience: 2, KeepBest: true, Evaluate: func(_ context.Context, g *model.Graph) (float64, error) {
			if calls++; calls == 2 {
				kept = weightsOf(g)
			}
			return scores[calls-1], nil
		}})
		if !r.Stopped || r.BestScore != 3 || len(r.Scores) != 4 || r.Steps != 12 {
			t.Errorf("%+v: want a stop after the fourth epoch with 3 as the best", r)
		}
		if !sameBits(kept, weightsOf(g)) {
			t.Error("the graph does not hold the best weights")
		}
	})
	t.Run("after epoch", func(t *testing.T) {
		r := mustTrain(t, small(), src, Options{Epochs: 10, AfterEpoch: func(_ context.Context, p Progress, _ *model.Graph) (bool, error) {
			return p.Epoch == 2, nil
		}})
		if !r.Stopped || r.Epochs != 2 {
			t.Errorf("%+v: want a stop after epoch 2", r)
		}
	})
	t.Run("fraction", func(t *testing.T) {
		if r := mustTrain(t, small(), src, Options{Epochs: 1.4}); r.Steps != 4 || r.Stopped {
			t.Errorf("%+v: want 4 steps", r)
		}
		if r := mustTrain(t, small(), src, Options{Steps: 5}); r.Steps != 5 {
			t.Errorf("%+v: want 5 steps", r)
		}
	})
}

func TestTrainErrors(t *testing.T) {
	src := newBlobs(model.Shape{9, 9, 2}, 4, 32, 32)
	mean := &blobs{batches: []*data.Batch{{Inputs: make([]float32, 162), Labels: []int32{9}}}}
	short := &blobs{batches: []*data.Batch{{Inputs: make([]float32, 100), Labels: []int32{0}}}}
	nan := &blobs{batches: []*data.Batch{{Inputs: slices.Repeat([]float32{float32(math.NaN())}, 162), Labels: []int32{0}}}}
	for name, c := range map[string]struct {
		g    *model.Graph
		src  Source
		o    Options
		want error
		text string
	}{
		"rate":       {small(), src, Options{Rate: -1}, ErrOptions, "rate -1: want more than 0"},
		"both":       {small(), src, Options{Epochs: 1, Steps: 2}, ErrOptions, "steps 2: want 0 when epochs is set"},
		"optimizer":  {small(), src, Options{Optimizer: "adagrad"}, ErrOptions, "adagrad: want sgd, adam or adamw"},
		"momentum":   {small(), src, Options{Momentum: 0.9}, ErrOptions, "momentum"},
		"schedule":   {small(), src, Options{Schedule: Schedule{Kind: "steps"}}, ErrOptions, "steps"},
		"warm-up":    {small(), src, Options{Schedule: Schedule{WarmUp: 1}}, ErrOptions, "warm-up"},
		"patience":   {small(), src, Options{Patience: 1}, ErrOptions, "evaluates"},
		"mask layer": {small(), src, Options{Masks: Masks{"x": nil}}, ErrOptions, `no layer "x"`},
		"mask size":  {small(), src, Options{Masks: Masks{"0": {"weight": make([]bool, 3)}}}, ErrOptions, "3 elements"},
		"no batches": {small(), &blobs{}, Options{}, ErrData, "no batches"},
		"label":      {small(), mean, Options{}, ErrData, "label 9: want 0 to 3"},
		"length":     {small(), short, Options{}, ErrData, "100 values"},
		"diverged":   {small(), nan, Options{}, ErrDiverged, "step 0 of 1"},
		"exploded":   {small(), src, Options{Rate: 1e30, Optimizer: SGD, Steps: 9}, ErrDiverged, "loss"},
		"no weights": {chain(model.Shape{4}, model.Softmax{}), src, Options{}, ErrGraph, "no layer with weights"},
		"image out":  {chain(model.Shape{9, 9, 2}, convOp(2, 1, 1, 0)), src, Options{}, ErrGraph, "want {classes}"},
		"autoencode": {small(), src, Options{Loss: MeanSquares}, ErrGraph, "as many elements as the input"},
		"teacher":    {small(), src, Options{Teacher: func([]float32, int, []float32) error { return context.DeadlineExceeded }}, context.DeadlineExceeded, "ask teacher"},
	} {
		_, err := Train(t.Context(), c.g, c.src, c.o)
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v: want %v with %q", name, err, c.want, c.text)
		}
	}
}

// A panic in an operator, also in one of the team's goroutines, is an error of
// Train and leaves nothing running.
func TestPanicBecomesError(t *testing.T) {
	g := small()
	tr, err := newTraining(t.Context(), g, newBlobs(g.Input, 4, 32, 32), Options{Threads: 4}.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	defer tr.team.close()
	b := tr.src.(*blobs).batches[0]
	if err := tr.step(b); err != nil {
		t.Fatal(err)
	}
	c := tr.nets[32].blocks[0].units[0].(*conv)
	c.acc[3] = nil
	if err := tr.step(b); !errors.Is(err, ErrOperator) || !strings.Contains(err.Error(), "panic") {
		t.Errorf("%v: want a panic as %v", err, ErrOperator)
	}
}

func TestRunningStatistics(t *testing.T) {
	g := chain(model.Shape{5, 5, 3}, convOp(4, 3, 1, 1), model.BatchNorm{Epsilon: 1e-3, Momentum: 0.25}, model.Flatten{}, model.Dense{Out: 2})
	src := newBlobs(g.Input, 2, 21, 21)
	ref := newReference(g, 3, 21)
	ref.logits(wide(src.batches[0].Inputs))
	want := map[string][]float64{}
	const rows = 21 * 25
	for i, m := range ref.batchMean[1] {
		want[model.Mean] = append(want[model.Mean], 0.75*ref.params["1/mean"][i]+0.25*m)
		want[model.Variance] = append(want[model.Variance], 0.75*ref.params["1/variance"][i]+0.25*ref.batchVar[1][i]*rows/(rows-1))
	}
	mustTrain(t, g, src, Options{Steps: 1})
	for name, w := range want {
		for i, v := range g.Layers[1].Params[name].Data {
			if math.Abs(float64(v)-w[i]) > 1e-5*(1+math.Abs(w[i])) {
				t.Errorf("%s[%d] = %v: want %v", name, i, v, w[i])
			}
		}
	}
}

func TestSchedule(t *testing.T) {
	for name, c := range map[string]struct {
		s    Schedule
		step int
		want float64
	}{
		"constant":        {Schedule{}, 50, 1},
		"warm-up first":   {Schedule{WarmUp: 0.1}, 0, 1. / 11},
		"warm-up last":    {Schedule{WarmUp: 0.1}, 9, 10. / 11},
		"after warm-up":   {Schedule{WarmUp: 0.1}, 10, 1},
		"step before":     {Schedule{Kind: Step}, 49, 1},
		"step one":        {Schedule{Kind: Step}, 50, 0.1},
		"step two":        {Schedule{Kind: Step, Factor: 0.5}, 80, 0.25},
		"cosine start":    {Schedule{Kind: Cosine}, 0, 1},
		"cosine half":     {Schedule{Kind: Cosine, Floor: 0.2}, 50, 0.6},
		"polynomial half": {Schedule{Kind: Polynomial, Power: 2}, 50, 0.25},
		"polynomial line": {Schedule{Kind: Polynomial, Floor: 0.5}, 50, 0.75},
	} {
		if got := c.s.withDefaults().factor(c.step, 100); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("%s: %v: want %v", name, got, c.want)
		}
	}
}
