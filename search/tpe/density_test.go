package tpe

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/espalier-ml/espalier/search"
)

func observations(values ...float64) []observation {
	var out []observation
	for i, v := range values {
		out = append(out, observation{search.Config{v}, 1 / float64(i+1)})
	}
	return out
}

// TestDensityIsOne checks that each mixture sums to one over the parameter's values and that its draws follow it.
func TestDensityIsOne(t *testing.T) {
	nan := math.NaN()
	for _, c := range []struct {
		param search.Param
		from  []observation
	}{
		{search.Param{Kind: search.Float, Min: -1, Max: 1}, nil},
		{search.Param{Kind: search.Float, Min: -1, Max: 1}, observations(-1, -0.9, nan, 0.3, 1, 1, 1)},
		{search.Param{Kind: search.Float, Min: 1e-4, Max: 1, Log: true}, observations(1e-4, 0.01, 0.012)},
		{search.Param{Kind: search.Int, Min: 3, Max: 9}, observations(3, 3, 4, nan, 9)},
		{search.Param{Kind: search.Int, Min: 1, Max: 200, Log: true}, observations(1, 2, 150)},
		{search.Param{Kind: search.Choice, Choices: []string{"1", "2", "4"}, Ordered: true}, observations(0, 0, 1)},
		{search.Param{Kind: search.Choice, Choices: []string{"a", "b", "c"}}, observations(2, nan, 2, 0)},
		{search.Param{Kind: search.Choice, Choices: []string{"a", "b", "c"}}, nil},
	} {
		p := &c.param
		var d density
		if p.Numeric() {
			d = newNormals(p, 0, c.from, 1)
		} else {
			d = newCounts(p, 0, c.from, 1)
		}
		// The share of draws in each cell, and the mixture's own share of it.
		const draws = 40000
		cells := 20
		discrete := !math.IsInf(p.Levels(), 1)
		if discrete {
			cells = int(p.Levels())
		}
		want, got := make([]float64, cells), make([]float64, cells)
		low, _ := p.Bounds()
		cell := func(v float64) int {
			if discrete {
				return int(v - low)
			}
			return min(int(p.Unit(v)*float64(cells)), cells-1)
		}
		var total float64
		if discrete {
			for i := range want {
				want[i] = d.at(low + float64(i))
				total += want[i]
			}
		} else {
			const steps = 20000
			for i := range steps {
				v := p.FromUnit((float64(i) + 0.5) / steps)
				want[cell(v)] += d.at(v) / steps
				total += d.at(v) / steps
			}
		}
		if math.Abs(total-1) > 2e-3 {
			t.Errorf("%+v from %v: the mixture sums to %v", *p, c.from, total)
		}
		rng := rand.New(rand.NewPCG(1, 1))
		for range draws {
			v := d.draw(rng)
			if low, high := p.Bounds(); v < low || v > high {
				t.Fatalf("%+v: drew %v", *p, v)
			}
			got[cell(v)] += 1.0 / draws
		}
		for i := range want {
			if math.Abs(want[i]-got[i]) > 5*math.Sqrt(want[i]/draws)+2e-3 {
				t.Errorf("%+v from %v: cell %d has %v of the draws, want %v", *p, c.from, i, got[i], want[i])
			}
		}
	}
}
