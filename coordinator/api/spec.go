package api

import (
	"fmt"
	"math"
	"slices"
	"strings"

	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// Bounds of a specification, so that no job can ask for the absurd.
const (
	maxListed = 64
	maxEpochs = 10_000
	maxBatch  = 65_536
	maxTrials = 1_000_000
	maxLayers = 10_000
)

// checks runs checks in order until one fails.
func checks(list ...func() error) error {
	for _, f := range list {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

// checkSpec reports the first field of a specification that cannot be. Clients fill in all defaults.
func checkSpec(s *v1.JobSpec, known Known) error {
	if s == nil {
		return invalid("spec", "", "there")
	}
	return checks(
		func() error { return checkLabel("name", s.GetName()) },
		func() error { return checkModel(s.GetModel(), known) },
		func() error { return checkData(s.GetData()) },
		func() error { return checkTrain(s.GetTrain(), known) },
		func() error { return checkSpace(s.GetSpace(), known) },
		func() error { return checkDevices(s) },
		func() error { return checkSearch(s, known) },
		func() error { return checkStop(s) },
	)
}

// checkLabel checks a name that people give.
func checkLabel(field, name string) error {
	if name == "" || len(name) > 100 {
		return invalid(field, name, "of 1 to 100 bytes")
	}
	for _, r := range name {
		if r < 0x20 || r == 0x7f || r == '/' || r == '\\' {
			return invalid(field, name, "without slashes and control characters")
		}
	}
	return nil
}

func checkHash(field, hash string) error {
	ok := len(hash) == 64
	for _, c := range []byte(hash) {
		ok = ok && (c >= '0' && c <= '9' || c >= 'a' && c <= 'f')
	}
	if !ok {
		return invalid(field, hash, "64 lower-case hexadecimal digits")
	}
	return nil
}

func checkOneOf(field, value string, known []string) error {
	if known != nil && !slices.Contains(known, value) {
		return invalid(field, value, "one of "+strings.Join(known, ", "))
	}
	return nil
}

func checkNumber(field string, v, low, high float64) error {
	if !(v >= low && v <= high) {
		return invalid(field, v, fmt.Sprintf("from %v to %v", low, high))
	}
	return nil
}

func checkModel(m *v1.ModelSpec, known Known) error {
	switch src := m.GetSource().(type) {
	case *v1.ModelSpec_Zoo:
		return checkOneOf("model.zoo", src.Zoo, known.Zoo)
	case *v1.ModelSpec_Onnx:
		return checkHash("model.onnx", src.Onnx)
	case *v1.ModelSpec_Layers:
		if n := len(src.Layers.GetLayers()); n == 0 || n > maxLayers {
			return invalid("model.layers", fmt.Sprintf("%d layers", n), fmt.Sprintf("1 to %d layers", maxLayers))
		}
		return nil
	}
	return invalid("model", "", "one of zoo, onnx, layers")
}

func checkData(d *v1.DataSpec) error {
	if d == nil {
		return invalid("data", "", "there")
	}
	return checkHash("data.hash", d.GetHash())
}

func checkTrain(t *v1.TrainSpec, known Known) error {
	if t == nil {
		return invalid("train", "", "there")
	}
	return checks(
		func() error { return checkNumber("train.epochs", t.GetEpochs(), 1e-3, maxEpochs) },
		func() error { return checkNumber("train.batch", float64(t.GetBatch()), 1, maxBatch) },
		func() error { return checkOneOf("train.optimizer", t.GetOptimizer(), known.Optimizers) },
		func() error { return checkNumber("train.rate", t.GetRate(), 1e-12, 100) },
		func() error { return checkNumber("train.weight_decay", t.GetWeightDecay(), 0, 1) },
	)
}

func checkSpace(s *v1.SpaceSpec, known Known) error {
	if s == nil {
		return invalid("space", "", "there")
	}
	return checks(
		func() error { return checkNames("space.strategies", s.GetStrategies(), known.Strategies, 1) },
		func() error { return checkRange("space.sparsity", s.GetSparsity(), 0, 0.9999) },
		func() error { return checkNames("space.schedules", s.GetSchedules(), known.Schedules, 1) },
		func() error {
			if n := len(s.GetFinetuneEpochs()); n == 0 || n > maxListed {
				return invalid("space.finetune.epochs", fmt.Sprintf("%d values", n), fmt.Sprintf("1 to %d values", maxListed))
			}
			for i, e := range s.GetFinetuneEpochs() {
				if err := checkNumber("space.finetune.epochs", e, 0, maxEpochs); err != nil {
					return err
				}
				if slices.Contains(s.GetFinetuneEpochs()[:i], e) {
					return invalid("space.finetune.epochs", e, "listed once")
				}
			}
			return nil
		},
		func() error { return checkRange("space.finetune.rate", s.GetFinetuneRate(), 1e-12, 100) },
		func() error { return checkNames("space.quantize", s.GetQuantize(), nil, 0) },
		func() error {
			if d := s.GetDistill(); len(d) > 2 || len(d) == 2 && d[0] == d[1] {
				return invalid("space.distill", d, "false, true or both, each once")
			}
			return nil
		},
	)
}

// checkNames checks a list of at least least names, each once.
func checkNames(field string, names, known []string, least int) error {
	if n := len(names); n < least || n > maxListed {
		return invalid(field, fmt.Sprintf("%d values", n), fmt.Sprintf("%d to %d values", least, maxListed))
	}
	for i, name := range names {
		if err := checkOneOf(field, name, known); err != nil {
			return err
		}
		if name == "" || len(name) > 100 || slices.Contains(names[:i], name) {
			return invalid(field, name, "a name that is listed once")
		}
	}
	return nil
}

func checkRange(field string, r *v1.Range, low, high float64) error {
	if r == nil {
		return invalid(field, "", "a range")
	}
	if err := checkNumber(field+".min", r.GetMin(), low, high); err != nil {
		return err
	}
	return checkNumber(field+".max", r.GetMax(), r.GetMin(), high)
}

func checkDevices(s *v1.JobSpec) error {
	if n := len(s.GetDevices()); n == 0 || n > maxListed {
		return invalid("devices", fmt.Sprintf("%d values", n), fmt.Sprintf("1 to %d values", maxListed))
	}
	for i, d := range s.GetDevices() {
		if err := checkLabel("devices", d); err != nil {
			return err
		}
		if slices.Contains(s.GetDevices()[:i], d) {
			return invalid("devices", d, "listed once")
		}
	}
	for d, b := range s.GetBudgets() {
		if !slices.Contains(s.GetDevices(), d) {
			return invalid("budgets", d, "one of the job's devices: "+strings.Join(s.GetDevices(), ", "))
		}
		if err := checkBudget("budgets."+d, b); err != nil {
			return err
		}
	}
	return nil
}

func checkBudget(field string, b *v1.Budget) error {
	return checks(
		func() error { return checkNumber(field+".latency", float64(b.GetLatencyNs()), 0, math.MaxInt64) },
		func() error { return checkNumber(field+".size", float64(b.GetSizeBytes()), 0, math.MaxInt64) },
		func() error { return checkNumber(field+".accuracy", b.GetAccuracy(), 0, 1) },
	)
}

func checkSearch(s *v1.JobSpec, known Known) error {
	c := s.GetSearch()
	return checks(
		func() error { return checkOneOf("search.sampler", c.GetSampler(), known.Samplers) },
		func() error { return checkNumber("search.window", float64(c.GetWindow()), 0, maxTrials) },
		func() error {
			return checkNumber("search.checkpoints", float64(c.GetCheckpointBytes()), 0, math.MaxInt64)
		},
	)
}

func checkStop(s *v1.JobSpec) error {
	st := s.GetStop()
	err := checks(
		func() error { return checkNumber("stop.trials", float64(st.GetTrials()), 0, maxTrials) },
		func() error { return checkNumber("stop.time", float64(st.GetTimeMs()), 0, math.MaxInt64) },
		func() error { return checkNumber("stop.stall", float64(st.GetStall()), 0, maxTrials) },
	)
	switch {
	case err != nil:
		return err
	case st.GetTrials() == 0 && st.GetTimeMs() == 0 && st.GetStall() == 0:
		return invalid("stop", "", "at least one of trials, time, stall")
	case s.GetSearch().GetDeterministic() && st.GetTimeMs() > 0:
		return invalid("stop.time", st.GetTimeMs(), "absent from a deterministic job: how many trials end in time depends on the workers")
	}
	return nil
}
