package model_test

import (
	"math"
	"testing"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/modeltest"
)

func kinds(g *model.Graph) map[string]int {
	m := map[string]int{}
	for _, l := range g.Layers {
		m[l.Op.Kind()]++
	}
	return m
}

// sameOutputs compares two graphs on a few inputs within a relative tolerance.
func sameOutputs(t *testing.T, a, b *model.Graph, seed uint64, tolerance float64) {
	t.Helper()
	x := modeltest.Example(a, seed)
	want, err := modeltest.Output(a, x)
	if err != nil {
		t.Fatal(err)
	}
	got, err := modeltest.Output(b, x)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Fatalf("seed %d: %d outputs, want %d", seed, len(got), len(want))
	}
	for i := range want {
		if d := math.Abs(float64(got[i] - want[i])); d > tolerance*(1+math.Abs(float64(want[i]))) {
			t.Fatalf("seed %d: output %d is %v, want %v", seed, i, got[i], want[i])
		}
	}
}

func TestFoldBatchNorm(t *testing.T) {
	folds := 0
	for seed := range uint64(300) {
		g := modeltest.Graph(seed)
		f, err := model.FoldBatchNorm(g)
		if err != nil {
			t.Fatal(err)
		}
		folds += kinds(g)["batch-norm"] - kinds(f)["batch-norm"]
		sameOutputs(t, g, f, seed, 1e-4)
	}
	if folds < 20 {
		t.Errorf("only %d of the random graphs' batch normalisations were folded", folds)
	}
}

func TestFoldKeepsWhatIsReadTwice(t *testing.T) {
	g := &model.Graph{Input: model.Shape{4}, Layers: []model.Layer{
		{Name: "a", Op: model.Dense{Out: 3}, Inputs: []int{model.Input}},
		{Name: "bn", Op: model.BatchNorm{Epsilon: 1e-3}, Inputs: []int{0}},
		{Name: "add", Op: model.Add{}, Inputs: []int{0, 1}},
		{Name: "b", Op: model.Dense{Out: 3}, Inputs: []int{2}},
		{Name: "dead", Op: model.Softmax{}, Inputs: []int{2}},
		{Name: "last", Op: model.BatchNorm{Epsilon: 1e-3}, Inputs: []int{3}},
	}}
	modeltest.Fill(g, 1)
	f, err := model.FoldBatchNorm(g)
	if err != nil {
		t.Fatal(err)
	}
	if k := kinds(f); k["batch-norm"] != 1 || f.Layers[len(f.Layers)-1].Name != "b" {
		t.Errorf("got %v, last %q", k, f.Layers[len(f.Layers)-1].Name)
	}
	sameOutputs(t, g, f, 1, 1e-5)
	if kinds(g)["batch-norm"] != 2 || g.Layers[0].Params[model.Bias] != nil {
		t.Error("the original changed")
	}
}

func TestSimplify(t *testing.T) {
	for seed := range uint64(300) {
		g := modeltest.Graph(seed)
		s, err := model.Simplify(g)
		if err != nil {
			t.Fatal(err)
		}
		if n := kinds(s)["dropout"]; n != 0 {
			t.Errorf("seed %d: %d dropouts are left", seed, n)
		}
		sameOutputs(t, g, s, seed, 0)
	}
}

func TestSimplifyTheEnd(t *testing.T) {
	drop := model.Dropout{Rate: 0.5}
	for _, tt := range []struct {
		name   string
		layers []model.Layer
		want   int
	}{
		{"dropouts last", []model.Layer{
			{Name: "a", Op: model.Dense{Out: 3}, Inputs: []int{model.Input}},
			{Name: "dead", Op: model.Softmax{}, Inputs: []int{model.Input}},
			{Name: "d", Op: drop, Inputs: []int{0}}, {Name: "e", Op: drop, Inputs: []int{2}}}, 1},
		{"only a dropout", []model.Layer{{Name: "d", Op: drop, Inputs: []int{model.Input}}}, 1},
		{"read twice", []model.Layer{
			{Name: "d", Op: drop, Inputs: []int{model.Input}},
			{Name: "add", Op: model.Add{}, Inputs: []int{0, model.Input}}}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := &model.Graph{Input: model.Shape{3}, Layers: tt.layers}
			modeltest.Fill(g, 1)
			s, err := model.Simplify(g)
			if err != nil {
				t.Fatal(err)
			}
			if len(s.Layers) != tt.want {
				t.Errorf("%d layers, want %d: %+v", len(s.Layers), tt.want, s.Layers)
			}
			sameOutputs(t, g, s, 1, 0)
		})
	}
}
