package nsga2

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/espalier-ml/espalier/search"
	"github.com/espalier-ml/espalier/search/problem"
	"github.com/espalier-ml/espalier/search/random"
	"github.com/espalier-ml/espalier/search/searchtest"
)

func TestConformance(t *testing.T) {
	searchtest.Conformance(t, func() search.Sampler { return Sampler{} })
}

func TestBeatsRandomWithWorkers(t *testing.T) {
	searchtest.Beats(t, Sampler{}, random.Sampler{}, 8, map[string]int{"zdt3-shifted": 200, "dtlz7-shifted": 200, "levels": 100})
}

func TestBeatsRandom(t *testing.T) {
	searchtest.Beats(t, Sampler{}, random.Sampler{}, 1, map[string]int{
		"zdt1": 200, "zdt2": 300, "zdt3": 200, "zdt4": 200, "zdt6": 200, "dtlz2": 200, "dtlz7": 200,
		"zdt1-shifted": 200, "zdt3-shifted": 300, "zdt6-shifted": 200, "dtlz7-shifted": 200, "levels": 200, "pruning": 100,
	})
}

func trial(number int, state search.State, violation float64, objectives ...float64) search.Trial {
	return search.Trial{Number: number, Config: search.Config{float64(number)}, State: state, Objectives: objectives, Violation: violation}
}

func TestPopulation(t *testing.T) {
	history := []search.Trial{
		trial(8, search.Infeasible, 0, 0, 0),
		trial(7, search.Infeasible, 2),
		trial(6, search.Infeasible, 0.5),
		trial(5, search.Failed, 0),
		trial(4, search.Complete, 0, math.NaN(), 0),
		trial(3, search.Complete, 0, 3, 3),
		trial(2, search.Complete, 0, 2, 1),
		trial(1, search.Complete, 0, 0, 2),
		trial(0, search.Complete, 0, 1, 1.5),
		trial(9, search.Complete, 0, 4, 0),
	}
	for _, c := range []struct {
		size int
		want []float64
	}{
		// 1 and 9 are the ends; of the others 2 has the wider neighbours; 3 is dominated; infeasible ones by violation.
		{8, []float64{1, 9, 2, 0, 3, 6, 7, 8}},
		{5, []float64{1, 9, 2, 0, 3}},
		{3, []float64{1, 9, 2}},
	} {
		got := population(history, c.size)
		if len(got) != len(c.want) {
			t.Fatalf("size %d: %v", c.size, got)
		}
		for i, config := range got {
			if config[0] != c.want[i] {
				t.Errorf("size %d: got %v, want %v", c.size, got, c.want)
				break
			}
		}
	}
	var many []search.Trial
	for i := range 300 {
		many = append(many, trial(i, search.Complete, 0, float64(i), float64(-i)))
	}
	for trials, want := range map[int]int{5: 5, 20: 10, 60: 20, 300: 50} {
		if got := len(population(many[:trials], DefaultPopulation)); got != want {
			t.Errorf("%d trials have a population of %d, want %d", trials, got, want)
		}
	}
}

// TestCross checks the operator's two laws: children within the bounds, and spread around the parents alike on both sides.
func TestCross(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	var sum float64
	const n = 20000
	for range n {
		v := cross(rng, 0.6, 0.4)
		if v < 0 || v > 1 {
			t.Fatalf("child at %v", v)
		}
		sum += v
	}
	if mean := sum / n; math.Abs(mean-0.5) > 0.005 {
		t.Errorf("children of 0.4 and 0.6 have the mean %v", mean)
	}
	for _, ends := range [][2]float64{{0, 1}, {0, 0.001}, {0.999, 1}, {0.3, 0.3}} {
		for range 1000 {
			if v := cross(rng, ends[0], ends[1]); v < 0 || v > 1 {
				t.Fatalf("child of %v at %v", ends, v)
			}
		}
	}
}

func TestMutateChangesWhateverCanChange(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, p := range []search.Param{
		{Name: "float", Kind: search.Float, Min: -1, Max: 1},
		{Name: "log", Kind: search.Float, Min: 1e-6, Max: 1, Log: true},
		{Name: "int", Kind: search.Int, Min: 0, Max: 5},
		{Name: "log int", Kind: search.Int, Min: 1, Max: 1000, Log: true},
		{Name: "choice", Kind: search.Choice, Choices: []string{"a", "b", "c"}},
		{Name: "levels", Kind: search.Choice, Choices: []string{"a", "b", "c"}, Ordered: true},
	} {
		for range 2000 {
			v := p.FromUnit(rng.Float64())
			w := mutate(&p, rng, v)
			if low, high := p.Bounds(); w < low || w > high || p.Clip(w) != w {
				t.Fatalf("%s: %v mutated to %v", p.Name, v, w)
			}
			if w == v && p.Kind != search.Float {
				t.Fatalf("%s: %v did not change", p.Name, v)
			}
		}
	}
	if one := (search.Param{Name: "one", Kind: search.Int, Min: 3, Max: 3}); mutate(&one, rng, 3) != 3 {
		t.Error("a single value changed")
	}
}

func BenchmarkSuggest(b *testing.B) {
	for _, name := range []string{"zdt1", "dtlz2", "levels"} {
		b.Run(name, func(b *testing.B) {
			p, err := problem.Get(name)
			if err != nil {
				b.Fatal(err)
			}
			searchtest.BenchmarkSuggest(b, p, Sampler{}, 10000)
		})
	}
}
