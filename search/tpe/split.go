package tpe

import (
	"cmp"
	"math"
	"slices"

	"github.com/espalier-ml/espalier/search"
	"github.com/espalier-ml/espalier/search/pareto"
)

// observation is a trial as the mixtures see it.
type observation struct {
	config search.Config
	weight float64
}

// Bounds on cost and on the good trials' number.
const (
	goodShare = 0.1
	mostGood  = 25
	// latest is how many of the rest keep their full weight.
	latest = 25
	// mostRest bounds the rest, beyond which it is thinned.
	mostRest = 400
	// mostLast bounds the last rank before the choice by volume; the least crowded stay.
	mostLast = 100
	// leastWeight keeps a good trial in the mixture that dominates nothing alone.
	leastWeight = 1e-12
)

// split divides the history into good trials and the rest, each with its weights. Nothing is good while no trial is
// usable or infeasible.
func split(history []search.Trial) (good, rest []observation) {
	trials := make([]*search.Trial, len(history))
	for i := range history {
		trials[i] = &history[i]
	}
	slices.SortStableFunc(trials, func(a, b *search.Trial) int { return a.Number - b.Number })
	usable := make([]int, 0, len(trials))
	var infeasible []int
	for i, t := range trials {
		switch {
		case t.Usable():
			usable = append(usable, i)
		case t.State == search.Infeasible:
			infeasible = append(infeasible, i)
		}
	}
	size := min(int(math.Ceil(goodShare*float64(len(trials)))), mostGood)
	chosen := choose(trials, usable, size)
	good = weigh(trials, chosen)
	if missing := size - len(chosen); missing > 0 {
		slices.SortStableFunc(infeasible, func(a, b int) int {
			return cmp.Compare(violation(trials[a]), violation(trials[b]))
		})
		for _, i := range infeasible[:min(missing, len(infeasible))] {
			chosen = append(chosen, i)
			good = append(good, observation{trials[i].Config, 1})
		}
	}
	isGood := make([]bool, len(trials))
	for _, i := range chosen {
		isGood[i] = true
	}
	rest = make([]observation, 0, len(trials))
	for i, t := range trials {
		if !isGood[i] {
			rest = append(rest, observation{config: t.Config})
		}
	}
	return good, thin(rest)
}

func violation(t *search.Trial) float64 {
	if t.Violation > 0 {
		return t.Violation
	}
	return math.Inf(1)
}

// thin sets the weights of the rest, which is ordered by number, and bounds its length.
func thin(rest []observation) []observation {
	n := len(rest)
	for i := range rest {
		rest[i].weight = 1
		if old := n - latest; i < old {
			rest[i].weight = 1 / float64(n)
			if old > 1 {
				rest[i].weight += (1 - 1/float64(n)) * float64(i) / float64(old-1)
			}
		}
	}
	stride := (n + mostRest - 1) / mostRest
	if stride <= 1 {
		return rest
	}
	out := make([]observation, 0, mostRest)
	for i := (n - 1) % stride; i < n; i += stride {
		out = append(out, observation{rest[i].config, rest[i].weight * float64(stride)})
	}
	return out
}

// choose returns the first size of the usable trials by rank and, within the last rank needed, by volume.
func choose(trials []*search.Trial, usable []int, size int) []int {
	points := make([][]float64, len(usable))
	for i, u := range usable {
		points[i] = trials[u].Objectives
	}
	byRank := map[int][]int{}
	for i, rank := range pareto.BestRanks(points, size) {
		byRank[rank] = append(byRank[rank], i)
	}
	var out []int
	for rank := 0; len(out) < size && len(byRank[rank]) > 0; rank++ {
		members := byRank[rank]
		if len(out)+len(members) > size {
			members = spread(points, members, size-len(out))
		}
		for _, m := range members {
			out = append(out, usable[m])
		}
	}
	return out
}

// spread returns those k of the members that together dominate much of the volume.
func spread(points [][]float64, members []int, k int) []int {
	if len(members) > mostLast {
		front := pick(points, members)
		crowding := pareto.Crowding(front)
		order := make([]int, len(members))
		for i := range order {
			order[i] = i
		}
		slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(crowding[b], crowding[a]) })
		kept := make([]int, mostLast)
		for i := range kept {
			kept[i] = members[order[i]]
		}
		members = kept
	}
	front := pick(points, members)
	out := make([]int, 0, k)
	for _, i := range pareto.Subset(front, beyond(front), k) {
		out = append(out, members[i])
	}
	return out
}

func pick(points [][]float64, which []int) [][]float64 {
	out := make([][]float64, len(which))
	for i, w := range which {
		out[i] = points[w]
	}
	return out
}

// beyond returns a reference point a little worse than the worst of the points, as Optuna chooses it: a tenth beyond it, and a
// little where that is no step.
func beyond(points [][]float64) []float64 {
	reference := make([]float64, len(points[0]))
	for j := range reference {
		worst := math.Inf(-1)
		for _, p := range points {
			worst = max(worst, p[j])
		}
		reference[j] = max(1.1*worst, 0.9*worst)
		if reference[j] == worst {
			reference[j] += 1e-12
		}
	}
	return reference
}

// weigh gives each good trial the volume that it alone dominates, relative to the largest of them.
func weigh(trials []*search.Trial, chosen []int) []observation {
	out := make([]observation, len(chosen))
	if len(chosen) == 0 {
		return out
	}
	points := make([][]float64, len(chosen))
	for i, c := range chosen {
		points[i] = trials[c].Objectives
	}
	shares := pareto.Contributions(points, beyond(points))
	most := slices.Max(shares)
	for i, c := range chosen {
		out[i] = observation{trials[c].Config, 1}
		if most > 0 && !math.IsInf(most, 1) {
			out[i].weight = max(shares[i]/most, leastWeight)
		}
	}
	return out
}
