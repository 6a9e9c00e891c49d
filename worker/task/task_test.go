package task_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/goleak"

	"github.com/espalier-ml/espalier/client"
	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/bench"
	"github.com/espalier-ml/espalier/model/data"
	"github.com/espalier-ml/espalier/model/esp"
	"github.com/espalier-ml/espalier/model/infer"
	"github.com/espalier-ml/espalier/model/onnx"
	"github.com/espalier-ml/espalier/model/prune"
	"github.com/espalier-ml/espalier/model/safetensors"
	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/worker/cache"
	"github.com/espalier-ml/espalier/worker/task"
	"github.com/espalier-ml/espalier/worker/trainer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// small is a small built-in set and its canonical form.
var small = sync.OnceValues(func() (*data.Set, []byte) {
	s, err := data.Shapes(data.ShapesOptions{Train: 800, Test: 200})
	if err != nil {
		panic(err)
	}
	var b bytes.Buffer
	if err := data.WriteCanonical(&b, s); err != nil {
		panic(err)
	}
	return s, b.Bytes()
})

// fixture is a runner with the files of a cluster in memory.
type fixture struct {
	t      *testing.T
	files  map[string][]byte
	cache  *cache.Cache
	gate   *gate
	runner *task.Runner
	spec   *espalierv1.JobSpec
}

// gate counts; it never makes anybody wait.
type gate struct {
	mu                  sync.Mutex
	inside, steps, most int
	quiet, quieted      int
}

func (g *gate) Enter(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside++
	g.most = max(g.most, g.inside)
	return ctx.Err()
}

func (g *gate) Step(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside == 0 {
		panic("a step outside of noisy work")
	}
	g.steps++
	return ctx.Err()
}

func (g *gate) Leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
}

func (g *gate) Quiet(ctx context.Context) (func(), error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside > 0 {
		panic("quiet asked for in noisy work")
	}
	g.quiet++
	g.quieted++
	return func() { g.mu.Lock(); g.quiet--; g.mu.Unlock() }, ctx.Err()
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	b := &fixture{t: t, files: map[string][]byte{}, gate: &gate{}}
	c, err := cache.Open(cache.Config{Dir: t.TempDir(), MaxBytes: 1 << 30, Fetch: b.fetch})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	b.cache = c
	b.use(task.Config{})
	_, canonical := small()
	b.spec = &espalierv1.JobSpec{
		Name:  "test",
		Model: &espalierv1.ModelSpec{Source: &espalierv1.ModelSpec_Zoo{Zoo: "lenet-5"}},
		Data:  &espalierv1.DataSpec{Hash: b.put(canonical), Seed: 1},
		Train: &espalierv1.TrainSpec{Epochs: 3, Batch: 32, Optimizer: "adam", Rate: 0.002},
		Space: &espalierv1.SpaceSpec{Strategies: []string{"magnitude", "magnitude-global", "channel-l1", "hybrid"}},
		Search: &espalierv1.SearchSpec{
			Seed: 7,
		},
	}
	return b
}

// use makes a runner of cfg with what it leaves out.
func (b *fixture) use(cfg task.Config) {
	b.t.Helper()
	if cfg.Files == nil {
		cfg.Files = b.cache
	}
	if cfg.Gate == nil {
		cfg.Gate = b.gate
	}
	if cfg.Trainer == nil {
		cfg.Trainer = trainer.Native{}
	}
	cfg.Device, cfg.Version = "here", "test"
	cfg.Bench = bench.Options{WarmUp: time.Millisecond, Rounds: 2, Round: 2 * time.Millisecond}
	r, err := task.New(cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	b.runner = r
}

func (b *fixture) put(data []byte) string {
	hash := client.HashBytes(data, "").GetHash()
	b.files[hash] = data
	return hash
}

func (b *fixture) fetch(_ context.Context, ref *espalierv1.FileRef, path string) error {
	d, ok := b.files[ref.GetHash()]
	if !ok {
		return connect.NewError(connect.CodeNotFound, errors.New("no such file"))
	}
	return os.WriteFile(path, d, 0o644)
}

// control records progress.
type control struct {
	mu     sync.Mutex
	seen   []*espalierv1.Progress
	halted chan struct{}
	on     func(*espalierv1.Progress)
}

func (c *control) Progress(p *espalierv1.Progress) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = append(c.seen, p)
	if c.on != nil {
		c.on(p)
	}
}

