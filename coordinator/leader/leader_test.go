package leader

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/search"
)

func spec() *v1.JobSpec {
	return &v1.JobSpec{
		Space: &v1.SpaceSpec{Strategies: []string{"magnitude", "magnitude-global", "channel-l1", "hybrid"},
			Sparsity: &v1.Range{Max: 0.98}, Schedules: []string{"one-shot", "polynomial"}, FinetuneEpochs: []float64{0.5, 1, 2},
			FinetuneRate: &v1.Range{Min: 1e-4, Max: 1e-2, Log: true}, Quantize: []string{"none"}, Distill: []bool{false}},
		Search: &v1.SearchSpec{Sampler: "tpe", Seed: 1}, Stop: &v1.StopSpec{Trials: 60}, Devices: []string{"local"},
	}
}

func baseline() *v1.Baseline {
	return &v1.Baseline{Accuracy: 0.95, Macs: 1000, Artifacts: []*v1.FileRef{{Hash: "a", SizeBytes: 1000, Format: "esp"}},
		Groups: []*v1.Group{
			{Name: "conv1", Channels: 32, Prunable: true, Weights: 288}, {Name: "conv2", Channels: 64, Prunable: true, Weights: 18432},
			{Name: "fc", Channels: 10, Weights: 640}, {Name: "shape"}},
		Strategies:   []string{"magnitude", "magnitude-global", "channel-l1", "hybrid"},
		Measurements: map[string]*v1.Measurement{"local": {P50Ns: 1000, SizeBytes: 1000}}}
}

func mustPlan(t *testing.T, s *v1.JobSpec, b *v1.Baseline) *plan {
	t.Helper()
	p, err := Pruning(&v1.Job{Spec: s, Baseline: b, Devices: []string{"local"}}, []string{"esp"})
	if err != nil {
		t.Fatal(err)
	}
	return p.(*plan)
}

// TestConfig: what every strategy gets is what it can use, within the specification's bounds.
func TestConfig(t *testing.T) {
	p := mustPlan(t, spec(), baseline())
	rng := rand.New(rand.NewPCG(1, 2))
	wants := map[string]string{"magnitude": "conv1 conv2 fc", "magnitude-global": "conv1 conv2 fc", "channel-l1": "conv1 conv2", "hybrid": "conv1 conv2"}
	seen := map[string]bool{}
	for range 500 {
		c, err := p.Config(p.Space().Sample(rng))
		if err != nil {
			t.Fatal(err)
		}
		seen[c.GetStrategy()] = true
		var names []string
		for _, g := range baseline().GetGroups() {
			s, ok := c.GetSparsity()[g.GetName()]
			if !ok {
				continue
			}
			names = append(names, g.GetName())
			if s < 0 || s > 0.98 {
				t.Fatalf("sparsity of %s is %v", g.GetName(), s)
			}
		}
		if got := strings.Join(names, " "); got != wants[c.GetStrategy()] || len(c.GetSparsity()) != len(names) {
			t.Fatalf("%s prunes %v, want %s", c.GetStrategy(), c.GetSparsity(), wants[c.GetStrategy()])
		}
		if (c.GetWeightSparsity() > 0) != (c.GetStrategy() == "hybrid") {
			t.Fatalf("%s has weight sparsity %v", c.GetStrategy(), c.GetWeightSparsity())
		}
		if g := c.GetSparsity(); c.GetStrategy() == "magnitude-global" && (g["conv1"] != g["conv2"] || g["conv1"] != g["fc"]) {
			t.Fatalf("global sparsity differs: %v", g)
		}
		if e := c.GetFinetuneEpochs(); e != 0.5 && e != 1 && e != 2 {
			t.Fatalf("epochs %v", e)
		}
		if r := c.GetFinetuneRate(); r < 1e-4 || r > 1e-2 || c.GetQuantize() != "none" || c.GetSchedule() == "" {
			t.Fatalf("config %v", c)
		}
	}
	if len(seen) != 4 {
		t.Errorf("only %v were drawn", seen)
	}
}

func TestPlanWithoutChannels(t *testing.T) {
	b := baseline()
	for _, g := range b.GetGroups() {
		g.Prunable = false
	}
	if p := mustPlan(t, spec(), b); len(p.strategies) != 2 {
		t.Errorf("strategies %v, want those for weights", p.strategies)
	}
	b.Strategies = []string{"channel-l1"}
	if _, err := newPlan(spec(), b); err == nil || !strings.Contains(err.Error(), "none of the strategies") {
		t.Errorf("no strategy applies: %v", err)
	}
}

