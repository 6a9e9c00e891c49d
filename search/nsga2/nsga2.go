// Package nsga2 suggests configurations by a genetic algorithm that prefers non-dominated, uncrowded parents.
package nsga2

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/espalier-ml/espalier/search"
	"github.com/espalier-ml/espalier/search/pareto"
)

// Sampler is NSGA-II (Deb, Pratap, Agarwal, Meyarivan: A fast and elitist multiobjective genetic algorithm: NSGA-II, 2002)
// in its steady-state form (Durillo, Nebro, Luna, Alba: On the effect of the steady-state selection scheme in
// multi-objective genetic algorithms, 2009), so that it never waits for a generation to end:
//
//   - The population is the best third of all usable trials, at least 10 and at most Population of them, by rank, then
//     crowding, then trial number. It depends on the set of results only, not on their order. A small one early on is
//     what makes short searches converge.
//   - Infeasible trials fill what is missing, least violation first (unknown last); failed ones never become parents.
//   - The first Initial trials by number, and any trial while fewer than two parents exist, are random.
//   - Parents are chosen by binary tournament. Numbers and ordered choices are crossed by simulated binary crossover and
//     mutated polynomially on their scale; whole steps are taken where that would round to no change. Other choices are
//     inherited from either parent and mutated to any other value. A parameter that only one parent has is inherited
//     from it; one that neither has is drawn at random.
//   - A child that is already finished or pending is made again, with a mutation that grows at each attempt.
//
// The zero value uses the defaults. A Sampler may be used from many goroutines.
type Sampler struct {
	// Population is the greatest number of parents; zero means DefaultPopulation.
	Population int
	// Initial is the number of random trials at the start; zero means DefaultInitial.
	Initial int
}

// The defaults suit searches of some tens to a few thousand trials.
const (
	DefaultPopulation = 50
	DefaultInitial    = 16
)

// While there are few trials the population is a share of them.
const (
	leastPopulation = 10
	shareOfTrials   = 3
)

// Parameters of the operators. The paper's indices of distribution are 20; smaller ones take wider steps, which short
// searches need.
const (
	crossoverProbability = 0.9
	crossoverIndex       = 5
	mutationIndex        = 5
)

var _ search.Sampler = Sampler{}

// Suggest implements search.Sampler.
func (s Sampler) Suggest(req search.Request) ([]search.Config, error) {
	if err := req.Validate(); err != nil {
		return nil, err
	}
	initial := cmp.Or(max(s.Initial, 0), DefaultInitial)
	var parents []search.Config
	if req.First+req.N > initial {
		parents = population(req.History, cmp.Or(max(s.Population, 0), DefaultPopulation))
	}
	return req.Collect(func(number int, rng *rand.Rand, _ []search.Trial) func() search.Config {
		if number < initial || len(parents) < 2 {
			return nil
		}
		attempt := 0
		return func() search.Config {
			attempt++
			return breed(req.Space, rng, parents, attempt)
		}
	})
}

// population returns up to size configurations, the best first.
func population(history []search.Trial, size int) []search.Config {
	var usable, infeasible []*search.Trial
	for i := range history {
		switch t := &history[i]; {
		case t.Usable():
			usable = append(usable, t)
		case t.State == search.Infeasible:
			infeasible = append(infeasible, t)
		}
	}
	size = min(size, max(leastPopulation, len(usable)/shareOfTrials))
	out := make([]search.Config, 0, size)
	for _, t := range elite(usable, size) {
		out = append(out, t.Config)
	}
	if len(out) < size {
		slices.SortFunc(infeasible, func(a, b *search.Trial) int {
			return cmp.Or(cmp.Compare(violation(a), violation(b)), a.Number-b.Number)
		})
		for _, t := range infeasible[:min(len(infeasible), size-len(out))] {
			out = append(out, t.Config)
		}
	}
	return out
}

func violation(t *search.Trial) float64 {
	if t.Violation > 0 {
		return t.Violation
	}
	return math.Inf(1)
}

// elite returns up to size trials by rank, then crowding within the rank, then number.
func elite(trials []*search.Trial, size int) []*search.Trial {
	slices.SortFunc(trials, func(a, b *search.Trial) int { return a.Number - b.Number })
	points := make([][]float64, len(trials))
	for i, t := range trials {
		points[i] = t.Objectives
	}
	byRank := map[int][]int{}
	for i, rank := range pareto.BestRanks(points, size) {
		byRank[rank] = append(byRank[rank], i)
	}
	var out []*search.Trial
	for rank := 0; len(out) < size && len(byRank[rank]) > 0; rank++ {
		members := byRank[rank]
		front := make([][]float64, len(members))
		order := make([]int, len(members))
		for i, m := range members {
			front[i], order[i] = points[m], i
		}
		crowding := pareto.Crowding(front)
		slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(crowding[b], crowding[a]) })
		for _, i := range order[:min(len(order), size-len(out))] {
			out = append(out, trials[members[i]])
		}
	}
	return out
}

// tournament returns the better of two different parents; they are ordered, the best first.
func tournament(rng *rand.Rand, parents []search.Config) search.Config {
	a, b := rng.IntN(len(parents)), rng.IntN(len(parents)-1)
	if b >= a {
		b++
	}
	return parents[min(a, b)]
}

// breed makes one child. A later attempt mutates more.
func breed(space search.Space, rng *rand.Rand, parents []search.Config, attempt int) search.Config {
	mother, father := tournament(rng, parents), tournament(rng, parents)
	child := slices.Clone(mother)
	if rng.Float64() < crossoverProbability {
		crossover(space, rng, child, father)
	}
	active := 0
	for i := range child {
		if space.Active(child, i) {
			active++
		}
	}
	probability := float64(1+(attempt-1)/4) / float64(active)
	for i := range child {
		if !math.IsNaN(child[i]) && rng.Float64() < probability {
			child[i] = mutate(&space.Params[i], rng, child[i])
		}
	}
	return space.Complete(child, rng)
}
