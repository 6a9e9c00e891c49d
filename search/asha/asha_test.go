package asha

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/espalier-ml/espalier/search"
)

func TestRungs(t *testing.T) {
	for _, c := range []struct {
		halter Halter
		epochs int
		want   []int
	}{
		{Halter{}, 1, nil},
		{Halter{}, 2, []int{1}},
		{Halter{}, 9, []int{1, 3}},
		{Halter{}, 10, []int{1, 3, 9}},
		{Halter{First: 2, Reduction: 4}, 40, []int{2, 8, 32}},
		{Halter{}, 0, nil},
		{Halter{First: math.MaxInt - 1}, math.MaxInt, []int{math.MaxInt - 1}},
	} {
		if got := c.halter.Rungs(c.epochs); !slices.Equal(got, c.want) {
			t.Errorf("%+v, %d epochs: got %v, want %v", c.halter, c.epochs, got, c.want)
		}
	}
}

func progress(points ...[]float64) []search.Progress {
	out := make([]search.Progress, len(points))
	for i, p := range points {
		out[i] = search.Progress{Number: i, Objectives: p}
	}
	return out
}

func TestHalt(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for _, c := range []struct {
		name    string
		halter  Halter
		earlier []search.Progress
		now     []float64
		want    bool
	}{
		{"the first goes on", Halter{}, nil, []float64{9, 9}, false},
		{"so does the second", Halter{}, progress([]float64{1, 1}), []float64{9, 9}, false},
		{"the third must be best", Halter{}, progress([]float64{1, 1}, []float64{2, 2}), []float64{9, 9}, true},
		{"and is", Halter{}, progress([]float64{1, 1}, []float64{2, 2}), []float64{0.5, 2}, false},
		{"not a number", Halter{}, nil, []float64{nan, 1}, true},
		{"infinite", Halter{}, nil, []float64{1, inf}, true},
		{"no objectives", Halter{}, nil, nil, true},
		{"beyond the bound", Halter{Bound: 0.3}, nil, []float64{0.31, 0}, true},
		{"on the bound", Halter{Bound: 0.3}, nil, []float64{0.3, 0}, false},
		{"broken ones do not count", Halter{Bound: 0.3}, progress([]float64{0.9, 0}, []float64{0.9, 0}, []float64{nan, 0}), []float64{0.3, 1}, false},
		{"its own earlier report does not count", Halter{}, []search.Progress{{Number: 99, Objectives: []float64{0, 0}}, {Number: 1, Objectives: []float64{3, 3}}}, []float64{4, 4}, false},
		{"of a front the least error goes on", Halter{}, progress([]float64{2, 2}, []float64{3, 1}), []float64{1, 3}, false},
		{"and the others do not", Halter{}, progress([]float64{2, 2}, []float64{1, 3}), []float64{3, 1}, true},
		{"then the farthest", Halter{}, progress([]float64{1, 6}, []float64{2, 5}, []float64{3, 4}, []float64{4, 3}, []float64{5, 2}), []float64{6, 1}, false},
		{"not the nearest", Halter{}, progress([]float64{1, 6}, []float64{6, 1}, []float64{3, 4}, []float64{4, 3}, []float64{5, 2}), []float64{2, 5}, true},
		{"one objective", Halter{Reduction: 2}, progress([]float64{1}, []float64{2}, []float64{4}), []float64{3}, true},
		{"one objective, upper half", Halter{Reduction: 2}, progress([]float64{1}, []float64{3}, []float64{4}), []float64{2}, false},
	} {
		if got := c.halter.Halt(c.earlier, search.Progress{Number: 99, Objectives: c.now}); got != c.want {
			t.Errorf("%s: halt is %v", c.name, got)
		}
	}
}

// TestHaltingSavesEpochs runs trials whose error falls towards their own floor and checks that halting spends far fewer
// epochs and keeps the best of them.
func TestHaltingSavesEpochs(t *testing.T) {
	const trials, epochs = 200, 27
	for seed := range uint64(5) {
		rng := rand.New(rand.NewPCG(seed, 1))
		h := Halter{Bound: 0.8}
		byRung := map[int][]search.Progress{}
		spent := 0
		best, bestFinished := 1.0, 1.0
		for number := range trials {
			floor, speed, bytes := 0.05+0.7*rng.Float64(), 0.3+0.3*rng.Float64(), rng.Float64()
			at := func(epoch int) float64 { return floor + (0.9-floor)*math.Exp(-speed*float64(epoch)) }
			best = min(best, at(epochs))
			halted := false
			reached := epochs
			for _, rung := range h.Rungs(epochs) {
				now := search.Progress{Number: number, Objectives: []float64{at(rung), bytes}}
				halted = h.Halt(byRung[rung], now)
				byRung[rung] = append(byRung[rung], now)
				if halted {
					reached = rung
					break
				}
			}
			spent += reached
			if !halted {
				bestFinished = min(bestFinished, at(epochs))
			}
		}
		if share := float64(spent) / (trials * epochs); share > 0.35 {
			t.Errorf("seed %d: %.0f %% of the epochs were spent", seed, 100*share)
		}
		if bestFinished > best+0.02 {
			t.Errorf("seed %d: the best error of a finished trial is %v, without halting %v", seed, bestFinished, best)
		}
	}
}
