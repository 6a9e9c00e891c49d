package searchtest

import (
	"testing"

	"github.com/espalier-ml/espalier/search"
	"github.com/espalier-ml/espalier/search/problem"
)

// compareSeeds is how many seeds a comparison takes the median of.
const compareSeeds = 5

// Beats checks that better reaches more hypervolume than worse, in the median of five seeds, on each named problem after
// that many trials, of which workers run at a time.
func Beats(t *testing.T, better, worse search.Sampler, workers int, trials map[string]int) {
	t.Helper()
	for name, n := range trials {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, err := problem.Get(name)
			if err != nil {
				t.Fatal(err)
			}
			var b, w []float64
			for seed := range uint64(compareSeeds) {
				b = append(b, volumeAfter(t, Search{Problem: p, Sampler: better, Seed: seed, Trials: n, Workers: workers}))
				w = append(w, volumeAfter(t, Search{Problem: p, Sampler: worse, Seed: seed, Trials: n, Workers: workers}))
			}
			if Median(b) <= Median(w) {
				t.Errorf("after %d trials: median hypervolume %v, the other sampler's is %v (best %v)", n, Median(b), Median(w), p.Best)
			}
		})
	}
}

func volumeAfter(tb testing.TB, s Search) float64 {
	tb.Helper()
	trials, err := s.Run()
	if err != nil {
		tb.Fatal(err)
	}
	return Hypervolume(s.Problem, trials)
}

// LongRequest asks for one suggestion after n trials, of which half are near earlier ones, so that the front grows as in a
// search.
func LongRequest(p problem.Problem, n int) search.Request {
	req := search.Request{Space: p.Space, Seed: 1, First: n, N: 1, Objectives: len(p.Reference)}
	rng := search.Rand(1, -1)
	for i := range n {
		c := p.Space.Sample(rng)
		if i > 100 && i%2 == 0 {
			earlier := req.History[rng.IntN(i)].Config
			for j := range c {
				if rng.Float64() < 0.8 {
					c[j] = earlier[j]
				}
			}
			c = p.Space.Repair(c)
		}
		req.History = append(req.History, search.Trial{Number: i, Config: c, State: search.Complete, Objectives: p.Evaluate(c)})
	}
	return req
}

// BenchmarkSuggest times one suggestion after n trials.
func BenchmarkSuggest(b *testing.B, p problem.Problem, s search.Sampler, n int) {
	req := LongRequest(p, n)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Suggest(req); err != nil {
			b.Fatal(err)
		}
	}
}
