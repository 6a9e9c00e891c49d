// Package searchtest checks samplers: a conformance suite for the contract of search.Sampler, and searches on problems
// with known fronts.
package searchtest

import (
	"slices"

	"github.com/espalier-ml/espalier/search"
	"github.com/espalier-ml/espalier/search/pareto"
	"github.com/espalier-ml/espalier/search/problem"
)

// Search describes one search on a problem.
type Search struct {
	Problem problem.Problem
	Sampler search.Sampler
	Seed    uint64
	Trials  int
	// Workers is how many trials run at a time, 0 and 1 for one. They end in an order that depends on the seed alone.
	Workers int
}

// Run performs the search and returns its trials in the order in which they ended.
func (s Search) Run() ([]search.Trial, error) {
	req := search.Request{Space: s.Problem.Space, Seed: s.Seed, N: 1, Objectives: len(s.Problem.Reference)}
	order := search.Rand(s.Seed, -1)
	for len(req.History) < s.Trials {
		if req.First < s.Trials && len(req.Pending) < max(s.Workers, 1) {
			configs, err := s.Sampler.Suggest(req)
			if err != nil {
				return req.History, err
			}
			req.Pending = append(req.Pending, search.Trial{Number: req.First, Config: configs[0]})
			req.First++
			continue
		}
		i := order.IntN(len(req.Pending))
		t := req.Pending[i]
		req.Pending = slices.Delete(req.Pending, i, i+1)
		t.State, t.Objectives = search.Complete, s.Problem.Evaluate(t.Config)
		req.History = append(req.History, t)
	}
	return req.History, nil
}

// Hypervolume returns the volume of the trials within the problem's reference.
func Hypervolume(p problem.Problem, trials []search.Trial) float64 {
	var points [][]float64
	for i := range trials {
		if trials[i].Usable() {
			points = append(points, trials[i].Objectives)
		}
	}
	return pareto.Hypervolume(points, p.Reference)
}

// Median returns the middle value, the mean of the two middle ones of an even number.
func Median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}
