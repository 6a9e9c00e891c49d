// Package tpe suggests configurations by comparing how dense good and other trials lie around them.
package tpe

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/espalier-ml/espalier/search"
)

// Sampler is the tree-structured Parzen estimator (Bergstra, Bardenet, Bengio, Kégl: Algorithms for hyper-parameter
// optimization, 2011) for several objectives (Ozaki, Tanigaki, Watanabe, Nomura, Onishi: Multiobjective tree-structured
// Parzen estimator, 2022), with the split, weights and bandwidths that Optuna uses:
//
//   - The good trials are the first tenth, at most 25, by rank; of the last rank needed, those that together dominate the
//     most volume. Each weighs what it alone dominates.
//   - All other trials, infeasible and failed ones too, are the rest; beyond the latest 25 they weigh less the older they
//     are. Pending trials join the rest, which keeps parallel suggestions apart.
//   - Each parameter has its own pair of mixtures, over the trials in which it is active. Of 24 values drawn from the good
//     mixture the one with the highest ratio of densities is taken, parameter by parameter, so that a conditional
//     one is drawn after its condition.
//   - Numbers and ordered choices have normal kernels, cut to the scale and summed over a whole number's cell, as wide as the
//     gap to the farther neighbour. Other choices have one count per trial. Each mixture also has a wide prior.
//
// Deviations: a long rest is thinned to every k-th trial, to bound the cost; a configuration that is known already is drawn
// again with ever more of the prior; infeasible trials may be good only while too few others are.
//
// The zero value uses the defaults. A Sampler may be used from many goroutines.
type Sampler struct {
	// Initial is the number of random trials at the start; zero means DefaultInitial.
	Initial int
	// Candidates is how many values are drawn of each parameter; zero means DefaultCandidates.
	Candidates int
}

// The defaults are Optuna's.
const (
	DefaultInitial    = 10
	DefaultCandidates = 24
)

var _ search.Sampler = Sampler{}

// Suggest implements search.Sampler.
func (s Sampler) Suggest(req search.Request) ([]search.Config, error) {
	if err := req.Validate(); err != nil {
		return nil, err
	}
	initial := cmp.Or(max(s.Initial, 0), DefaultInitial)
	candidates := cmp.Or(max(s.Candidates, 0), DefaultCandidates)
	var good, rest []observation
	if req.First+req.N > initial {
		good, rest = split(req.History)
	}
	return req.Collect(func(number int, rng *rand.Rand, pending []search.Trial) func() search.Config {
		if number < initial || len(good) == 0 {
			return nil
		}
		all := slices.Clone(rest)
		for i := range pending {
			all = append(all, observation{pending[i].Config, 1})
		}
		prior := priorWeight
		return func() search.Config {
			c := draw(req.Space, rng, good, all, candidates, prior)
			prior *= 1.5
			return c
		}
	})
}

// priorWeight is the weight of the prior beside the trials, each of which weighs up to 1.
const priorWeight = 1.0

// draw makes one configuration, parameter by parameter.
func draw(space search.Space, rng *rand.Rand, good, rest []observation, candidates int, prior float64) search.Config {
	c := make(search.Config, len(space.Params))
	for i := range c {
		c[i] = math.NaN()
	}
	for i := range space.Params {
		p := &space.Params[i]
		switch {
		case !space.Active(c, i):
		case p.Levels() == 1:
			c[i], _ = p.Bounds()
		default:
			var better, worse density
			if p.Numeric() {
				better, worse = newNormals(p, i, good, prior), newNormals(p, i, rest, prior)
			} else {
				better, worse = newCounts(p, i, good, prior), newCounts(p, i, rest, prior)
			}
			best := math.Inf(-1)
			for range candidates {
				v := better.draw(rng)
				if gain := math.Log(better.at(v)) - math.Log(worse.at(v)); gain > best || math.IsNaN(c[i]) {
					best, c[i] = gain, v
				}
			}
		}
	}
	return c
}
