package tpe

import (
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
		"zdt1": 60, "zdt3": 60, "zdt4": 100, "dtlz2": 60, "dtlz7": 60,
		"zdt3-shifted": 80, "dtlz7-shifted": 60, "levels": 60, "pruning": 60,
	})
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
