// Package asha halts trials by asynchronous successive halving over several objectives.
package asha

import (
	"cmp"
	"math"

	"github.com/espalier-ml/espalier/search"
	"github.com/espalier-ml/espalier/search/pareto"
)

// Halter is asynchronous successive halving of the stopping kind (Li, Jamieson, Rostamizadeh, Gonina, Hardt, Recht, Talwalkar: A
// system for massively parallel hyperparameter tuning, 2020) for several objectives (Schmucker, Donini, Zafar, Salinas,
// Archambeau: Multi-objective asynchronous successive halving, 2021):
//
//   - Rungs lie at First, First·Reduction, First·Reduction² … epochs.
//   - At a rung the best 1/Reduction of all trials that came so far go on: by non-dominated rank, and within a rank by an
//     ε-net, which takes the least error first and then always the one farthest from those taken, each objective
//     scaled to its range. The first few, of which there is no such share yet, all go on.
//   - A trial whose error, the first objective, lies above Bound halts at once and is not counted: a tiny broken model would
//     otherwise always be non-dominated. So does one whose objectives are not numbers.
//
// The zero value uses the defaults and no bound.
type Halter struct {
	// First rung in epochs; zero means 1.
	First int
	// Reduction is how many trials come to each that goes on, and the ratio of rungs; below 2 means DefaultReduction.
	Reduction int
	// Bound is the greatest error with which a trial may go on; zero means any.
	Bound float64
}

// DefaultReduction gives the rungs 1, 3, 9, 27 …
const DefaultReduction = 3

var _ search.Halter = Halter{}

func (h Halter) reduction() int {
	if h.Reduction < 2 {
		return DefaultReduction
	}
	return h.Reduction
}

// Rungs implements search.Halter.
func (h Halter) Rungs(epochs int) []int {
	var out []int
	for rung := max(h.First, 1); rung < epochs; rung *= h.reduction() {
		out = append(out, rung)
		if rung > math.MaxInt/h.reduction() {
			break
		}
	}
	return out
}

// Halt implements search.Halter.
func (h Halter) Halt(earlier []search.Progress, now search.Progress) bool {
	if !h.promising(now) {
		return true
	}
	points := make([][]float64, 0, len(earlier)+1)
	for _, p := range earlier {
		if len(p.Objectives) == len(now.Objectives) && p.Number != now.Number && h.promising(p) {
			points = append(points, p.Objectives)
		}
	}
	points = append(points, now.Objectives)
	if len(points) < h.reduction() {
		return false
	}
	return !among(points, len(points)-1, len(points)/h.reduction())
}

// promising reports whether the trial may go on at all.
func (h Halter) promising(p search.Progress) bool {
	for _, v := range p.Objectives {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return false
		}
	}
	return len(p.Objectives) > 0 && (h.Bound <= 0 || p.Objectives[0] <= h.Bound)
}

// among reports whether the given point is one of the best keep.
func among(points [][]float64, which, keep int) bool {
	ranks := pareto.BestRanks(points, keep)
	if ranks[which] < 0 {
		return false
	}
	var better int
	var peers []int
	for i, rank := range ranks {
		switch {
		case rank >= 0 && rank < ranks[which]:
			better++
		case rank == ranks[which]:
			peers = append(peers, i)
		}
	}
	return better+len(peers) <= keep || netHas(points, peers, which, keep-better)
}

// netHas reports whether the point is one of the first size members of the ε-net over peers.
func netHas(points [][]float64, peers []int, which, size int) bool {
	scales := ranges(points)
	distance := make([]float64, len(peers)) // to the nearest taken, -1 once taken itself
	for i := range distance {
		distance[i] = math.Inf(1)
	}
	for range size {
		next := -1
		for i, p := range peers {
			if distance[i] < 0 {
				continue
			}
			if next < 0 || cmp.Or(cmp.Compare(distance[next], distance[i]), cmp.Compare(points[p][0], points[peers[next]][0])) < 0 {
				next = i
			}
		}
		if peers[next] == which {
			return true
		}
		for i, p := range peers {
			distance[i] = min(distance[i], squared(points[p], points[peers[next]], scales))
		}
		distance[next] = -1
	}
	return false
}

// ranges returns the width of each objective over the points.
func ranges(points [][]float64) []float64 {
	out := make([]float64, len(points[0]))
	for j := range out {
		low, high := math.Inf(1), math.Inf(-1)
		for _, p := range points {
			low, high = min(low, p[j]), max(high, p[j])
		}
		out[j] = high - low
	}
	return out
}

// squared returns the squared distance of two points; objectives without a range do not count.
func squared(a, b, scales []float64) float64 {
	var sum float64
	for j, s := range scales {
		if s > 0 {
			d := (a[j] - b[j]) / s
			sum += float64(d * d)
		}
	}
	return sum
}
