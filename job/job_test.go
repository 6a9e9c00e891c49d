package job

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

var known = Names{
	Zoo:        []string{"lenet-5", "seed-cnn"},
	Strategies: []string{"magnitude", "channel-l1", "hybrid"},
	Schedules:  []string{"one-shot", "iterative", "polynomial"},
	Samplers:   []string{"auto", "random", "nsga2"},
	Optimizers: []string{"adam", "sgd"},
	Builtins:   []string{"shapes"},
}

const full = `
name: fashion-small
model:   {zoo: seed-cnn}
data:    {path: ./fashion-mnist, seed: 3}
train:   {epochs: 8, batch: 32, optimizer: sgd, rate: 1e-2}
space:
  strategies: [magnitude, hybrid]
  sparsity:   {min: 0.1, max: 0.9}
  schedules:  polynomial
  finetune:   {epochs: [0.5, 2], rate: {min: 1e-4, max: 0.01, log: true}}
devices: [local, pi4]
budgets: {pi4: {latency: 5ms, size: 200KB, accuracy: 0.88}}
search:  {sampler: nsga2, seed: 7, checkpoints: 1.5GB}
stop:    {trials: 200, time: 2h, stall: 60}
`

func TestParse(t *testing.T) {
	f, err := Parse([]byte(full), known)
	if err != nil {
		t.Fatal(err)
	}
	s := f.Spec
	b := s.Budgets["pi4"]
	for name, ok := range map[string]bool{
		"name":       s.Name == "fashion-small",
		"zoo":        s.GetModel().GetZoo() == "seed-cnn",
		"path":       f.Data.Path == "./fashion-mnist" && s.Data.Seed == 3,
		"train":      s.Train.Epochs == 8 && s.Train.Batch == 32 && s.Train.Optimizer == "sgd" && s.Train.Rate == 0.01,
		"strategies": strings.Join(s.Space.Strategies, " ") == "magnitude hybrid",
		"sparsity":   s.Space.Sparsity.Min == 0.1 && s.Space.Sparsity.Max == 0.9 && !s.Space.Sparsity.Log,
		"schedules":  strings.Join(s.Space.Schedules, " ") == "polynomial",
		"finetune":   s.Space.FinetuneEpochs[0] == 0.5 && s.Space.FinetuneRate.Min == 1e-4 && s.Space.FinetuneRate.Log,
		"budget":     b.LatencyNs == int64(5*time.Millisecond) && b.SizeBytes == 200_000 && b.Accuracy == 0.88,
		"search":     s.Search.Sampler == "nsga2" && s.Search.Seed == 7 && s.Search.CheckpointBytes == 1_500_000_000,
		"stop":       s.Stop.Trials == 200 && s.Stop.TimeMs == 7_200_000 && s.Stop.Stall == 60,
	} {
		if !ok {
			t.Errorf("%s was read wrong: %v", name, s)
		}
	}
}

func TestDefaults(t *testing.T) {
	f, err := Parse([]byte("model: {zoo: lenet-5}\ndata: {builtin: shapes}\nspace: {strategies: all, sparsity: 0.5}\n"), known)
	if err != nil {
		t.Fatal(err)
	}
	s := f.Spec
	if s.Stop.Trials != 100 || s.Devices[0] != Local || s.Search.Sampler != "auto" || s.Data.Seed != 1 {
		t.Errorf("defaults are wrong: %v", s)
	}
	if len(s.Space.Strategies) != 3 || s.Space.Sparsity.Min != 0.5 || s.Space.Sparsity.Max != 0.5 {
		t.Errorf("all strategies and a fixed sparsity expected: %v", s.Space)
	}
	again := proto.CloneOf(s)
	Defaults(again, known)
	if !proto.Equal(again, s) {
		t.Error("filling in the defaults twice changes the spec")
	}
}

func TestTrainingFields(t *testing.T) {
	f, err := Parse([]byte(`
model: {zoo: lenet-5}
data: {builtin: shapes}
train: {optimizer: sgd, momentum: 0.9, l1: 1e-5, clip: 2, label_smoothing: 0.1, schedule: polynomial, warm_up: 0.05, weight_decay: 0.01, augment: {shift: 2, flip: true, crop: 0.1}}
`), known)
	if err != nil {
		t.Fatal(err)
	}
	want := &espalierv1.TrainSpec{Epochs: 8, Batch: 64, Optimizer: "sgd", Rate: 0.001, Momentum: 0.9, L1: 1e-5, Clip: 2, LabelSmoothing: 0.1,
		Schedule: "polynomial", WarmUp: 0.05, WeightDecay: 0.01, Augment: &espalierv1.AugmentSpec{Shift: 2, Flip: true, Crop: 0.1}}
	if !proto.Equal(f.Spec.Train, want) {
		t.Errorf("got %v, want %v", f.Spec.Train, want)
	}
}