func TestSeeds(t *testing.T) {
	p := mustPlan(t, spec(), baseline())
	strategies, keys := map[string]int{}, map[string]bool{}
	n := int32(1)
	for ; ; n++ {
		c, ok := p.Seed(n)
		if !ok {
			break
		}
		conf, err := p.Config(c)
		if err != nil {
			t.Fatalf("seed %d: %v", n, err)
		}
		strategies[conf.GetStrategy()]++
		keys[p.Space().Key(c)] = true
	}
	if n-1 != 16 || len(keys) != 16 || len(strategies) != 4 {
		t.Errorf("%d seeds, %d different, strategies %v", n-1, len(keys), strategies)
	}
	for trials, want := range map[int32]int32{6: 2, 24: 8, 0: 16} {
		if got := p.seedCount(trials); got != want {
			t.Errorf("of %d trials %d are seeds, want %d", trials, got, want)
		}
	}
	s := spec()
	s.Search.Sampler = "random"
	if _, ok := mustPlan(t, s, baseline()).Seed(1); ok {
		t.Error("the random sampler has a seed")
	}
}

func trial(acc float64, size, p50, macs int64) *v1.Trial {
	out := &v1.Trial{Number: 1, State: v1.TrialState_TRIAL_STATE_DONE, Result: &v1.TrialResult{Accuracy: acc, Macs: macs,
		Artifacts: []*v1.FileRef{{Format: "onnx", SizeBytes: 7}, {Format: "esp", SizeBytes: size}}}}
	if p50 > 0 {
		out.Measurements = map[string]*v1.Measurement{"local": {P50Ns: p50, SizeBytes: size}}
	}
	return out
}

func TestObjectives(t *testing.T) {
	p := mustPlan(t, spec(), baseline())
	for _, tc := range []struct {
		trial     *v1.Trial
		want      []float64
		predicted bool
	}{
		{trial(0.95, 1000, 1000, 1000), []float64{0.05 / 0.15, 1, 1}, false},
		{trial(0.10, 1, 10, 1000), []float64{1, 0, 0}, false},
		{trial(0.95, 1000, 0, 1000), []float64{0.05 / 0.15, 1, 1}, true},
		{trial(0.95, 100, 100, 500), []float64{0.05 / 0.15, 2.0 / 3, 0.5}, false},
		{trial(0.95, 100, 0, 500), []float64{0.05 / 0.15, 2.0 / 3, math.Log(60) / math.Log(100)}, true},
	} {
		o := p.Outcome(tc.trial)
		got, predicted := o.Objectives, o.Predicted
		if (o.Violation > 0) != (got[0] == 1) {
			t.Errorf("%v: violation %v", tc.trial, o.Violation)
		}
		for i := range tc.want {
			if math.Abs(got[i]-tc.want[i]) > 1e-9 || predicted != tc.predicted {
				t.Errorf("%v: %v predicted %v, want %v, %v", tc.trial, got, predicted, tc.want, tc.predicted)
			}
		}
	}
	s := spec()
	s.Search.Deterministic = true
	if !mustPlan(t, s, baseline()).Outcome(trial(0.95, 100, 100, 500)).Predicted {
		t.Error("a deterministic job must not look at measurements")
	}
}

func TestStopReason(t *testing.T) {
	now := time.UnixMilli(100_000)
	point := func(v float64) search.Trial {
		return search.Trial{State: search.Complete, Objectives: []float64{v, v, v}}
	}
	flat := []search.Trial{point(0.5), point(0.6), point(0.6), {State: search.Failed}}
	ref := []float64{1, 1, 1}
	for _, tc := range []struct {
		name    string
		job     *v1.Job
		stop    *v1.StopSpec
		history []search.Trial
		want    string
	}{
		{"trials left", &v1.Job{Completed: 3}, &v1.StopSpec{Trials: 5}, nil, ""},
		{"failed trials count", &v1.Job{Completed: 3, Failed: 2}, &v1.StopSpec{Trials: 5}, nil, "trials"},
		{"time", &v1.Job{StartedMs: 40_000}, &v1.StopSpec{TimeMs: 60_000}, nil, "time"},
		{"paused before", &v1.Job{StartedMs: 40_000, PausedMs: 1}, &v1.StopSpec{TimeMs: 60_000}, nil, ""},
		{"paused now", &v1.Job{StartedMs: 1000, PausedAtMs: 2000}, &v1.StopSpec{TimeMs: 60_000}, nil, ""},
		{"not started", &v1.Job{}, &v1.StopSpec{TimeMs: 1}, nil, ""},
		{"stalled", &v1.Job{}, &v1.StopSpec{Stall: 3}, flat, "stall"},
		{"not yet stalled", &v1.Job{}, &v1.StopSpec{Stall: 4}, flat, ""},
		{"still gaining", &v1.Job{}, &v1.StopSpec{Stall: 3}, append(flat, point(0.4)), ""},
	} {
		tc.job.Spec = &v1.JobSpec{Stop: tc.stop}
		if got := stopReason(tc.job, now, func(n int) bool { return stalled(tc.history, ref, n) }); (got == "") != (tc.want == "") || !strings.HasPrefix(got, tc.want) {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

func TestUnitOf(t *testing.T) {
	for name, want := range map[string]unit{"magnitude": weights, "magnitude-global": overall, "channel-l1": channels,
		"hybrid": both, "hybrid-taylor": both, "filter-fpgm": channels, "snip": weights} {
		if got := unitOf(name); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}
