package pareto

import (
	"math"
	"slices"
	"sort"
)

// Dominates reports whether a is at least as good as b everywhere and better somewhere. Equal points do not dominate
// each other. Both must have the same length.
func Dominates(a, b []float64) bool {
	better := false
	for i, v := range a {
		if v > b[i] {
			return false
		}
		better = better || v < b[i]
	}
	return better
}

// covers reports whether a is at least as good as b everywhere.
func covers(a, b []float64) bool {
	for i, v := range a {
		if v > b[i] {
			return false
		}
	}
	return true
}

// lexical returns the indices of the points in lexicographic order, equal points by index.
func lexical(points [][]float64) []int {
	type entry struct {
		first float64
		index int
	}
	entries := make([]entry, len(points))
	for i, p := range points {
		entries[i] = entry{p[0], i}
	}
	slices.SortFunc(entries, func(a, b entry) int {
		switch {
		case a.first < b.first:
			return -1
		case a.first > b.first:
			return 1
		}
		p, q := points[a.index], points[b.index]
		for i, v := range p {
			if v < q[i] {
				return -1
			}
			if v > q[i] {
				return 1
			}
		}
		return a.index - b.index
	})
	order := make([]int, len(points))
	for i, e := range entries {
		order[i] = e.index
	}
	return order
}

// layer holds the members found so far of one rank, as far as needed to tell whether one of them covers a later point
// in lexicographic order. There the first objective is settled already.
type layer interface {
	covers(p []float64) bool
	add(p []float64)
}

// minimum serves two objectives: the least second one decides.
type minimum struct{ least float64 }

func (m *minimum) covers(p []float64) bool { return m.least <= p[1] }
func (m *minimum) add(p []float64)         { m.least = p[1] }

// staircase serves three objectives.
type staircase struct{ stair stair }

func (s *staircase) covers(p []float64) bool { return s.stair.covers(p[1], p[2]) }
func (s *staircase) add(p []float64)         { s.stair.insert(p[1], p[2], math.Inf(1), math.Inf(1)) }

// list serves any number of objectives.
type list struct{ members [][]float64 }

func (l *list) add(p []float64) { l.members = append(l.members, p) }
func (l *list) covers(p []float64) bool {
	for i := len(l.members) - 1; i >= 0; i-- { // the latest members are the likeliest to cover
		if covers(l.members[i], p) {
			return true
		}
	}
	return false
}

func newLayer(objectives int) layer {
	switch objectives {
	case 1:
		return &list{}
	case 2:
		return &minimum{math.Inf(1)}
	case 3:
		return &staircase{}
	}
	return &list{}
}

// Ranks sorts by dominance: rank 0 are the points that nothing dominates, rank k those that only ranks below k dominate.
// Equal points share a rank. The method is efficient non-dominated sorting with binary search (Zhang, Tian, Cheng, Jin:
// An efficient approach to nondominated sorting for evolutionary multiobjective optimization, 2015), with a staircase
// per rank for three objectives: n log² n there, n log n for two, at worst n² comparisons for more.
func Ranks(points [][]float64) []int {
	ranks := make([]int, len(points))
	var layers []layer
	previous := -1
	for _, i := range lexical(points) {
		p := points[i]
		if previous >= 0 && slices.Equal(points[previous], p) {
			ranks[i] = ranks[previous]
			continue
		}
		previous = i
		k := sort.Search(len(layers), func(k int) bool { return !layers[k].covers(p) })
		if k == len(layers) {
			layers = append(layers, newLayer(len(p)))
		}
		layers[k].add(p)
		ranks[i] = k
	}
	return ranks
}

// BestRanks is Ranks for those who need only the best: it stops after the rank with which at least count points are ranked
// and gives all others -1. It takes one pass per rank.
func BestRanks(points [][]float64, count int) []int {
	ranks := make([]int, len(points))
	for i := range ranks {
		ranks[i] = -1
	}
	left := lexical(points)
	for rank, ranked := 0, 0; ranked < count && len(left) > 0; rank++ {
		first := newLayer(len(points[left[0]]))
		previous, kept := -1, false
		later := left[:0]
		for _, i := range left {
			p := points[i]
			if previous < 0 || !slices.Equal(points[previous], p) {
				if kept = !first.covers(p); kept {
					first.add(p)
				}
			}
			if previous = i; kept {
				ranks[i] = rank
				ranked++
			} else {
				later = append(later, i)
			}
		}
		left = later
	}
	return ranks
}

// NonDominated returns the indices of the points that nothing dominates, ascending.
func NonDominated(points [][]float64) []int {
	var out []int
	for i, rank := range BestRanks(points, 1) {
		if rank == 0 {
			out = append(out, i)
		}
	}
	return out
}

// Crowding returns for each point how far apart its neighbours are, summed over the objectives, each divided by its
// range: the crowding distance of Deb, Pratap, Agarwal, Meyarivan (A fast and elitist multiobjective genetic algorithm:
// NSGA-II, 2002). The ends of an objective that varies get +Inf; where several points are the end, the first of them. The
// points should share a rank.
func Crowding(points [][]float64) []float64 {
	distance := make([]float64, len(points))
	if len(points) == 0 {
		return distance
	}
	order := make([]int, len(points))
	for m := range points[0] {
		for i := range order {
			order[i] = i
		}
		slices.SortFunc(order, func(a, b int) int {
			switch x, y := points[a][m], points[b][m]; {
			case x < y:
				return -1
			case x > y:
				return 1
			}
			return a - b
		})
		low, high := points[order[0]][m], points[order[len(order)-1]][m]
		if low == high {
			continue
		}
		distance[order[0]] = math.Inf(1)
		last := len(order) - 1
		for last > 0 && points[order[last-1]][m] == high {
			last--
		}
		distance[order[last]] = math.Inf(1)
		for j := 1; j < len(order)-1; j++ {
			if width := (points[order[j+1]][m] - points[order[j-1]][m]) / (high - low); width == width {
				distance[order[j]] += width
			}
		}
	}
	return distance
}