func TestErrorsNameFieldLineValueAndRemedy(t *testing.T) {
	const base = "model: {zoo: lenet-5}\ndata: {builtin: shapes}\n"
	for _, tc := range []struct {
		name, yaml string
		want       []string
	}{
		//nolint:misspell // the misspelling is what it tests
		{"unknown field", base + "modle: 3\n", []string{"line 3", "modle", `did you mean "model"`}},
		{"field of a later version", base + "space: {distill: [true]}\n", []string{"line 3", "space.distill", "unknown field"}},
		{"quantization", base + "space: {quantize: [int4]}\n", []string{"line 3", "space.quantize", "int4", "none, int8"}},
		{"quantization twice", base + "space: {quantize: [int8, int8]}\n", []string{"line 3", "space.quantize", "twice"}},
		{"nested unknown", base + "train:\n  epoch: 3\n", []string{"line 4", "train.epoch", `did you mean "epochs"`}},
		{"wrong type", base + "train: {batch: many}\n", []string{"train.batch", "many", "whole number"}},
		{"fraction", base + "train: {batch: 1.5}\n", []string{"train.batch", "1.5", "whole number"}},
		{"quoted number", base + "train: {epochs: \"3\"}\n", []string{"train.epochs", "above 0"}},
		{"mapping for word", base + "name: {a: b}\n", []string{"name", "want a name"}},
		{"word for mapping", base + "train: fast\n", []string{"train", "fast", "want fields"}},
		{"unknown network", "model: {zoo: lenet5}\ndata: {builtin: shapes}\n", []string{"line 1", "model.zoo", `did you mean "lenet-5"`}},
		{"no model", "data: {builtin: shapes}\n", []string{"model", "missing"}},
		{"no data", "model: {zoo: lenet-5}\n", []string{"data", "missing"}},
		{"two sources", "model: {zoo: lenet-5}\ndata: {builtin: shapes, path: x}\n", []string{"line 2", "exactly one"}},
		{"given twice", base + "name: a\nname: b\n", []string{"name"}},
		{"no value", base + "train:\n", []string{"train", "no value"}},
		{"null", base + "train: {epochs: null}\n", []string{"train.epochs", "no value"}},
		{"empty list", base + "devices: []\n", []string{"devices", "empty list"}},
		{"min over max", base + "space: {sparsity: {min: 0.9, max: 0.1}}\n", []string{"space.sparsity", "0.9", "min up to max"}},
		{"sparsity of one", base + "space: {sparsity: {min: 0, max: 1}}\n", []string{"space.sparsity", "0.999"}},
		{"half a range", base + "space: {sparsity: {min: 0}}\n", []string{"space.sparsity", "max is missing"}},
		{"log from zero", base + "space: {sparsity: {min: 0, max: 0.5, log: true}}\n", []string{"min above 0"}},
		{"time without unit", base + "stop: {time: 5}\n", []string{"stop.time", "unit"}},
		{"negative time", base + "stop: {time: -5s}\n", []string{"stop.time", "above 0"}},
		{"size unit", base + "budgets: {local: {size: 5 bananas}}\n", []string{"budgets.local.size", "bananas", "200KB"}},
		{"accuracy in percent", base + "budgets: {local: {accuracy: 88}}\n", []string{"accuracy: 88", "0.88"}},
		{"budget of no device", base + "budgets: {pi4: {size: 1MB}}\n", []string{"budgets.pi4", "not among devices"}},
		{"device twice", base + "devices: [a, a]\n", []string{"listed twice"}},
		{"strategy twice", base + "space: {strategies: [hybrid, hybrid]}\n", []string{"listed twice"}},
		{"all and one", base + "space: {strategies: [all, hybrid]}\n", []string{"want it alone"}},
		{"contradiction", base + "search: {deterministic: true}\nstop: {time: 1h}\n", []string{"stop.time", "deterministic"}},
		{"window alone", base + "search: {window: 4}\n", []string{"search.window", "deterministic"}},
		{"no trials", base + "stop: {trials: 0}\n", []string{"stop.trials", "1 to 1000000"}},
		{"momentum of adam", base + "train: {momentum: 0.9}\n", []string{"train.momentum", "0.9", "sgd"}},
		{"momentum", base + "train: {optimizer: sgd, momentum: 1}\n", []string{"train.momentum", "below 1"}},
		{"schedule of the rate", base + "train: {schedule: cosin}\n", []string{"train.schedule", `did you mean "cosine"`}},
		{"warm-up in epochs", base + "train: {warm_up: 2}\n", []string{"train.warm_up", "part of the training"}},
		{"negative clip", base + "train: {clip: -1}\n", []string{"train.clip", "-1"}},
		{"negative l1", base + "train: {l1: -1}\n", []string{"train.l1", "-1"}},
		{"smoothing", base + "train: {label_smoothing: 1}\n", []string{"train.label_smoothing", "below 1"}},
		{"augmentation", base + "train: {augment: {rotate: 3}}\n", []string{"train.augment.rotate", "shift, flip, crop"}},
		{"shift", base + "train: {augment: {shift: 0.5}}\n", []string{"train.augment.shift", "whole number"}},
		{"crop", base + "train: {augment: {crop: 1}}\n", []string{"train.augment.crop", "0.9"}},
		{"infinite rate", base + "train: {rate: .inf}\n", []string{"train.rate"}},
		{"name", base + "name: \"a b\"\n", []string{"name", "dashes"}},
		{"list for root", "- a\n", []string{"want fields"}},
		{"alias", "model: &m {zoo: lenet-5}\ndata: *m\n", []string{"want"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Parse([]byte(tc.yaml), known)
			if !errors.Is(err, ErrField) && !errors.Is(err, ErrSyntax) {
				t.Fatalf("got %v, want one of the package's sentinels", err)
			}
			for _, w := range tc.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error does not say %q:\n%v", w, err)
				}
			}
		})
	}
}

