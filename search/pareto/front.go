package pareto

import (
	"cmp"
	"math"
	"slices"
)

// Point is the result of one trial.
type Point struct {
	// Number is the trial's.
	Number     int       `json:"trial"`
	Objectives []float64 `json:"objectives"`
}

// Front is the set of points that nothing else added dominates; equal points are all members. It depends on the set of
// points added, never on their order. The zero value is empty and ready. It is not safe for concurrent use.
type Front struct {
	members []Point
}

// Add offers a point to the front. It reports whether the point is now a member and which members it removed, by number
// in the front's order. A point with a NaN, one with another number of objectives than the members, and one whose number
// is a member already change nothing: the first result of a trial counts.
func (f *Front) Add(p Point) (added bool, removed []int) {
	for _, v := range p.Objectives {
		if math.IsNaN(v) {
			return false, nil
		}
	}
	for _, m := range f.members {
		if m.Number == p.Number || len(m.Objectives) != len(p.Objectives) || Dominates(m.Objectives, p.Objectives) {
			return false, nil
		}
	}
	f.members = slices.DeleteFunc(f.members, func(m Point) bool {
		gone := Dominates(p.Objectives, m.Objectives)
		if gone {
			removed = append(removed, m.Number)
		}
		return gone
	})
	at, _ := slices.BinarySearchFunc(f.members, p, comparePoints)
	f.members = slices.Insert(f.members, at, p)
	return true, removed
}

// comparePoints orders by objectives, the first one first, then by trial number.
func comparePoints(a, b Point) int {
	if c := slices.Compare(a.Objectives, b.Objectives); c != 0 {
		return c
	}
	return cmp.Compare(a.Number, b.Number)
}

// Members returns a copy of the members, ordered by the first objective, then the second and so on, then by number.
func (f *Front) Members() []Point { return slices.Clone(f.members) }

// Numbers returns the members' trial numbers in the order of Members.
func (f *Front) Numbers() []int {
	out := make([]int, len(f.members))
	for i, m := range f.members {
		out[i] = m.Number
	}
	return out
}

// Has reports whether the numbered trial is a member.
func (f *Front) Has(number int) bool {
	return slices.ContainsFunc(f.members, func(m Point) bool { return m.Number == number })
}

// Len returns the number of members.
func (f *Front) Len() int { return len(f.members) }

// Hypervolume returns the volume that the members dominate within the reference.
func (f *Front) Hypervolume(reference []float64) float64 {
	points := make([][]float64, len(f.members))
	for i, m := range f.members {
		points[i] = m.Objectives
	}
	return Hypervolume(points, reference)
}
