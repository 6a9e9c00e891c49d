package nsga2

import (
	"math"
	"math/rand/v2"

	"github.com/espalier-ml/espalier/search"
)

// crossover replaces values of child, a copy of one parent, by mixtures with the other's.
func crossover(space search.Space, rng *rand.Rand, child, other search.Config) {
	for i := range child {
		p := &space.Params[i]
		switch {
		case math.IsNaN(other[i]):
		case math.IsNaN(child[i]):
			child[i] = other[i]
		case !p.Numeric():
			if rng.IntN(2) == 0 {
				child[i] = other[i]
			}
		case rng.IntN(2) == 0: // the paper crosses each variable with probability one half …
			child[i] = p.FromUnit(cross(rng, p.Unit(child[i]), p.Unit(other[i])))
		//nolint:gocritic // a second draw, not the same condition
		case rng.IntN(2) == 0: // … and either child may be the one with the other parent's values
			child[i] = other[i]
		}
	}
}

// cross is simulated binary crossover on [0, 1] with bounds (Deb, Agrawal, 1995; the bounded form of Deb's NSGA-II code). It
// returns one of the two children, each as likely.
func cross(rng *rand.Rand, a, b float64) float64 {
	low, high := min(a, b), max(a, b)
	if high-low < 1e-14 {
		return a
	}
	u, second := rng.Float64(), rng.IntN(2) == 0
	room := low
	if second {
		room = 1 - high
	}
	beta := 1 + 2*room/(high-low)
	alpha := 2 - math.Pow(beta, -(crossoverIndex+1))
	var spread float64
	if u <= 1/alpha {
		spread = math.Pow(u*alpha, 1.0/(crossoverIndex+1))
	} else {
		spread = math.Pow(1/(2-float64(u*alpha)), 1.0/(crossoverIndex+1))
	}
	half := float64(spread*(high-low)) / 2
	if second {
		return (low+high)/2 + half
	}
	return (low+high)/2 - half
}

// mutate returns another value: near v for numbers and ordered choices, any for other choices. A parameter with a
// single value keeps it.
func mutate(p *search.Param, rng *rand.Rand, v float64) float64 {
	levels := p.Levels()
	if levels == 1 {
		return v
	}
	if !p.Numeric() {
		other := float64(rng.IntN(int(levels) - 1))
		if other >= v {
			other++
		}
		return other
	}
	u := p.Unit(v)
	moved := polynomial(rng, u)
	if w := p.FromUnit(moved); w != v || math.IsInf(levels, 1) {
		return w
	}
	low, high := p.Bounds()
	if up := moved > u; v == low || up && v < high {
		return v + 1
	}
	return v - 1
}

// polynomial is Deb's polynomial mutation on [0, 1] with bounds.
func polynomial(rng *rand.Rand, v float64) float64 {
	const power = 1.0 / (mutationIndex + 1)
	u := rng.Float64()
	if u < 0.5 {
		rest := math.Pow(1-v, mutationIndex+1)
		return v + math.Pow(2*u+float64((1-2*u)*rest), power) - 1
	}
	rest := math.Pow(v, mutationIndex+1)
	return v + 1 - math.Pow(2*(1-u)+float64((2*u-1)*rest), power)
}
