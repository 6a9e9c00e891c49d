package job

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// All stands for every strategy that applies to the model.
const All = "all"

// Local is the device that stands for the submitting machine.
const Local = "local"

// MaxSparsity is the largest fraction that a trial may remove.
const MaxSparsity = 0.999

// Defaults fills in what a spec leaves out.
func Defaults(s *espalierv1.JobSpec, known Names) {
	if s.Data == nil {
		s.Data = &espalierv1.DataSpec{}
	}
	orUint(&s.Data.Seed, 1)
	if s.Train == nil {
		s.Train = &espalierv1.TrainSpec{}
	}
	orFloat(&s.Train.Epochs, 8)
	if s.Train.Batch == 0 {
		s.Train.Batch = 64
	}
	orString(&s.Train.Optimizer, "adam")
	orFloat(&s.Train.Rate, 0.001)
	defaultSpace(s, known)
	if len(s.Devices) == 0 {
		s.Devices = []string{Local}
	}
	if s.Search == nil {
		s.Search = &espalierv1.SearchSpec{}
	}
	orString(&s.Search.Sampler, "auto")
	orUint(&s.Search.Seed, 1)
	if s.Search.Deterministic && s.Search.Window == 0 {
		s.Search.Window = 8
	}
	if s.Search.CheckpointBytes == 0 {
		s.Search.CheckpointBytes = 2_000_000_000
	}
	if s.Stop == nil {
		s.Stop = &espalierv1.StopSpec{}
	}
	if s.Stop.Trials == 0 && s.Stop.TimeMs == 0 && s.Stop.Stall == 0 {
		s.Stop.Trials = 100
	}
}

func defaultSpace(s *espalierv1.JobSpec, known Names) {
	if s.Space == nil {
		s.Space = &espalierv1.SpaceSpec{}
	}
	sp := s.Space
	if len(sp.Strategies) == 0 {
		sp.Strategies = []string{"magnitude", "channel-l1", "hybrid"}
	}
	if slices.Equal(sp.Strategies, []string{All}) {
		sp.Strategies = slices.Clone(known.Strategies)
	}
	if sp.Sparsity == nil {
		sp.Sparsity = &espalierv1.Range{Min: 0, Max: 0.98}
	}
	if len(sp.Schedules) == 0 {
		sp.Schedules = []string{"one-shot", "polynomial"}
	}
	if len(sp.FinetuneEpochs) == 0 {
		sp.FinetuneEpochs = []float64{1, 2}
	}
	if sp.FinetuneRate == nil {
		sp.FinetuneRate = &espalierv1.Range{Min: 0.0003, Max: 0.003, Log: true}
	}
}

func orFloat(v *float64, d float64) {
	if *v == 0 {
		*v = d
	}
}

func orUint(v *uint64, d uint64) {
	if *v == 0 {
		*v = d
	}
}

func orString(v *string, d string) {
	if *v == "" {
		*v = d
	}
}

// Validate checks a spec whose defaults are filled in. Errors are joined.
func Validate(s *espalierv1.JobSpec, known Names) error {
	c := &checker{}
	c.must(s.Name == "" || slug(s.Name) == s.Name, "name %q: want lower-case letters, digits and dashes, at most 63", s.Name)
	c.oneOf("model.zoo", s.GetModel().GetZoo(), known.Zoo)
	c.train(s.Train, known)
	c.space(s.Space, known)
	c.devices(s)
	c.oneOf("search.sampler", s.Search.Sampler, known.Samplers)
	c.must(s.Search.Window >= 0 && s.Search.Window <= 1024, "search.window %d: want 1 to 1024", s.Search.Window)
	c.must(s.Search.Deterministic || s.Search.Window == 0, "search.window %d without search.deterministic: want both or neither", s.Search.Window)
	c.must(!s.Search.Deterministic || s.Stop.TimeMs == 0,
		"stop.time with search.deterministic: want stop.trials or stop.stall, since time depends on the machines")
	c.must(s.Search.CheckpointBytes > 0, "search.checkpoints %d: want more than 0", s.Search.CheckpointBytes)
	c.must(s.Stop.Trials >= 0 && s.Stop.TimeMs >= 0 && s.Stop.Stall >= 0, "stop: negative: want 1 or more")
	c.must(s.Stop.Trials+s.Stop.Stall > 0 || s.Stop.TimeMs > 0, "stop: no rule: want trials, time or stall")
	return errors.Join(c.errs...)
}

