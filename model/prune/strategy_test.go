package prune

import (
	"errors"
	"math"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/modeltest"
)

func lookup(t testing.TB, name string) Strategy {
	t.Helper()
	s, err := Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// gradients gives every weight a gradient, from its position.
func gradients(g *model.Graph) map[string]*model.Tensor {
	out := map[string]*model.Tensor{}
	for _, l := range g.Layers {
		if w := l.Params[model.Weight]; w != nil {
			out[l.Name] = model.NewTensor(w.Shape...)
			for k := range w.Data {
				out[l.Name].Data[k] = float32(k%7) - 3
			}
		}
	}
	return out
}

// Every strategy, on random graphs and targets: the plan is deterministic, fits, and
// removes as much as was asked for, up to what must stay.
func TestStrategiesConform(t *testing.T) {
	for _, name := range Names() {
		t.Run(name, func(t *testing.T) {
			s := lookup(t, name)
			info := s.Info()
			if info.Name != name || info.Summary == "" || info.Source == "" || !info.Structured && !info.Unstructured {
				t.Errorf("info %+v", info)
			}
			both, channels := strings.HasPrefix(name, "hybrid"), strings.HasPrefix(name, "channel-")
			if info.Structured != (both || channels) || info.Unstructured == channels {
				t.Errorf("the name says otherwise than %+v", info)
			}
			for seed := range uint64(60) {
				g := modeltest.Graph(seed)
				groups := groupsOf(t, g)
				level := float64(seed%11) / 10
				target := Uniform(groups, level, 1-level)
				if !info.Structured {
					target.Channels = nil
				}
				if !info.Unstructured {
					target.Weights = nil
				}
				in := Input{Graph: g, Target: target, Seed: seed, Gradients: gradients(g)}
				p, err := s.Plan(in)
				if err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				if again, err := s.Plan(in); err != nil || !reflect.DeepEqual(p, again) {
					t.Fatalf("seed %d: planned again, it differs: %v", seed, err)
				}
				small, masks, err := Rebuild(g, p)
				if err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				checkChannels(t, seed, groups, groupsOf(t, small), target)
				checkWeights(t, seed, small, masks, name, target)
			}
		})
	}
}

func checkChannels(t *testing.T, seed uint64, was, is []Group, target Target) {
	t.Helper()
	for k, g := range was {
		want := g.Channels - count(target.Channels[g.Name], g.Channels)
		if got := is[k].Channels; got < want || (got > want && target.Channels[g.Name] < 0.6 && len(g.Producers) == 1 && want > 1) {
			t.Fatalf("seed %d: group %q has %d of %d channels at %v", seed, g.Name, got, g.Channels, target.Channels[g.Name])
		}
	}
}

func checkWeights(t *testing.T, seed uint64, g *model.Graph, masks *Masks, strategy string, target Target) {
	t.Helper()
	held, want := 0, 0
	for _, x := range groupsOf(t, g) {
		s := target.Weights[x.Name]
		for _, i := range x.Producers {
			n, mask := len(g.Layers[i].Params[model.Weight].Data), masks.Of(g.Layers[i].Name)
			zeros := 0
			for _, keep := range mask {
				if !keep {
					zeros++
				}
			}
			if s > 0 && zeros == n {
				t.Fatalf("seed %d: layer %q lost all its weights", seed, g.Layers[i].Name)
			}
			held += zeros
			want += count(s, n)
			slack := 0
			if strings.Contains(strategy, "block") {
				slack = blockHeight
			}
			if off := zeros - min(count(s, n), n-1); !strings.Contains(strategy, "global") && (off > slack || off < -slack) {
				t.Fatalf("seed %d: layer %q: %d of %d weights at zero at %v", seed, g.Layers[i].Name, zeros, n, s)
			}
		}
	}
	if strategy == "magnitude-global" && (held > want || held < want-len(g.Layers)) {
		t.Fatalf("seed %d: %d weights at zero, want %d", seed, held, want)
	}
}

// net is a chain of two convolutions and a fully connected layer with given weights.
func net(t *testing.T, first, second []float32) *model.Graph {
	t.Helper()
	g := graph(model.Shape{1, 1, 2}, layer("a", conv(4, 1, 1), -1), layer("bn", model.BatchNorm{Epsilon: 1e-3}, 0), layer("b", conv(2, 1, 1), 1),
		layer("flat", model.Flatten{}, 2), layer("fc", model.Dense{Out: 2}, 3))
	copy(g.Layers[0].Params[model.Weight].Data, first)
	copy(g.Layers[2].Params[model.Weight].Data, second)
	copy(g.Layers[1].Params[model.Scale].Data, []float32{3, -0.1, 2, 0.5})
	return g
}

func TestChannelChoices(t *testing.T) {
	// Filters are columns: L1 4, 5, 3, 6; L2 4, 3.6, 3, 4.5.
	g := net(t, []float32{0, 2, 3, 2, -4, -3, 0, 4}, []float32{1, 1, 1, 1, 1, 1, 1, 1})
	equal := net(t, []float32{1, -1, 1, 1, 1, 1, -1, 1}, []float32{1, 1, 1, 1, 1, 1, 1, 1})
	near := net(t, []float32{0, 10, 1, -9, 0, 0, 0, 0}, []float32{1, 1, 1, 1, 1, 1, 1, 1})
	for _, tt := range []struct {
		strategy string
		g        *model.Graph
		sparsity float64
		want     []int
	}{
		{"channel-l1", g, 0.25, []int{0, 1, 3}},
		{"channel-l1", g, 0.5, []int{1, 3}},
		{"channel-l1", g, 1, []int{3}},
		{"channel-l1", g, 0.1, []int{0, 1, 2, 3}},
		{"channel-l1", equal, 0.5, []int{2, 3}},
		{"channel-l2", g, 0.5, []int{0, 3}},
		{"channel-bn-scale", g, 0.5, []int{0, 2}},
		{"channel-fpgm", near, 0.5, []int{1, 3}},
		{"hybrid", g, 0.5, []int{1, 3}},
	} {
		p, err := lookup(t, tt.strategy).Plan(Input{Graph: tt.g, Target: Target{Channels: map[string]float64{"a": tt.sparsity}}})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(p.Keep["a"], tt.want) {
			t.Errorf("%s at %v: kept %v, want %v", tt.strategy, tt.sparsity, p.Keep["a"], tt.want)
		}
	}
}

func TestTaylorFollowsGradients(t *testing.T) {
	g := net(t, []float32{1, 1, 1, 1, 1, 1, 1, 1}, []float32{1, 1, 1, 1, 1, 1, 1, 1})
	d := gradients(g)
	d["a"].Data = []float32{5, 1, 0, 3, -5, 1, 0.1, 3} // products add up to 0, 2, 0.1, 6
	in := Input{Graph: g, Gradients: d, Target: Target{Channels: map[string]float64{"a": 0.5}}}
	p, err := lookup(t, "channel-taylor").Plan(in)
	if err != nil || !slices.Equal(p.Keep["a"], []int{1, 3}) {
		t.Errorf("kept %v, error %v", p.Keep["a"], err)
	}
	for name, change := range map[string]func(){
		"not finite":    func() { d["a"].Data[0] = float32(math.NaN()) },
		"another shape": func() { d["a"] = model.NewTensor(3) },
		"missing":       func() { delete(d, "a") },
	} {
		d["a"] = model.NewTensor(1, 1, 2, 4)
		change()
		if _, err := lookup(t, "channel-taylor").Plan(in); !errors.Is(err, ErrWeights) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func masksOf(t *testing.T, strategy string, g *model.Graph, target Target) *Masks {
	t.Helper()
	p, err := lookup(t, strategy).Plan(Input{Graph: g, Target: target})
	if err != nil {
		t.Fatal(err)
	}
	return p.Masks
}

func zerosIn(keep []bool) []int {
	var out []int
	for k, v := range keep {
		if !v {
			out = append(out, k)
		}
	}
	return out
}

func TestWeightChoices(t *testing.T) {
	g := net(t, []float32{8, -1, 6, 5, -4, 3, 2, 7}, []float32{1, -0.5, 3, 4, 5, 6, 7, 8})
	weights := func(a, b float64) Target { return Target{Weights: map[string]float64{"a": a, "b": b}} }
	for _, tt := range []struct {
		name, strategy string
		target         Target
		a, b           []int
	}{
		{"per layer", "magnitude", weights(0.5, 0.25), []int{1, 4, 5, 6}, []int{0, 1}},
		{"one layer only", "magnitude", weights(0.25, 0), []int{1, 6}, nil},
		{"all but one", "magnitude", weights(1, 0), []int{1, 2, 3, 4, 5, 6, 7}, nil},
		{"global", "magnitude-global", weights(0.25, 0.25), []int{1, 6}, []int{0, 1}},
		{"global, unequal", "magnitude-global", weights(0, 0.5), nil, []int{0, 1, 2, 3}},
		{"blocks", "block-4x1", weights(0.5, 0), []int{4, 5, 6, 7}, nil},
		{"narrow blocks", "block-4x1", weights(0, 0.5), nil, []int{0, 1, 2, 3}},
		{"blocks, nearest", "block-4x1", weights(0.15, 0), nil, nil},
		{"hybrid", "hybrid", Target{Channels: map[string]float64{"a": 0.5}, Weights: map[string]float64{"a": 0.5, "b": 0.25}}, []int{3, 4}, []int{1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := masksOf(t, tt.strategy, g, tt.target)
			if a, b := zerosIn(m.Of("a")), zerosIn(m.Of("b")); !slices.Equal(a, tt.a) || !slices.Equal(b, tt.b) {
				t.Errorf("zero are %v and %v, want %v and %v", a, b, tt.a, tt.b)
			}
		})
	}
}

func TestGlobalKeepsOneWeightOfEachLayer(t *testing.T) {
	g := net(t, []float32{1, 1, 1, 1, 1, 1, 1, 1}, []float32{9, 9, 9, 9, 9, 9, 9, 9})
	m := masksOf(t, "magnitude-global", g, Target{Weights: map[string]float64{"a": 1, "b": 1}})
	if a, b := len(zerosIn(m.Of("a"))), len(zerosIn(m.Of("b"))); a != 7 || b != 7 {
		t.Errorf("%d and %d of 8 are zero", a, b)
	}
}

func TestRandomChannelsFollowTheSeed(t *testing.T) {
	g := build(t, "seed-cnn", model.Shape{32, 32, 3}, 10)
	plan := func(seed uint64) *Plan {
		p, err := lookup(t, "channel-random").Plan(Input{Graph: g, Seed: seed, Target: Uniform(groupsOf(t, g), 0.5, 0)})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	if a, b := plan(1), plan(2); reflect.DeepEqual(a.Keep, b.Keep) || slices.Equal(a.Keep["conv2"], a.Keep["conv3"]) {
		t.Error("two seeds, or two groups, remove the same")
	}
}

func TestPlanErrors(t *testing.T) {
	g := build(t, "seed-cnn", model.Shape{32, 32, 3}, 10)
	channels := func(name string, v float64) Target { return Target{Channels: map[string]float64{name: v}} }
	weights := func(name string, v float64) Target { return Target{Weights: map[string]float64{name: v}} }
	for _, tt := range []struct {
		name, strategy string
		target         Target
		want           error
	}{
		{"unknown group", "channel-l1", channels("conv9", 0.5), ErrTarget},
		{"not a group's first", "magnitude", weights("relu1", 0.5), ErrTarget},
		{"above one", "channel-l1", channels("conv1", 1.1), ErrTarget},
		{"negative", "magnitude", weights("conv1", -0.1), ErrTarget},
		{"not a number", "magnitude", weights("conv1", math.NaN()), ErrTarget},
		{"weights of a channel strategy", "channel-l1", weights("conv1", 0.5), ErrTarget},
		{"channels of a weight strategy", "magnitude", channels("conv1", 0.5), ErrTarget},
		{"channels of the output", "channel-l1", channels("fc2", 0.5), ErrTarget},
		{"none of the output", "channel-l1", channels("fc2", 0), nil},
		{"weights of the output", "hybrid", weights("fc2", 0.5), nil},
		{"nothing", "hybrid", Target{}, nil},
	} {
		if _, err := lookup(t, tt.strategy).Plan(Input{Graph: g, Target: tt.target}); !errors.Is(err, tt.want) {
			t.Errorf("%s: error %v: want %v", tt.name, err, tt.want)
		}
	}
	g.Layers[0].Params[model.Bias].Data[0] = float32(math.Inf(1))
	if _, err := lookup(t, "hybrid").Plan(Input{Graph: g}); !errors.Is(err, ErrWeights) {
		t.Errorf("an infinite bias: error %v", err)
	}
	if _, err := Lookup("magic"); !errors.Is(err, ErrStrategy) {
		t.Errorf("an unknown strategy: error %v", err)
	}
}

func TestApplicable(t *testing.T) {
	cnn, res := build(t, "seed-cnn", model.Shape{32, 32, 3}, 10), build(t, "resnet-8", model.Shape{32, 32, 3}, 10)
	linear := graph(model.Shape{3}, layer("fc", model.Dense{Out: 2}, -1))
	empty := graph(model.Shape{3}, layer("r", model.Activation{Func: model.ReLU}, -1))
	for _, tt := range []struct {
		strategy string
		g        *model.Graph
		want     error
	}{
		{"channel-l1", cnn, nil}, {"channel-l1", linear, ErrNotApplicable}, {"magnitude", linear, nil}, {"hybrid", linear, nil},
		{"magnitude", empty, ErrNotApplicable}, {"channel-bn-scale", cnn, ErrNotApplicable}, {"channel-bn-scale", res, nil},
		{"magnitude", &model.Graph{}, model.ErrGraph},
	} {
		if err := lookup(t, tt.strategy).Applicable(tt.g); !errors.Is(err, tt.want) {
			t.Errorf("%s: error %v: want %v", tt.strategy, err, tt.want)
		}
	}
}

// docs/strategies.md has one row for each strategy, with its name, summary and source.
func TestStrategiesAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/strategies.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range Names() {
		info := lookup(t, name).Info()
		if row := "| `" + name + "` | " + info.Summary + " | " + info.Source + " |"; !strings.Contains(string(doc), row) {
			t.Errorf("docs/strategies.md lacks the row\n%s", row)
		}
	}
}