func TestLayers(t *testing.T) {
	const text = `
data: {builtin: shapes}
model:
  layers:
    - {op: conv, out: 8, kernel: 3, padding: same, norm: true, activation: relu}
    - {op: depthwise-conv, kernel: [3, 5], stride: 2, bias: false, name: dw}
    - {op: global-avg-pool, from: [dw]}
    - {op: dense}
`
	f, err := Parse([]byte(text), known)
	if err != nil {
		t.Fatal(err)
	}
	l := f.Spec.Model.GetLayers().Layers
	if len(l) != 4 || l[0].Out != 8 || l[0].Kernel[1] != 3 || !l[0].Norm || l[0].Bias != nil || l[0].Activation != "relu" {
		t.Errorf("the first layer was read wrong: %v", l)
	}
	if l[1].Kernel[1] != 5 || l[1].Stride[0] != 2 || l[1].GetBias() || l[1].Bias == nil || l[2].Inputs[0] != "dw" {
		t.Errorf("a layer was read wrong: %v", l)
	}
	for text, want := range map[string]string{
		"[{out: 3}]":                      "op is missing",
		"[{op: conv, kernel: [1, 2, 3]}]": "one number, or two",
		"[{op: conv, kernal: 3}]":         `did you mean "kernel"`,
		"[{op: conv, out: 0}]":            "model.layers[0].out: 0",
		"[conv]":                          "model.layers[0]",
		"[{op: conv}]\n  zoo: lenet-5":    "exactly one of zoo and layers",
	} {
		_, err := Parse([]byte(strings.ReplaceAll("data: {builtin: shapes}\nmodel:\n  layers: "+text+"\n", "\\n", "\n")), known)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}

func TestAllErrorsAtOnce(t *testing.T) {
	_, err := Parse([]byte("model: {zoo: x}\ndata: {builtin: y}\ntrain: {batch: no}\n"), known)
	if n := len(strings.Split(err.Error(), "\n")); n != 3 {
		t.Errorf("got %d errors, want 3:\n%v", n, err)
	}
}

func TestSyntax(t *testing.T) {
	for name, b := range map[string]string{
		"empty": "", "comment": "# nothing\n", "broken": "a: [", "two documents": full + "---\n" + full,
		"deep flow": strings.Repeat("[", 5000), "deep block": strings.Repeat(" ", 4000) + "a: 1",
		"large": strings.Repeat("#", MaxFileBytes+1),
	} {
		if _, err := Parse([]byte(b), known); !errors.Is(err, ErrSyntax) {
			t.Errorf("%s: got %v, want ErrSyntax", name, err)
		}
	}
}

func TestLoadCountsPathFromFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "My Job.yaml")
	if err := os.WriteFile(path, []byte("model: {zoo: lenet-5}\ndata: {path: d}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Load(path, known)
	if err != nil {
		t.Fatal(err)
	}
	if f.Data.Path != filepath.Join(dir, "d") || f.Spec.Name != "my-job" {
		t.Errorf("got path %q and name %q", f.Data.Path, f.Spec.Name)
	}
	if _, err := Load(dir, known); !errors.Is(err, ErrSyntax) {
		t.Errorf("a folder: got %v", err)
	}
}

func TestUnits(t *testing.T) {
	for s, want := range map[string]int64{"1": 1, "200KB": 200_000, "1.5 MB": 1_500_000, "2GB": 2_000_000_000, "1KiB": 1024, "7B": 7} {
		if got, err := ParseSize(s); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "KB", "-1KB", "0", "1e300GB", "NaN", "3 TB"} {
		if got, err := ParseSize(s); err == nil {
			t.Errorf("ParseSize(%q) = %d, want an error", s, got)
		}
	}
	for n, want := range map[int64]string{12: "12 B", 1234: "1.23 KB", 122570: "123 KB", 999_600: "1 MB", 5_000_000_000: "5 GB"} {
		if got := FormatSize(n); got != want {
			t.Errorf("FormatSize(%d) = %q, want %q", n, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(full))
	f.Add([]byte("a: &x [*x]\n"))
	f.Add([]byte("? a\n: b\n"))
	f.Add([]byte("model: !!binary x\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := Parse(b, known)
		if err != nil {
			return
		}
		if err := Validate(file.Spec, known); err != nil {
			t.Fatalf("accepted, then refused: %v", err)
		}
	})
}