func (c *control) Halted() <-chan struct{} { return c.halted }

func (b *fixture) run(lease *espalierv1.Lease, c *control) (*task.Outcome, error) {
	b.t.Helper()
	if c == nil {
		c = &control{}
	}
	lease.Spec = b.spec
	o, err := b.runner.Run(b.t.Context(), lease, c)
	if b.gate.inside != 0 {
		b.t.Errorf("%d left in noisy work", b.gate.inside)
	}
	if err != nil {
		return nil, err
	}
	b.t.Cleanup(o.Release)
	for _, f := range o.Files {
		d, err := os.ReadFile(f.Path)
		if err != nil {
			b.t.Fatal(err)
		}
		b.files[f.Ref.GetHash()] = d
	}
	return o, nil
}

func (b *fixture) baseline() *espalierv1.Baseline {
	b.t.Helper()
	o, err := b.run(&espalierv1.Lease{Task: &espalierv1.Task{
		Id: "j/baseline", Job: "j", Kind: espalierv1.TaskKind_TASK_KIND_BASELINE, Attempt: 1,
	}}, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return o.Baseline
}

func trialLease(base *espalierv1.Baseline, c *espalierv1.TrialConfig) *espalierv1.Lease {
	return &espalierv1.Lease{
		Task:     &espalierv1.Task{Id: "j/trial/3", Job: "j", Kind: espalierv1.TaskKind_TASK_KIND_TRIAL, Attempt: 1, Trial: 3},
		Baseline: base, Config: c, Parent: base.GetCheckpoint(),
	}
}

// config asks for the same sparsity in every group.
func config(base *espalierv1.Baseline, strategy string, sparsity float64) *espalierv1.TrialConfig {
	c := &espalierv1.TrialConfig{
		Strategy: strategy, Sparsity: map[string]float64{}, Schedule: "one-shot", FinetuneEpochs: 1, FinetuneRate: 0.001,
	}
	for _, g := range base.GetGroups() {
		c.Sparsity[g.GetName()] = sparsity
	}
	return c
}

func (b *fixture) trial(lease *espalierv1.Lease) *espalierv1.TrialResult {
	b.t.Helper()
	o, err := b.run(lease, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return o.Trial
}

func (b *fixture) artifact(refs []*espalierv1.FileRef, format string) []byte {
	b.t.Helper()
	for _, r := range refs {
		if r.GetFormat() == format {
			d := b.files[r.GetHash()]
			if int64(len(d)) != r.GetSizeBytes() {
				b.t.Fatalf("%s file of %d bytes, said to have %d", format, len(d), r.GetSizeBytes())
			}
			return d
		}
	}
	b.t.Fatalf("no %s file among %v", format, refs)
	return nil
}

func (b *fixture) graph(refs []*espalierv1.FileRef) *model.Graph {
	b.t.Helper()
	g, err := esp.Read(bytes.NewReader(b.artifact(refs, "esp")), esp.Limits{})
	if err != nil {
		b.t.Fatal(err)
	}
	return g
}

// check compares what a result says with its file.
func (b *fixture) check(refs []*espalierv1.FileRef, accuracy, test float64, params, nonzeros, macs int64) *model.Graph {
	b.t.Helper()
	set, _ := small()
	g := b.graph(refs)
	for name, part := range map[string]struct {
		indices []int32
		want    float64
	}{"validation": {set.Validation, accuracy}, "test": {set.Test, test}} {
		s, err := infer.Evaluate(b.t.Context(), g, set, part.indices, infer.EvaluateOptions{})
		if err != nil {
			b.t.Fatal(err)
		}
		if s.Accuracy != part.want {
			b.t.Errorf("%s accuracy of the file is %v, reported %v", name, s.Accuracy, part.want)
		}
	}
	cost, err := g.Cost()
	if err != nil {
		b.t.Fatal(err)
	}
	if cost != (model.Cost{Params: params, NonZeros: nonzeros, MACs: macs}) {
		b.t.Errorf("cost of the file is %+v, reported %d %d %d", cost, params, nonzeros, macs)
	}
	return g
}

func TestBaseline(t *testing.T) {
	b := newFixture(t)
	ctl := &control{}
	o, err := b.run(&espalierv1.Lease{Task: &espalierv1.Task{Id: "j/baseline", Job: "j", Kind: espalierv1.TaskKind_TASK_KIND_BASELINE}}, ctl)
	if err != nil {
		t.Fatal(err)
	}
	base := o.Baseline
	g := b.check(base.GetArtifacts(), base.GetAccuracy(), base.GetTestAccuracy(), base.GetParams(), base.GetNonzeros(), base.GetMacs())
	set, _ := small()
	if base.GetAccuracy() < 0.2 || base.GetSplitHash() != set.SplitHash() || base.GetVariant() == "" || base.GetVersion() != "test" {
		t.Errorf("baseline %v", base)
	}
	if len(base.GetStrategies()) != 4 || len(base.GetGroups()) < 4 {
		t.Errorf("strategies %v, groups %v", base.GetStrategies(), base.GetGroups())
	}
	last := base.GetGroups()[len(base.GetGroups())-1]
	if last.GetPrunable() || last.GetWeights() == 0 || len(last.GetLayers()) != 1 || last.GetChannels() != 10 {
		t.Errorf("last group %v", last)
	}
	fromONNX, err := onnx.Read(b.artifact(base.GetArtifacts(), "onnx"), onnx.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if score, err := infer.Evaluate(t.Context(), fromONNX, set, set.Test, infer.EvaluateOptions{}); err != nil || score.Accuracy != base.GetTestAccuracy() {
		t.Errorf("the onnx file: %+v, %v", score, err)
	}
	c, err := safetensors.ReadGraph(bytes.NewReader(b.files[base.GetCheckpoint().GetHash()]), safetensors.Limits{})
	if err != nil || len(c.Graph.Layers) < len(g.Layers) {
		t.Errorf("checkpoint: %v", err)
	}
	var meta struct {
		Job, Model, Data string
		Trial            int
		Seed             uint64
	}
	if err := json.Unmarshal([]byte(g.Meta[model.MetaLineage]), &meta); err != nil || meta.Job != "test" || meta.Model != "lenet-5" ||
		meta.Data != b.spec.GetData().GetHash() || meta.Seed != 7 {
		t.Errorf("lineage %+v, %v", meta, err)
	}
	if g.Meta[model.MetaTrial] != "0" || g.Meta[model.MetaJob] != "j" || g.Meta[model.MetaMean] == "" || g.Meta[model.MetaClasses] == "" {
		t.Errorf("meta %v", g.Meta)
	}
	stages, before := map[string]bool{}, 0.0
	for _, p := range ctl.seen {
		stages[p.GetStage()] = true
		if p.GetFraction() < before || p.GetFraction() > 1 {
			t.Errorf("progress from %v to %v", before, p)
		}
		before = p.GetFraction()
	}
	for _, s := range []string{"data", "train", "evaluate", "store"} {
		if !stages[s] {
			t.Errorf("stage %s was not told", s)
		}
	}
	if b.gate.steps < 3*23 {
		t.Errorf("asked for room %d times", b.gate.steps)
	}
}

// recorder remembers what it was asked to train.
type recorder struct {
	trainer.Native
	specs []trainer.Spec
}

func (r *recorder) Train(ctx context.Context, s trainer.Spec, w trainer.Watch) (trainer.Result, error) {
	r.specs = append(r.specs, s)
	return r.Native.Train(ctx, s, w)
}

// What the job says of training reaches baseline and trial, and the lineage.
func TestTrainingOptions(t *testing.T) {
	b, rec := newFixture(t), &recorder{}
	b.use(task.Config{Trainer: rec})
	b.spec.Train = &espalierv1.TrainSpec{Epochs: 1, Batch: 32, Optimizer: "sgd", Rate: 0.01, WeightDecay: 1e-4, Momentum: 0.9, L1: 1e-6, Clip: 5,
		LabelSmoothing: 0.1, Schedule: "step", WarmUp: 0.1, Augment: &espalierv1.AugmentSpec{Shift: 1, Flip: true, Crop: 0.1}}
	base := b.baseline()
	r := b.trial(trialLease(base, config(base, "channel-l1", 0.3)))
	if len(rec.specs) < 2 {
		t.Fatalf("%d trainings, want two or more", len(rec.specs))
	}
	for i, s := range rec.specs {
		if s.Optimizer != "sgd" || s.WeightDecay != 1e-4 || s.Momentum != 0.9 || s.L1 != 1e-6 || s.Clip != 5 || s.LabelSmoothing != 0.1 ||
			s.Schedule != "step" || s.WarmUp != 0.1 || s.Augment != (data.Augment{Shift: 1, Flip: true, Crop: 0.1}) {
			t.Errorf("training %d is by %+v", i, s)
		}
	}
	lineage := b.graph(r.GetArtifacts()).Meta[model.MetaLineage]
	for _, want := range []string{`"momentum":0.9`, `"clip":5`, `"schedule":"step"`, `"augment":{"shift":1,"flip":true,"crop":0.1}`} {
		if strings.Count(lineage, want) != 2 {
			t.Errorf("lineage lacks %s in train and finetune: %s", want, lineage)
		}
	}
}

func TestTrials(t *testing.T) {
	b := newFixture(t)
	base := b.baseline()
	for _, tc := range []struct {
		strategy, schedule string
		sparsity, weight   float64
	}{
		{"magnitude", "one-shot", 0.8, 0},
		{"magnitude-global", "polynomial", 0.8, 0},
		{"channel-l1", "iterative", 0.5, 0},
		{"channel-l1", "", 0.4, 0},
		{"hybrid", "polynomial", 0.4, 0.6},
	} {
		t.Run(tc.strategy+"/"+tc.schedule, func(t *testing.T) {
			b.t = t
			c := config(base, tc.strategy, tc.sparsity)
			c.Schedule, c.WeightSparsity = tc.schedule, tc.weight
			r := b.trial(trialLease(base, c))
			g := b.check(r.GetArtifacts(), r.GetAccuracy(), r.GetTestAccuracy(), r.GetParams(), r.GetNonzeros(), r.GetMacs())
			checkPruned(t, tc.strategy, tc.sparsity, tc.weight, base, r, g)
			if small, dense := len(b.artifact(r.GetArtifacts(), "esp")), len(b.artifact(base.GetArtifacts(), "esp")); small >= dense*3/4 {
				t.Errorf("the file has %d bytes, the dense one %d", small, dense)
			}
			if r.GetAccuracy() < 0.15 {
				t.Errorf("accuracy %v", r.GetAccuracy())
			}
		})
	}
	b.t = t
}

// An int8 trial stores int8 files and evaluates them; its checkpoint stays float32.
func TestInt8Trial(t *testing.T) {
	b := newFixture(t)
	base := b.baseline()
	c := config(base, "channel-l1", 0.4)
	floats := b.trial(trialLease(base, c))
	c.Quantize = "int8"
	r := b.trial(trialLease(base, c))
	b.check(r.GetArtifacts(), r.GetAccuracy(), r.GetTestAccuracy(), r.GetParams(), r.GetNonzeros(), r.GetMacs())
	size, want := r.GetCheckpoint().GetSizeBytes(), floats.GetCheckpoint().GetSizeBytes()
	if size < want || size > want+100 { // the lineage is longer
		t.Errorf("the checkpoint has %d bytes, that of a float32 trial %d", size, want)
	}
	if d := r.GetAccuracy() - floats.GetAccuracy(); math.Abs(d) > 0.05 {
		t.Errorf("accuracy %v, in float32 %v", r.GetAccuracy(), floats.GetAccuracy())
	}
	for _, format := range []string{"esp", "onnx"} {
		file := b.artifact(r.GetArtifacts(), format)
		if n := len(b.artifact(floats.GetArtifacts(), format)); len(file) > n*2/5 {
			t.Errorf("the %s file has %d bytes, in float32 %d", format, len(file), n)
		}
		if format != "esp" {
			continue
		}
		g, err := esp.Read(bytes.NewReader(file), esp.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if g.Quant == nil || len(g.Quant.Weights) != 5 || !strings.Contains(g.Meta[model.MetaLineage], `"quantize":"int8"`) {
			t.Errorf("quantization %+v, lineage %s", g.Quant, g.Meta[model.MetaLineage])
		}
	}
	if again := b.trial(trialLease(base, c)); again.GetArtifacts()[0].GetHash() != r.GetArtifacts()[0].GetHash() {
		t.Error("the same trial gives another file")
	}
}

// checkPruned checks that as much is gone as was asked for, and is said to be.
func checkPruned(t *testing.T, strategy string, sparsity, weight float64, base *espalierv1.Baseline, r *espalierv1.TrialResult, g *model.Graph) {
	t.Helper()
	groups, err := prune.Groups(g)
	if err != nil {
		t.Fatal(err)
	}
	for i, was := range base.GetGroups() {
		said := r.GetSparsity()[was.GetName()]
		switch {
		case strategy == "magnitude" && math.Abs(said-sparsity) > 0.02:
			t.Errorf("group %s: sparsity %v, want about %v", was.GetName(), said, sparsity)
		case strategy == "channel-l1" && was.GetPrunable():
			want := int(was.GetChannels()) - int(math.Round(sparsity*float64(was.GetChannels())))
			if groups[i].Channels != want || math.Abs(said-sparsity) > 0.1 {
				t.Errorf("group %s: %d channels of %d left, want %d; said %v", was.GetName(), groups[i].Channels, was.GetChannels(), want, said)
			}
		case strategy == "hybrid" && was.GetPrunable():
			if groups[i].Channels >= int(was.GetChannels()) || said < 1-(1-sparsity)*(1-weight)-0.1 {
				t.Errorf("group %s: %d channels left of %d, sparsity %v", was.GetName(), groups[i].Channels, was.GetChannels(), said)
			}
		}
	}
	if strategy == "magnitude-global" && math.Abs(1-float64(r.GetNonzeros())/float64(base.GetNonzeros())-sparsity) > 0.05 {
		t.Errorf("%d of %d parameters left, want %v removed", r.GetNonzeros(), base.GetNonzeros(), sparsity)
	}
	if unstructured := strings.HasPrefix(strategy, "magnitude"); unstructured != (r.GetParams() == base.GetParams()) {
		t.Errorf("%d parameters, the dense model has %d", r.GetParams(), base.GetParams())
	}
}

func TestSameTrialSameBytes(t *testing.T) {
	b := newFixture(t)
	base := b.baseline()
	c := config(base, "hybrid", 0.3)
	c.WeightSparsity, c.Schedule = 0.5, "iterative"
	first := b.trial(trialLease(base, c))

	other := newFixture(t)
	other.files = b.files
	other.use(task.Config{Threads: 2, BaselineThreads: 3})
	if twin := other.baseline(); twin.GetCheckpoint().GetHash() != base.GetCheckpoint().GetHash() || twin.GetTestAccuracy() != base.GetTestAccuracy() {
		t.Errorf("another baseline: %v instead of %v", twin, base)
	}
	again := trialLease(base, c)
	again.Task.Attempt, again.Task.Worker, again.Task.Session, again.Task.RequestId = 4, "another", "s", "r"
	second := other.trial(again)
	if first.GetCheckpoint().GetHash() != second.GetCheckpoint().GetHash() || first.GetAccuracy() != second.GetAccuracy() || first.GetLoss() != second.GetLoss() {
		t.Errorf("another attempt gives %v instead of %v", second, first)
	}
	for i, a := range first.GetArtifacts() {
		if a.GetHash() != second.GetArtifacts()[i].GetHash() {
			t.Errorf("%s file differs", a.GetFormat())
		}
	}
	next := trialLease(base, c)
	next.Task.Trial = 4
	if third := b.trial(next); third.GetCheckpoint().GetHash() == first.GetCheckpoint().GetHash() {
		t.Error("another trial gives the same weights")
	}
}

func TestParent(t *testing.T) {
	b := newFixture(t)
	base := b.baseline()
	parent := b.trial(trialLease(base, config(base, "channel-l1", 0.3)))
	child := trialLease(base, config(base, "channel-l1", 0.5))
	child.Parent, child.Config.Parent = parent.GetCheckpoint(), 3
	r := b.trial(child)
	g := b.check(r.GetArtifacts(), r.GetAccuracy(), r.GetTestAccuracy(), r.GetParams(), r.GetNonzeros(), r.GetMacs())
	checkPruned(t, "channel-l1", 0.5, 0, base, r, g)
	if !strings.Contains(g.Meta[model.MetaLineage], parent.GetCheckpoint().GetHash()) {
		t.Errorf("lineage %s", g.Meta[model.MetaLineage])
	}

	gone := trialLease(base, config(base, "channel-l1", 0.5))
	gone.Parent = &espalierv1.FileRef{Hash: strings.Repeat("ab", 32)}
	if r := b.trial(gone); !strings.Contains(b.graph(r.GetArtifacts()).Meta[model.MetaLineage], base.GetCheckpoint().GetHash()) {
		t.Error("a parent that is gone must be replaced by the dense model")
	}
}

func measureLease(ref *espalierv1.FileRef) *espalierv1.Lease {
	return &espalierv1.Lease{
		Task:     &espalierv1.Task{Id: "j/measure/3/here", Job: "j", Kind: espalierv1.TaskKind_TASK_KIND_MEASURE, Trial: 3, Device: "here"},
		Artifact: ref,
	}
}

func TestMeasure(t *testing.T) {
	b := newFixture(t)
	b.spec.Train.Epochs = 0.1
	base := b.baseline()
	ref := base.GetArtifacts()[0]
	o, err := b.run(measureLease(ref), nil)
	if err != nil {
		t.Fatal(err)
	}
	m := o.Measurement
	if m.GetArtifact() != ref.GetHash() || m.GetFormat() != "esp" || m.GetSizeBytes() != ref.GetSizeBytes() || m.GetDevice() != "here" ||
		m.GetP50Ns() <= 0 || m.GetP95Ns() < m.GetP50Ns() || m.GetSpread() < 0 || m.GetRuns() < 1 || m.GetMeasuredMs() == 0 {
		t.Errorf("measurement %v", m)
	}
	if b.gate.quiet != 0 || b.gate.quieted != 1 {
		t.Errorf("quiet asked for %d times, %d not given back", b.gate.quieted, b.gate.quiet)
	}
}

func TestMeasureFailures(t *testing.T) {
	b := newFixture(t)
	junk := &espalierv1.FileRef{Hash: b.put([]byte("junk")), Format: "esp"}
	for name, tc := range map[string]struct {
		lease     *espalierv1.Lease
		text      string
		permanent bool
	}{
		"device": {&espalierv1.Lease{Task: &espalierv1.Task{Kind: espalierv1.TaskKind_TASK_KIND_MEASURE, Device: "there"}, Artifact: junk}, "there", false},
		"format": {measureLease(&espalierv1.FileRef{Hash: junk.Hash, Format: "onnx"}), "onnx", true},
		"junk":   {measureLease(junk), "read file", true},
		"gone":   {measureLease(&espalierv1.FileRef{Hash: strings.Repeat("00", 32), Format: "esp"}), "no such file", false},
	} {
		_, err := b.run(tc.lease, nil)
		if err == nil || !strings.Contains(err.Error(), tc.text) || errors.Is(err, task.ErrPermanent) != tc.permanent {
			t.Errorf("%s: error %v, want one that names %q, permanent %v", name, err, tc.text, tc.permanent)
		}
	}
	if b.gate.quiet != 0 {
		t.Errorf("quiet not given back")
	}
}

func TestHaltedTrialReports(t *testing.T) {
	b := newFixture(t)
	base := b.baseline()
	lease := trialLease(base, config(base, "magnitude", 0.9))
	lease.Config.FinetuneEpochs, lease.Config.Schedule = 1000, "polynomial"
	ctl := &control{halted: make(chan struct{})}
	var once sync.Once
	ctl.on = func(p *espalierv1.Progress) {
		if p.GetStage() == "fine-tune" && p.GetLoss() > 0 {
			once.Do(func() { close(ctl.halted) })
		}
	}
	o, err := b.run(lease, ctl)
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range o.Trial.GetSparsity() {
		if math.Abs(s-0.9) > 0.02 {
			t.Errorf("group %s: sparsity %v after a halt, want 0.9", name, s)
		}
	}
}

// fullDisk refuses to keep files.
type fullDisk struct{ *cache.Cache }

func (fullDisk) Add(context.Context, []byte, string) (*cache.File, error) {
	return nil, fmt.Errorf("keep file: %w", cache.ErrDiskFull)
}

func TestFailures(t *testing.T) {
	b := newFixture(t)
	b.spec.Train.Epochs = 0.2
	base := b.baseline()
	change := func(f func(*espalierv1.Lease)) *espalierv1.Lease {
		l := trialLease(base, config(base, "magnitude", 0.5))
		f(l)
		return l
	}
	checkpoint := func(data string) *espalierv1.Baseline {
		return &espalierv1.Baseline{Checkpoint: &espalierv1.FileRef{Hash: b.put([]byte(data))}}
	}
	nan := b.withNaN(base)
	gone := &espalierv1.Baseline{Checkpoint: &espalierv1.FileRef{Hash: strings.Repeat("00", 32)}}
	for name, tc := range map[string]struct {
		lease     *espalierv1.Lease
		text      string
		permanent bool
	}{
		"strategy":   {change(func(l *espalierv1.Lease) { l.Config.Strategy = "magic" }), "magic", true},
		"gradients":  {change(func(l *espalierv1.Lease) { l.Config.Strategy = "channel-taylor" }), "gradients", true},
		"schedule":   {change(func(l *espalierv1.Lease) { l.Config.Schedule = "soon" }), "soon", true},
		"quantize":   {change(func(l *espalierv1.Lease) { l.Config.Quantize = "int4" }), "int4", true},
		"distill":    {change(func(l *espalierv1.Lease) { l.Config.Distill = true }), "distill", true},
		"epochs":     {change(func(l *espalierv1.Lease) { l.Config.FinetuneEpochs = math.NaN() }), "finetune_epochs", true},
		"group":      {change(func(l *espalierv1.Lease) { l.Config.Sparsity["nowhere"] = 1 }), "nowhere", true},
		"sparsity":   {change(func(l *espalierv1.Lease) { l.Config.Sparsity[base.GetGroups()[0].GetName()] = 2 }), "want 0 to 1", true},
		"diverges":   {change(func(l *espalierv1.Lease) { l.Config.FinetuneRate = 1e30 }), "diverged", true},
		"checkpoint": {change(func(l *espalierv1.Lease) { l.Baseline, l.Parent = checkpoint("junk"), nil }), "read checkpoint", true},
		"NaN":        {change(func(l *espalierv1.Lease) { l.Baseline, l.Parent = nan, nil }), "not finite", true},
		"no parent":  {change(func(l *espalierv1.Lease) { l.Baseline, l.Parent = nil, nil }), "names no checkpoint", true},
		"missing":    {change(func(l *espalierv1.Lease) { l.Baseline, l.Parent = gone, nil }), "no such file", false},
		"kind":       {change(func(l *espalierv1.Lease) { l.Task.Kind = espalierv1.TaskKind_TASK_KIND_PROFILE }), "PROFILE", true},
	} {
		_, err := b.run(tc.lease, nil)
		if err == nil || !strings.Contains(err.Error(), tc.text) || errors.Is(err, task.ErrPermanent) != tc.permanent {
			t.Errorf("%s: error %v, want one that names %q, permanent %v", name, err, tc.text, tc.permanent)
		}
	}
	b.use(task.Config{Files: fullDisk{b.cache}})
	_, err := b.run(change(func(*espalierv1.Lease) {}), nil)
	if !errors.Is(err, cache.ErrDiskFull) || errors.Is(err, task.ErrPermanent) {
		t.Errorf("full disk: error %v, want ErrDiskFull, not permanent", err)
	}
}

// withNaN is a baseline whose checkpoint has a weight that is not a number.
func (b *fixture) withNaN(base *espalierv1.Baseline) *espalierv1.Baseline {
	b.t.Helper()
	c, err := safetensors.ReadGraph(bytes.NewReader(b.files[base.GetCheckpoint().GetHash()]), safetensors.Limits{})
	if err != nil {
		b.t.Fatal(err)
	}
	for i := range c.Graph.Layers {
		if w := c.Graph.Layers[i].Params[model.Weight]; w != nil {
			w.Data[0] = float32(math.NaN())
		}
	}
	var out bytes.Buffer
	if err := safetensors.WriteGraph(&out, c.Graph, nil, nil); err != nil {
		b.t.Fatal(err)
	}
	return &espalierv1.Baseline{Checkpoint: &espalierv1.FileRef{Hash: b.put(out.Bytes())}}
}

func TestOwnNetwork(t *testing.T) {
	b := newFixture(t)
	no := false
	b.spec.Model.Source = &espalierv1.ModelSpec_Layers{Layers: &espalierv1.LayerList{Layers: []*espalierv1.LayerSpec{
		{Kind: "conv", Name: "c1", Out: 8, Kernel: []int32{3}, Stride: []int32{2, 2}, Norm: true, Activation: "relu"},
		{Kind: "conv", Name: "c2", Out: 8, Kernel: []int32{3, 3}, Padding: "same", Bias: &no},
		{Kind: "add", Name: "sum", Inputs: []string{"c1", "c2"}, Activation: "relu"},
		{Kind: "global-avg-pool"}, {Kind: "dense"},
	}}}
	b.spec.Space.Strategies = []string{"magnitude", "channel-bn-scale"}
	b.spec.Train.Epochs = 6
	base := b.baseline()
	g := b.check(base.GetArtifacts(), base.GetAccuracy(), base.GetTestAccuracy(), base.GetParams(), base.GetNonzeros(), base.GetMacs())
	if len(base.GetStrategies()) != 2 || !strings.Contains(g.Meta[model.MetaLineage], "conv conv add") {
		t.Errorf("strategies %v, lineage %s", base.GetStrategies(), g.Meta[model.MetaLineage])
	}
	r := b.trial(trialLease(base, config(base, "channel-bn-scale", 0.5)))
	if pruned := b.check(r.GetArtifacts(), r.GetAccuracy(), r.GetTestAccuracy(), r.GetParams(), r.GetNonzeros(), r.GetMacs()); r.GetMacs() >= base.GetMacs()*3/4 {
		t.Errorf("%d MACs of %d in %d layers", r.GetMacs(), base.GetMacs(), len(pruned.Layers))
	}
	for name, l := range map[string]*espalierv1.LayerSpec{
		"operator": {Kind: "magic"}, "kernel": {Kind: "conv", Out: 3, Kernel: []int32{1, 2, 3}},
	} {
		b.spec.Model.Source = &espalierv1.ModelSpec_Layers{Layers: &espalierv1.LayerList{Layers: []*espalierv1.LayerSpec{l}}}
		_, err := b.run(&espalierv1.Lease{Task: &espalierv1.Task{Job: "j", Kind: espalierv1.TaskKind_TASK_KIND_BASELINE}}, nil)
		if !errors.Is(err, task.ErrPermanent) {
			t.Errorf("%s: error %v, want a permanent one", name, err)
		}
	}
}

func TestBaselineFailures(t *testing.T) {
	for name, tc := range map[string]struct {
		change    func(*fixture)
		text      string
		permanent bool
	}{
		"network":    {func(b *fixture) { b.spec.Model.Source = &espalierv1.ModelSpec_Zoo{Zoo: "resnet-9000"} }, "resnet-9000", true},
		"source":     {func(b *fixture) { b.spec.Model.Source = nil }, "zoo", true},
		"data":       {func(b *fixture) { b.spec.Data.Hash = b.put([]byte("no data set")) }, "decode data set", true},
		"no data":    {func(b *fixture) { b.spec.Data.Hash = strings.Repeat("11", 32) }, "no such file", false},
		"strategies": {func(b *fixture) { b.spec.Space.Strategies = []string{"channel-bn-scale"} }, "no strategy", true},
		"optimizer":  {func(b *fixture) { b.spec.Train.Optimizer = "magic" }, "magic", true},
		"diverges":   {func(b *fixture) { b.spec.Train.Optimizer, b.spec.Train.Rate = "sgd", 1e30 }, "diverged", true},
	} {
		b := newFixture(t)
		tc.change(b)
		_, err := b.run(&espalierv1.Lease{Task: &espalierv1.Task{Job: "j", Kind: espalierv1.TaskKind_TASK_KIND_BASELINE}}, nil)
		if err == nil || !strings.Contains(err.Error(), tc.text) || errors.Is(err, task.ErrPermanent) != tc.permanent {
			t.Errorf("%s: error %v, want one that names %q, permanent %v", name, err, tc.text, tc.permanent)
		}
	}
}

func TestCancelled(t *testing.T) {
	b := newFixture(t)
	b.spec.Train.Epochs = 1000
	mine := errors.New("lease lost")
	ctx, cancel := context.WithCancelCause(t.Context())
	ctl := &control{on: func(p *espalierv1.Progress) {
		if p.GetLoss() > 0 {
			cancel(mine)
		}
	}}
	_, err := b.runner.Run(ctx, &espalierv1.Lease{
		Spec: b.spec, Task: &espalierv1.Task{Job: "j", Kind: espalierv1.TaskKind_TASK_KIND_BASELINE},
	}, ctl)
	if !errors.Is(err, mine) {
		t.Fatalf("error %v, want the cause of the cancellation", err)
	}
}

func TestConfig(t *testing.T) {
	b := newFixture(t)
	for name, cfg := range map[string]task.Config{
		"no files":   {Gate: b.gate, Trainer: trainer.Native{}},
		"no gate":    {Files: b.cache, Trainer: trainer.Native{}},
		"no trainer": {Files: b.cache, Gate: b.gate},
		"threads":    {Files: b.cache, Gate: b.gate, Trainer: trainer.Native{}, Threads: -1},
	} {
		if _, err := task.New(cfg); !errors.Is(err, task.ErrConfig) {
			t.Errorf("%s: error %v, want ErrConfig", name, err)
		}
	}
}
