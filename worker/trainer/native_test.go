package trainer_test

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/data"
	"github.com/espalier-ml/espalier/model/prune"
	"github.com/espalier-ml/espalier/model/zoo"
	"github.com/espalier-ml/espalier/worker/trainer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var shapes = sync.OnceValue(func() *data.Set {
	s, err := data.Shapes(data.ShapesOptions{Train: 600, Test: 100})
	if err != nil {
		panic(err)
	}
	return s
})

func spec(t *testing.T) trainer.Spec {
	t.Helper()
	g, err := zoo.Build("mlp-784-128-10", shapes().Shape, 10, 3)
	if err != nil {
		t.Fatal(err)
	}
	return trainer.Spec{Checkpoint: g, Data: shapes(), Batch: 32, Epochs: 2, Rate: 0.001, Seed: 5, Threads: 1}
}

func weights(g *model.Graph) []float32 {
	var all []float32
	for i := range g.Layers {
		for _, n := range g.Layers[i].ParamNames() {
			all = append(all, g.Layers[i].Params[n].Data...)
		}
	}
	return all
}

func run(t *testing.T, s trainer.Spec, w trainer.Watch) trainer.Result {
	t.Helper()
	r, err := trainer.Native{}.Train(t.Context(), s, w)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestSameSpecSameWeights(t *testing.T) {
	s := spec(t)
	before := weights(s.Checkpoint)
	a := run(t, s, trainer.Watch{})
	s.Threads = 2
	b := run(t, s, trainer.Watch{})
	if !slices.Equal(weights(a.Checkpoint), weights(b.Checkpoint)) {
		t.Error("the number of threads changes the weights")
	}
	s.Seed++
	if c := run(t, s, trainer.Watch{}); slices.Equal(weights(a.Checkpoint), weights(c.Checkpoint)) {
		t.Error("the seed changes nothing")
	}
	if !slices.Equal(before, weights(s.Checkpoint)) {
		t.Error("the checkpoint given was changed")
	}
}

// Every option of a training reaches it: it changes the weights, or what is
// wrong with it is said.
func TestOptionsMatter(t *testing.T) {
	base := run(t, spec(t), trainer.Watch{})
	for name, set := range map[string]func(s *trainer.Spec){
		"optimizer": func(s *trainer.Spec) { s.Optimizer = "sgd" }, "weight decay": func(s *trainer.Spec) { s.WeightDecay = 0.01 },
		"l1": func(s *trainer.Spec) { s.L1 = 0.001 }, "clip": func(s *trainer.Spec) { s.Clip = 0.01 },
		"smoothing": func(s *trainer.Spec) { s.LabelSmoothing = 0.1 }, "warm-up": func(s *trainer.Spec) { s.WarmUp = 0.3 },
		"hold": func(s *trainer.Spec) { s.Hold = true }, "constant": func(s *trainer.Spec) { s.Schedule = "constant" },
		"step": func(s *trainer.Spec) { s.Schedule = "step" }, "polynomial": func(s *trainer.Spec) { s.Schedule = "polynomial" },
		"shift": func(s *trainer.Spec) { s.Augment.Shift = 2 }, "flip": func(s *trainer.Spec) { s.Augment.Flip = true },
		"crop": func(s *trainer.Spec) { s.Augment.Crop = 0.2 },
	} {
		s := spec(t)
		set(&s)
		if r := run(t, s, trainer.Watch{}); slices.Equal(weights(base.Checkpoint), weights(r.Checkpoint)) {
			t.Errorf("%s changes nothing", name)
		}
	}
	s := spec(t)
	s.Optimizer = "sgd"
	plain := run(t, s, trainer.Watch{})
	s.Momentum = 0.9
	if r := run(t, s, trainer.Watch{}); slices.Equal(weights(plain.Checkpoint), weights(r.Checkpoint)) {
		t.Error("momentum changes nothing")
	}
	s = spec(t)
	s.Schedule = "cosine"
	if r := run(t, s, trainer.Watch{}); !slices.Equal(weights(base.Checkpoint), weights(r.Checkpoint)) {
		t.Error("cosine is not what no schedule means")
	}
	for _, set := range []func(s *trainer.Spec){
		func(s *trainer.Spec) { s.Momentum = 0.9 }, func(s *trainer.Spec) { s.Schedule = "sine" }, func(s *trainer.Spec) { s.Augment.Shift = 99 },
		func(s *trainer.Spec) { s.WarmUp = 1 }, func(s *trainer.Spec) { s.LabelSmoothing = 1 },
	} {
		s := spec(t)
		set(&s)
		if _, err := (trainer.Native{}).Train(t.Context(), s, trainer.Watch{}); !errors.Is(err, trainer.ErrSpec) {
			t.Errorf("%+v: error is %v, want ErrSpec", s, err)
		}
	}
}

func TestLearnsAndTells(t *testing.T) {
	s := spec(t)
	var seen []trainer.Progress
	r := run(t, s, trainer.Watch{Progress: func(p trainer.Progress) { seen = append(seen, p) }})
	if r.Steps != len(seen) || seen[len(seen)-1].Step != r.Steps || seen[0].Steps != r.Steps || r.Halted {
		t.Fatalf("result %+v after %d progress reports", r, len(seen))
	}
	if !(r.Loss < seen[0].Loss) {
		t.Errorf("loss from %v to %v", seen[0].Loss, r.Loss)
	}
}

func TestMasksHold(t *testing.T) {
	s := spec(t)
	l := &s.Checkpoint.Layers[slices.IndexFunc(s.Checkpoint.Layers, func(l model.Layer) bool { return l.Params[model.Weight] != nil })]
	keep := make([]bool, len(l.Params[model.Weight].Data))
	for i := range keep {
		keep[i] = i%3 == 0
	}
	s.Masks = &prune.Masks{}
	s.Masks.Set(l.Name, keep)
	r := run(t, s, trainer.Watch{})
	i, _ := r.Checkpoint.Index(l.Name)
	for k, v := range r.Checkpoint.Layers[i].Params[model.Weight].Data {
		if !keep[k] && v != 0 {
			t.Fatalf("weight %d is %v", k, v)
		}
	}
}

func TestHaltAndGate(t *testing.T) {
	s := spec(t)
	halted := make(chan struct{})
	steps := 0
	r := run(t, s, trainer.Watch{Halted: halted, Gate: func(context.Context) error {
		if steps++; steps == 3 {
			close(halted)
		}
		return nil
	}})
	if !r.Halted || r.Steps != 3 {
		t.Errorf("halted %v after %d steps, want after 3", r.Halted, r.Steps)
	}
	mine := errors.New("mine")
	if _, err := (trainer.Native{}).Train(t.Context(), s, trainer.Watch{Gate: func(context.Context) error { return mine }}); !errors.Is(err, mine) {
		t.Errorf("error %v, want the gate's", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err := trainer.Native{}.Train(ctx, s, trainer.Watch{Progress: func(trainer.Progress) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want cancelled", err)
	}
}

func TestErrors(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*trainer.Spec)
		want   error
	}{
		"diverges":      {func(s *trainer.Spec) { s.Optimizer, s.Rate = "sgd", 1e30 }, trainer.ErrDiverged},
		"NaN weights":   {func(s *trainer.Spec) { weightsOf(s)[0] = float32(math.NaN()) }, trainer.ErrDiverged},
		"batch":         {func(s *trainer.Spec) { s.Batch = 0 }, trainer.ErrSpec},
		"optimizer":     {func(s *trainer.Spec) { s.Optimizer = "magic" }, trainer.ErrSpec},
		"no data":       {func(s *trainer.Spec) { s.Data = nil }, trainer.ErrSpec},
		"no checkpoint": {func(s *trainer.Spec) { s.Checkpoint = nil }, trainer.ErrSpec},
	} {
		s := spec(t)
		tc.change(&s)
		if _, err := (trainer.Native{}).Train(t.Context(), s, trainer.Watch{}); !errors.Is(err, tc.want) {
			t.Errorf("%s: error %v, want %v", name, err, tc.want)
		}
	}
}

func weightsOf(s *trainer.Spec) []float32 {
	for i := range s.Checkpoint.Layers {
		if w := s.Checkpoint.Layers[i].Params[model.Weight]; w != nil {
			return w.Data
		}
	}
	return nil
}
