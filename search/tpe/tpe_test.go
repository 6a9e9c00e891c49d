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
	searchtest.Beats(t, Sampler{}, random.Sampler{}, 8, map[string]int{"dtlz7-shifted": 60, "levels": 60})
}

func TestBeatsRandom(t *testing.T) {
	searchtest.Beats(t, Sampler{}, random.Sampler{}, 1, map[string]int{
		"zdt1": 60, "zdt3": 60, "dtlz2": 50, "dtlz7": 50, "dtlz7-shifted": 50, "levels": 50, "pruning": 50,
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
