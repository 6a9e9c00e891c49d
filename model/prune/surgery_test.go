package prune

import (
	"errors"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/modeltest"
	"github.com/espalier-ml/espalier/model/zoo"
)

// randomPlan removes about a fraction of every prunable group and masks weights.
func randomPlan(t testing.TB, g *model.Graph, seed uint64) *Plan {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 2))
	p := &Plan{Keep: map[string][]int{}, Masks: &Masks{}}
	for _, x := range groupsOf(t, g) {
		if x.Prunable && r.IntN(5) > 0 {
			scores := make([]float64, x.Channels)
			for c := range scores {
				scores[c] = r.Float64()
			}
			p.Keep[x.Name] = x.choose(scores, 1+r.IntN(x.Channels))
		}
		for _, i := range x.Producers {
			if r.IntN(2) == 0 {
				keep := make([]bool, len(g.Layers[i].Params[model.Weight].Data))
				for k := range keep {
					keep[k] = r.IntN(2) == 0
				}
				p.Masks.Set(g.Layers[i].Name, keep)
			}
		}
	}
	return p
}

// masked is what the rebuilt graph must compute: g with the masked weights zero, and
// with zero for every weight that reads a removed channel.
func masked(t testing.TB, g *model.Graph, p *Plan) (*model.Graph, *surgery) {
	t.Helper()
	a, err := analyse(g)
	if err != nil {
		t.Fatal(err)
	}
	s, err := a.surgery(p)
	if err != nil {
		t.Fatal(err)
	}
	m := g.Clone()
	if err := p.Masks.Apply(m); err != nil {
		t.Fatal(err)
	}
	for i := range m.Layers {
		w := m.Layers[i].Params[model.Weight]
		if w == nil {
			continue
		}
		stays := map[int]bool{}
		for _, c := range s.keptInputs(i) {
			stays[c] = true
		}
		out := w.Shape[len(w.Shape)-1]
		for k := range w.Data {
			in := k / out // of a fully connected layer
			if o, ok := m.Layers[i].Op.(model.Conv); ok {
				width := w.Shape[2]
				in = k/out%width + k%out/(out/o.Groups)*width
			}
			if !stays[in] {
				w.Data[k] = 0
			}
		}
	}
	return m, s
}

// The rebuilt graph computes, in every layer and bit for bit, what the masked one does.
func TestRebuildComputesWhatTheMaskedGraphDoes(t *testing.T) {
	removed := 0
	for seed := range uint64(600) {
		g := modeltest.Graph(seed)
		before := g.Clone()
		p := randomPlan(t, g, seed)
		small, masks, err := Rebuild(g, p)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if !reflect.DeepEqual(g, before) {
			t.Fatalf("seed %d: the original changed", seed)
		}
		if err := masks.Check(small); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		want, s := masked(t, g, p)
		x := modeltest.Example(g, seed)
		wants, err := modeltest.Run(want, x)
		if err != nil {
			t.Fatal(err)
		}
		got, err := modeltest.Run(small, x)
		if err != nil {
			t.Fatal(err)
		}
		for i := range got {
			var kept []float32
			width := len(s.a.out[i])
			for at := 0; at < len(wants[i]); at += width {
				for _, c := range s.kept[i] {
					kept = append(kept, wants[i][at+c])
				}
			}
			removed += len(wants[i]) - len(got[i])
			if !slices.Equal(got[i], kept) {
				t.Fatalf("seed %d: layer %d, %s: got %v, want %v", seed, i, g.Layers[i].Name, got[i], kept)
			}
		}
	}
	if removed < 10000 {
		t.Errorf("only %d values of all outputs were removed: too few to say much", removed)
	}
}

// Names and order of groups stay, and counts are what was kept.
func TestRebuildKeepsGroups(t *testing.T) {
	for seed := range uint64(200) {
		g := modeltest.Graph(seed)
		p := randomPlan(t, g, seed)
		small, _, err := Rebuild(g, p)
		if err != nil {
			t.Fatal(err)
		}
		was, is := groupsOf(t, g), groupsOf(t, small)
		if len(was) != len(is) {
			t.Fatalf("seed %d: %d groups became %d", seed, len(was), len(is))
		}
		for k := range was {
			want := was[k].Channels
			if keep, ok := p.Keep[was[k].Name]; ok {
				want = len(keep)
			}
			if is[k].Name != was[k].Name || is[k].Channels != want || !slices.Equal(is[k].Producers, was[k].Producers) {
				t.Fatalf("seed %d: group %q with %d channels became %q with %d, want %d", seed, was[k].Name, was[k].Channels, is[k].Name, is[k].Channels, want)
			}
		}
	}
}