type checker struct{ errs []error }

func (c *checker) must(ok bool, format string, args ...any) {
	if !ok {
		c.errs = append(c.errs, fmt.Errorf("%w: %s", ErrField, fmt.Sprintf(format, args...)))
	}
}

func (c *checker) oneOf(name, v string, allowed []string) {
	c.must(slices.Contains(allowed, v), "%s %q: want one of: %s", name, v, strings.Join(allowed, ", "))
}

func (c *checker) train(t *espalierv1.TrainSpec, known Names) {
	c.must(t.Epochs > 0 && t.Epochs <= 10_000, "train.epochs %v: want more than 0, up to 10000", t.Epochs)
	c.must(t.Batch >= 1 && t.Batch <= 1<<16, "train.batch %d: want 1 to 65536", t.Batch)
	c.must(t.Rate > 0 && t.Rate <= 10, "train.rate %v: want more than 0, up to 10", t.Rate)
	c.must(t.WeightDecay >= 0 && t.WeightDecay <= 1, "train.weight_decay %v: want 0 to 1", t.WeightDecay)
	c.oneOf("train.optimizer", t.Optimizer, known.Optimizers)
}

func (c *checker) space(s *espalierv1.SpaceSpec, known Names) {
	for _, name := range s.Strategies {
		c.must(name != All, "space.strategies: %q with others: want it alone, or names", All)
		if name != All {
			c.oneOf("space.strategies", name, known.Strategies)
		}
	}
	for _, name := range s.Schedules {
		c.oneOf("space.schedules", name, known.Schedules)
	}
	for _, e := range s.FinetuneEpochs {
		c.must(e > 0 && e <= 1000, "space.finetune.epochs %v: want more than 0, up to 1000", e)
	}
	c.interval("space.sparsity", s.Sparsity, 0, MaxSparsity)
	c.interval("space.finetune.rate", s.FinetuneRate, 1e-9, 10)
	c.must(len(s.Quantize) == 0 && len(s.Distill) == 0, "space.quantize, space.distill: not a field of this version: leave them out")
}

func (c *checker) interval(name string, r *espalierv1.Range, low, high float64) {
	c.must(r.Min >= low && r.Max <= high, "%s {min: %v, max: %v}: want both within %v to %v", name, r.Min, r.Max, low, high)
	c.must(r.Min <= r.Max, "%s {min: %v, max: %v}: want min up to max", name, r.Min, r.Max)
	c.must(!r.Log || r.Min > 0, "%s {min: %v, log: true}: want min above 0 on a logarithmic scale", name, r.Min)
}

func (c *checker) devices(s *espalierv1.JobSpec) {
	seen := map[string]bool{}
	for _, d := range s.Devices {
		c.must(d != "" && len(d) <= 200 && !strings.ContainsAny(d, "/ \t\r\n\x00"), "devices: %q: want a name of at most 200 bytes without slash or space", d)
		c.must(!seen[d], "devices: %q is listed twice", d)
		seen[d] = true
	}
	for _, d := range slices.Sorted(maps.Keys(s.Budgets)) {
		b := s.Budgets[d]
		c.must(seen[d], "budgets.%s: not among devices %v", d, s.Devices)
		c.must(b.GetLatencyNs() >= 0 && b.GetSizeBytes() >= 0, "budgets.%s: negative: want more than 0", d)
		c.must(b.GetAccuracy() >= 0 && b.GetAccuracy() <= 1, "budgets.%s.accuracy %v: want a fraction up to 1, such as 0.88", d, b.GetAccuracy())
	}
}

// slug turns a text into a name: lower-case letters, digits and dashes.
func slug(s string) string {
	s = strings.TrimSuffix(strings.TrimSuffix(s, ".yaml"), ".yml")
	var b strings.Builder
	for _, r := range strings.ToLower(s) {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			b.WriteRune(r)
		case b.Len() > 0:
			b.WriteByte('-')
		}
		if b.Len() == 63 {
			break
		}
	}
	return strings.TrimRight(b.String(), "-")
}
