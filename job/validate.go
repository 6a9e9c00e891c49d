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

// Quantizations that a trial's files can have.
const (
	QuantizeNone = "none" // float32
	QuantizeInt8 = "int8" // int8 weights, uint8 activations, where the network allows
)

var quantizations = []string{QuantizeNone, QuantizeInt8}

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
	if len(sp.Quantize) == 0 {
		sp.Quantize = []string{QuantizeNone}
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

// Validate checks a spec whose defaults are filled in. Errors are *FieldError,
// joined.
func Validate(s *espalierv1.JobSpec, known Names) error {
	c := &checker{}
	c.must(s.Name == "" || slug(s.Name) == s.Name, "name", s.Name, "want lower-case letters, digits and dashes, at most 63")
	c.model(s.Model, known)
	c.train(s.Train, known)
	c.space(s.Space, known)
	c.devices(s)
	c.search(s.Search, known)
	c.stop(s)
	return errors.Join(c.errs...)
}

type checker struct{ errs []error }

func (c *checker) must(ok bool, field string, value any, want string, args ...any) {
	if !ok {
		c.errs = append(c.errs, &FieldError{Field: field, Value: shorten(fmt.Sprint(value)), Want: fmt.Sprintf(want, args...)})
	}
}

func shorten(s string) string {
	if len(s) > 100 {
		return s[:100] + "…"
	}
	return s
}

func (c *checker) oneOf(field, v string, allowed []string) {
	c.must(allowed == nil || slices.Contains(allowed, v), field, fmt.Sprintf("%q", v), "want one of: %s", strings.Join(allowed, ", "))
}

// number wants low ≤ v ≤ high; NaN is neither.
func (c *checker) number(field string, v, low, high float64) {
	c.must(v >= low && v <= high, field, v, "want %v to %v", low, high)
}

func (c *checker) model(m *espalierv1.ModelSpec, known Names) {
	switch src := m.GetSource().(type) {
	case *espalierv1.ModelSpec_Zoo:
		c.oneOf("model.zoo", src.Zoo, known.Zoo)
	case *espalierv1.ModelSpec_Layers:
		n := len(src.Layers.GetLayers())
		c.must(n >= 1 && n <= maxLayers, "model.layers", n, "want 1 to %d layers", maxLayers)
	default:
		c.must(false, "model", m, "want zoo or layers")
	}
}

// Bounds of what a job may ask for.
const (
	maxLayers = 1000
	maxListed = 64
	maxEpochs = 10_000
	maxTrials = 1_000_000
	leastRate = 1e-9
	mostRate  = 10
	maxShift  = 256
)

func (c *checker) train(t *espalierv1.TrainSpec, known Names) {
	c.number("train.epochs", t.Epochs, 1e-3, maxEpochs)
	c.number("train.batch", float64(t.Batch), 1, 1<<16)
	c.number("train.rate", t.Rate, leastRate, mostRate)
	c.number("train.weight_decay", t.WeightDecay, 0, 1)
	c.oneOf("train.optimizer", t.Optimizer, known.Optimizers)
	c.must(t.Momentum >= 0 && t.Momentum < 1, "train.momentum", t.Momentum, "want 0 or more and below 1")
	c.must(t.Momentum == 0 || t.Optimizer == "sgd", "train.momentum", t.Momentum, "want 0 unless train.optimizer is sgd")
	c.number("train.l1", t.L1, 0, 1)
	c.number("train.clip", t.Clip, 0, 1e6)
	c.must(t.LabelSmoothing >= 0 && t.LabelSmoothing < 1, "train.label_smoothing", t.LabelSmoothing, "want 0 or more and below 1")
	c.must(t.WarmUp >= 0 && t.WarmUp < 1, "train.warm_up", t.WarmUp, "want a part of the training: 0 or more and below 1")
	if t.Schedule != "" {
		c.oneOf("train.schedule", t.Schedule, rateSchedules)
	}
	if a := t.Augment; a != nil {
		c.number("train.augment.shift", float64(a.Shift), 0, maxShift)
		c.number("train.augment.crop", a.Crop, 0, 0.9)
	}
}

// rateSchedules are how a learning rate can change over a training.
var rateSchedules = []string{"constant", "step", "cosine", "polynomial"}

func (c *checker) space(s *espalierv1.SpaceSpec, known Names) {
	c.must(len(s.Strategies) == 1 || !slices.Contains(s.Strategies, All), "space.strategies", All, "want it alone, or names")
	c.names("space.strategies", s.Strategies, known.Strategies)
	c.names("space.schedules", s.Schedules, known.Schedules)
	c.must(len(s.FinetuneEpochs) <= maxListed, "space.finetune.epochs", len(s.FinetuneEpochs), "want at most %d values", maxListed)
	for i, e := range s.FinetuneEpochs {
		c.number("space.finetune.epochs", e, 1e-3, maxEpochs)
		c.must(!slices.Contains(s.FinetuneEpochs[:i], e), "space.finetune.epochs", e, "is listed twice")
	}
	c.interval("space.sparsity", s.Sparsity, 0, MaxSparsity)
	c.interval("space.finetune.rate", s.FinetuneRate, leastRate, mostRate)
	c.names("space.quantize", s.Quantize, quantizations)
	c.must(len(s.Distill) == 0, "space.distill", s.Distill, "not a field of this version: leave it out")
}

// names checks a list of known names, each once.
func (c *checker) names(field string, names, known []string) {
	c.must(len(names) <= maxListed, field, len(names), "want at most %d values", maxListed)
	for i, name := range names {
		if name != All {
			c.oneOf(field, name, known)
		}
		c.must(!slices.Contains(names[:i], name), field, name, "is listed twice")
	}
}

func (c *checker) interval(field string, r *espalierv1.Range, low, high float64) {
	value := fmt.Sprintf("{min: %v, max: %v}", r.Min, r.Max)
	c.must(r.Min >= low && r.Max <= high, field, value, "want both within %v to %v", low, high)
	c.must(r.Min <= r.Max, field, value, "want min up to max")
	c.must(!r.Log || r.Min > 0, field, value, "want min above 0 on a logarithmic scale")
}

func (c *checker) devices(s *espalierv1.JobSpec) {
	c.must(len(s.Devices) <= maxListed, "devices", len(s.Devices), "want at most %d", maxListed)
	for i, d := range s.Devices {
		c.must(d != "" && len(d) <= 200 && !strings.ContainsAny(d, "/ \t\r\n\x00"), "devices", fmt.Sprintf("%q", d), "want a name of at most 200 bytes without slash or space")
		c.must(!slices.Contains(s.Devices[:i], d), "devices", d, "is listed twice")
	}
	for _, d := range slices.Sorted(maps.Keys(s.Budgets)) {
		c.must(slices.Contains(s.Devices, d), "budgets."+d, "", "not among devices %v", s.Devices)
		c.budget("budgets."+d, s.Budgets[d])
	}
}

// ValidateBudget checks the limits of a request; errors are *FieldError, joined.
func ValidateBudget(field string, b *espalierv1.Budget) error {
	c := &checker{}
	c.budget(field, b)
	return errors.Join(c.errs...)
}

func (c *checker) budget(field string, b *espalierv1.Budget) {
	c.must(b.GetLatencyNs() >= 0, field+".latency", b.GetLatencyNs(), "want 0 or more")
	c.must(b.GetSizeBytes() >= 0, field+".size", b.GetSizeBytes(), "want 0 or more")
	a := b.GetAccuracy()
	c.must(a >= 0 && a <= 1, field+".accuracy", a, "want a fraction up to 1, such as 0.88")
}

func (c *checker) search(s *espalierv1.SearchSpec, known Names) {
	c.oneOf("search.sampler", s.Sampler, known.Samplers)
	c.number("search.window", float64(s.Window), 0, 1024)
	c.must(s.Deterministic || s.Window == 0, "search.window", s.Window, "want search.deterministic with it")
	c.must(s.CheckpointBytes > 0, "search.checkpoints", s.CheckpointBytes, "want more than 0")
}

func (c *checker) stop(s *espalierv1.JobSpec) {
	st := s.Stop
	c.number("stop.trials", float64(st.Trials), 0, maxTrials)
	c.number("stop.stall", float64(st.Stall), 0, maxTrials)
	c.must(st.TimeMs >= 0, "stop.time", st.TimeMs, "want more than 0")
	c.must(st.Trials > 0 || st.Stall > 0 || st.TimeMs > 0, "stop", "no rule", "want trials, time or stall")
	c.must(!s.Search.Deterministic || st.TimeMs == 0, "stop.time", st.TimeMs,
		"not with search.deterministic, since time depends on the machines: want trials or stall")
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
