package tpe

import (
	"math"
	"slices"
	"testing"

	"github.com/espalier-ml/espalier/search"
)

func trial(number int, state search.State, objectives ...float64) search.Trial {
	return search.Trial{Number: number, Config: search.Config{float64(number)}, State: state, Objectives: objectives}
}

// numbers returns which trials the observations are, sorted.
func numbers(from []observation) []int {
	var out []int
	for _, o := range from {
		out = append(out, int(o.config[0]))
	}
	slices.Sort(out)
	return out
}

func TestSplit(t *testing.T) {
	// Trials 0 to 9 lie on the front x + y = 9, 10 to 19 are dominated by it.
	var history []search.Trial
	for i := range 10 {
		history = append(history, trial(i, search.Complete, float64(i), float64(9-i)), trial(10+i, search.Complete, float64(i+1), float64(10-i)))
	}
	infeasible := func(number int, violation float64) search.Trial {
		t := trial(number, search.Infeasible)
		t.Violation = violation
		return t
	}
	for _, c := range []struct {
		name    string
		history []search.Trial
		want    []int
	}{
		{"nothing", nil, nil},
		{"only failures", []search.Trial{trial(0, search.Failed), trial(1, search.Complete, math.NaN(), 1)}, nil},
		{"a tenth, by volume", history, []int{4, 7}}, // 4 dominates the most alone, 7 adds the most to it
		{"failures count as trials and never as good", append([]search.Trial{trial(90, search.Failed), trial(91, search.Failed)}, history[:2]...), []int{0}},
		{"the least violation while nothing is usable", []search.Trial{infeasible(1, 0), infeasible(2, 0.5), infeasible(3, 0.2)}, []int{3}},
		{"one usable before any infeasible", []search.Trial{infeasible(1, 0.1), trial(2, search.Complete, 5, 5)}, []int{2}},
	} {
		good, rest := split(c.history)
		if got := numbers(good); !slices.Equal(got, c.want) {
			t.Errorf("%s: good are %v, want %v", c.name, got, c.want)
		}
		if len(good)+len(rest) != len(c.history) {
			t.Errorf("%s: %d good and %d others of %d", c.name, len(good), len(rest), len(c.history))
		}
		slices.Reverse(c.history)
		if again, _ := split(c.history); !slices.Equal(numbers(again), c.want) {
			t.Errorf("%s: in another order good are %v", c.name, numbers(again))
		}
	}
}

func TestWeights(t *testing.T) {
	// The reference lies at (3.3, 3.3): 1 and 2 each dominate a box that the other does not, 3 nothing.
	a, b, c := trial(1, search.Complete, 1, 2), trial(2, search.Complete, 2, 1), trial(3, search.Complete, 3, 3)
	trials := []*search.Trial{&a, &b, &c}
	for i, want := range []float64{1, 1, leastWeight} {
		if got := weigh(trials, []int{0, 1, 2})[i].weight; math.Abs(got-want) > 1e-12 {
			t.Errorf("trial %d weighs %v, want %v", i+1, got, want)
		}
	}
	if got := weigh(trials, []int{2})[0].weight; got != 1 {
		t.Errorf("a lone trial weighs %v", got)
	}
}

func TestThin(t *testing.T) {
	rest := func(n int) []observation {
		out := make([]observation, n)
		for i := range out {
			out[i].config = search.Config{float64(i)}
		}
		return out
	}
	for _, o := range thin(rest(latest)) {
		if o.weight != 1 {
			t.Fatalf("one of the latest weighs %v", o.weight)
		}
	}
	got := thin(rest(125))
	for i, want := range map[int]float64{0: 1.0 / 125, 99: 1, 100: 1, 124: 1} {
		if math.Abs(got[i].weight-want) > 1e-12 {
			t.Errorf("of 125, number %d weighs %v, want %v", i, got[i].weight, want)
		}
	}
	long := thin(rest(9999))
	if len(long) > mostRest || long[len(long)-1].config[0] != 9998 {
		t.Errorf("9999 were thinned to %d, the last of them %v", len(long), long[len(long)-1].config)
	}
	var total float64
	for _, o := range long {
		total += o.weight
	}
	if full := 9999.0/2 + latest/2; math.Abs(total-full) > 0.01*full {
		t.Errorf("thinned, 9999 weigh %v, want about %v", total, full)
	}
}
