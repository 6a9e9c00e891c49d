package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime/debug"
	"testing"
	"time"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/infer"
	"github.com/espalier-ml/espalier/model/zoo"
)

// quick is long enough for a test.
var quick = Options{WarmUp: time.Millisecond, Rounds: 3, Round: time.Millisecond, Samples: 5, Max: time.Minute}

func TestMeasureCountsRuns(t *testing.T) {
	runs := 0
	l, err := Measure(t.Context(), func() error { runs++; time.Sleep(200 * time.Microsecond); return nil }, quick)
	if err != nil {
		t.Fatal(err)
	}
	if l.Runs != runs || l.PerSample != 1 || l.Rounds != 3 || l.Samples < 5 {
		t.Errorf("%+v after %d runs: want them all counted, one per sample, 3 rounds of 5 samples or more", l, runs)
	}
	if l.Min < 200*time.Microsecond || l.Min > l.P50 || l.P50 > l.P95 || l.Spread < 0 || l.Drift < 0 {
		t.Errorf("%+v: want 200µs <= min <= p50 <= p95", l)
	}
}

// Runs that are short against the clock are measured together.
func TestMeasureBatchesShortRuns(t *testing.T) {
	var sink float64
	l, err := Measure(t.Context(), func() error { sink += math.Sqrt(sink + 1); return nil }, quick)
	if err != nil {
		t.Fatal(err)
	}
	if l.PerSample < 10 {
		t.Errorf("%+v: want many runs in a sample", l)
	}
}

// The round that was disturbed is not the one reported.
func TestMeasureReportsTheQuietRound(t *testing.T) {
	start := time.Now()
	o := Options{WarmUp: time.Millisecond, Rounds: 4, Round: 20 * time.Millisecond, Samples: 3, Max: time.Minute}
	l, err := Measure(t.Context(), func() error {
		d := time.Millisecond
		if time.Since(start) < 30*time.Millisecond {
			d = 8 * time.Millisecond
		}
		time.Sleep(d)
		return nil
	}, o)
	if err != nil {
		t.Fatal(err)
	}
	if l.P50 >= 8*time.Millisecond || l.Drift == 0 {
		t.Errorf("%+v: want the median of a quiet round and some drift", l)
	}
}

func TestMeasureStops(t *testing.T) {
	bad := errors.New("bad")
	runs := 0
	if _, err := Measure(t.Context(), func() error {
		if runs++; runs == 7 {
			return bad
		}
		return nil
	}, quick); !errors.Is(err, bad) || runs != 7 {
		t.Errorf("%v after %d runs: want the run's error after 7", err, runs)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := Measure(ctx, func() error { cancel(); return nil }, quick); !errors.Is(err, context.Canceled) {
		t.Errorf("%v: want cancelled", err)
	}
	l, err := Measure(t.Context(), func() error { time.Sleep(2 * time.Millisecond); return nil },
		Options{Max: 5 * time.Millisecond, Samples: 1000, Rounds: 1000})
	if err != nil || l.Rounds != 1 {
		t.Errorf("%+v, %v: want one round, cut short", l, err)
	}
	for _, o := range []Options{{Rounds: -1}, {WarmUp: -1}, {Max: -time.Second}, {Samples: 1e7}} {
		if _, err := Measure(t.Context(), func() error { return nil }, o); !errors.Is(err, ErrOptions) {
			t.Errorf("%+v: %v: want %v", o, err, ErrOptions)
		}
	}
}

func TestMeasureRestoresTheCollector(t *testing.T) {
	old := debug.SetGCPercent(73)
	defer debug.SetGCPercent(old)
	var during int
	if _, err := Measure(t.Context(), func() error { during = debug.SetGCPercent(-1); return nil }, quick); err != nil {
		t.Fatal(err)
	}
	if got := debug.SetGCPercent(73); during != -1 || got != 73 {
		t.Errorf("collector at %d while measuring and %d after: want -1 and 73", during, got)
	}
}

func TestPercentile(t *testing.T) {
	s := []time.Duration{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
	for p, want := range map[float64]time.Duration{0: 1, 0.05: 1, 0.1: 1, 0.5: 5, 0.51: 6, 0.95: 10, 1: 10} {
		if got := percentile(s, p); got != want {
			t.Errorf("percentile %v: %d: want %d", p, got, want)
		}
	}
	if l := summary(s); l.Mean != 5 || l.Spread != 1.6 || l.Min != 1 {
		t.Errorf("%+v: want mean 5, spread 1.6, min 1", l)
	}
}

func TestMeasureGraph(t *testing.T) {
	g, err := zoo.Build("lenet-5", model.Shape{28, 28, 1}, 10, 1)
	if err != nil {
		t.Fatal(err)
	}
	r, err := MeasureGraph(t.Context(), g, infer.Options{Batch: 2}, quick)
	if err != nil {
		t.Fatal(err)
	}
	if r.P50 <= 0 || r.Batch != 2 || r.Threads != 1 || len(r.Layers) == 0 {
		t.Errorf("%+v: want a latency of batch 2 on one thread, with layers", r)
	}
	wide, err := zoo.Build("mobilenet-025", model.Shape{224, 224, 3}, 10, 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := MeasureGraph(t.Context(), wide, infer.Options{Batch: 1 << 16}, quick); !errors.Is(err, ErrOptions) {
		t.Errorf("%v: want %v, as the inputs take 40 GB", err, ErrOptions)
	}
	if _, err := MeasureGraph(t.Context(), g, infer.Options{Batch: -1}, quick); !errors.Is(err, infer.ErrOptions) {
		t.Errorf("%v: want %v", err, infer.ErrOptions)
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

// BenchmarkLatency is one example on one thread.
func BenchmarkLatency(b *testing.B) {
	for _, c := range []struct {
		name   string
		input  model.Shape
		sparse float64
		block  int
	}{
		{"seed-cnn", model.Shape{32, 32, 3}, 0, 1},
		{"seed-cnn", model.Shape{32, 32, 3}, 0.9, 1},
		{"seed-cnn", model.Shape{32, 32, 3}, 0.9, 4},
		{"mlp-784-128-10", model.Shape{28, 28, 1}, 0, 1},
		{"mlp-784-128-10", model.Shape{28, 28, 1}, 0.9, 1},
		{"resnet-8", model.Shape{32, 32, 3}, 0, 1},
		{"ds-cnn", model.Shape{49, 10, 1}, 0, 1},
	} {
		b.Run(fmt.Sprintf("%s/sparse=%v/block=%d", c.name, c.sparse, c.block), func(b *testing.B) {
			g, err := zoo.Build(c.name, c.input, 10, 1)
			if err != nil {
				b.Fatal(err)
			}
			prune(g, c.sparse, c.block)
			for b.Loop() {
				r, err := MeasureGraph(b.Context(), g, infer.Options{}, Options{})
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(r.P50.Nanoseconds())/1e3, "p50-µs")
				b.ReportMetric(float64(r.P95.Nanoseconds())/1e3, "p95-µs")
				for _, l := range r.Layers {
					b.Logf("%s %s %v", l.Name, l.Kernel, l.Time)
				}
			}
		})
	}
}