func TestRebuildShapes(t *testing.T) {
	g := build(t, "resnet-8", model.Shape{32, 32, 3}, 10)
	small, _, err := Rebuild(g, &Plan{Keep: map[string][]int{"conv1": {0, 3, 5}, "conv6": {1}, "conv7": {2, 63}}})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]model.Shape{
		"conv1": {3, 3, 3, 3}, "conv2": {3, 3, 3, 16}, "conv3": {3, 3, 16, 3}, "shortcut1": {1, 1, 3, 32},
		"conv6": {3, 3, 32, 1}, "conv7": {3, 3, 1, 2}, "shortcut2": {1, 1, 32, 2}, "fc1": {2, 10},
	} {
		i, _ := small.Index(name)
		if got := small.Layers[i].Params[model.Weight].Shape; !got.Equal(want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	if c, err := small.Cost(); err != nil || c.Params >= 40000 {
		t.Errorf("cost %+v, error %v", c, err)
	}
}

func TestRebuildErrors(t *testing.T) {
	g := build(t, "seed-cnn", model.Shape{32, 32, 3}, 10)
	for name, keep := range map[string]map[string][]int{
		"unknown group":       {"conv9": {0}},
		"a layer of no group": {"relu1": {0}},
		"nothing kept":        {"conv1": {}},
		"nil kept":            {"conv1": nil},
		"past the end":        {"conv1": {32}},
		"negative":            {"conv1": {-1}},
		"twice":               {"conv1": {3, 3}},
		"descending":          {"conv1": {3, 2}},
		"the output":          {"fc2": {0, 1}},
	} {
		if _, _, err := Rebuild(g, &Plan{Keep: keep}); !errors.Is(err, ErrPlan) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	for name, masks := range map[string]func(*Masks){
		"unknown layer":      func(m *Masks) { m.Set("conv9", make([]bool, 1)) },
		"layer of no weight": func(m *Masks) { m.Set("relu1", make([]bool, 1)) },
		"another length":     func(m *Masks) { m.Set("conv1", make([]bool, 1)) },
	} {
		m := &Masks{}
		masks(m)
		if _, _, err := Rebuild(g, &Plan{Masks: m}); !errors.Is(err, ErrWeights) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if _, _, err := Rebuild(g, &Plan{Keep: map[string][]int{"fc2": {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}}}); err != nil {
		t.Errorf("all of the output kept: %v", err)
	}
}

// A group may lose so much that one of its layers would be empty: a plan is refused.
func TestRebuildEmptyLayer(t *testing.T) {
	g := graph(model.Shape{4, 4, 3}, layer("a", conv(2, 1, 1), -1), layer("b", conv(3, 1, 1), -1), layer("cat", model.Concat{}, 0, 1),
		layer("c", conv(5, 1, 1), 2), layer("add", model.Add{}, 2, 3), layer("flat", model.Flatten{}, 4), layer("fc", model.Dense{Out: 2}, 5))
	if _, _, err := Rebuild(g, &Plan{Keep: map[string][]int{"a": {0, 1}}}); !errors.Is(err, ErrPlan) {
		t.Errorf("error %v", err)
	}
	group := groupsOf(t, g)[0]
	if got := group.choose([]float64{0, 1, 2, 3, 4}, 5); !slices.Equal(got, []int{1, 4}) {
		t.Errorf("kept %v, want one channel of each layer", got)
	}
}

func TestMasks(t *testing.T) {
	g := build(t, "mlp-784-128-10", model.Shape{2, 2, 1}, 3)
	m := &Masks{}
	if m.Sparsity() != 0 || len(m.Layers()) != 0 || m.Check(g) != nil || (*Masks)(nil).Apply(g) != nil {
		t.Error("no masks: want nothing to happen")
	}
	keep := allKept(4 * 128)
	for k := range 128 {
		keep[4*k+1] = false
	}
	m.Set("fc1", keep)
	if m.Sparsity() != 0.25 {
		t.Errorf("sparsity %v", m.Sparsity())
	}
	if err := m.Apply(g); err != nil {
		t.Fatal(err)
	}
	if i, _ := g.Index("fc1"); g.Layers[i].Params[model.Weight].NonZeros() != 3*128 {
		t.Errorf("%d weights are not zero", g.Layers[i].Params[model.Weight].NonZeros())
	}
	if by := m.ByParameter(); len(by) != 1 || !slices.Equal(by["fc1"][model.Weight], keep) {
		t.Errorf("by parameter: %v", by)
	}
	extra := m.Tensors()
	extra["adam.fc1"] = model.NewTensor(3)
	back, err := MasksFrom(extra, g)
	if err != nil || !reflect.DeepEqual(back, m) {
		t.Errorf("masks did not come back: %v", err)
	}
	extra["mask.fc1"].Data[0] = 0.5
	if _, err := MasksFrom(extra, g); !errors.Is(err, ErrWeights) {
		t.Errorf("a mask of 0.5: error %v", err)
	}
	if _, err := MasksFrom(map[string]*model.Tensor{"mask.fc9": model.NewTensor(1)}, g); !errors.Is(err, ErrWeights) {
		t.Errorf("a mask of nothing: error %v", err)
	}
}

func BenchmarkRebuild(b *testing.B) {
	g, err := zoo.Build("seed-cnn", model.Shape{32, 32, 3}, 10, 1)
	if err != nil {
		b.Fatal(err)
	}
	s, err := Lookup("hybrid")
	if err != nil {
		b.Fatal(err)
	}
	in := Input{Graph: g, Target: Uniform(groupsOf(b, g), 0.5, 0.8)}
	for b.Loop() {
		p, err := s.Plan(in)
		if err != nil {
			b.Fatal(err)
		}
		if _, _, err := Rebuild(g, p); err != nil {
			b.Fatal(err)
		}
	}
}
