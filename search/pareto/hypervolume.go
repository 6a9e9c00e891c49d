package pareto

import "slices"

// Hypervolume returns the volume that the points dominate within the reference, exactly but for rounding. Points that do
// not lie strictly within the reference, and dominated ones, add nothing. It takes n log n for up to three
// objectives; more are sliced along the last one and reduced to fewer by limiting the other points to each slice
// (While, Bradstreet, Barone: A fast way of calculating exact hypervolumes, 2012).
func Hypervolume(points [][]float64, reference []float64) float64 {
	inside := make([][]float64, 0, len(points))
	for _, p := range points {
		if within(p, reference) {
			inside = append(inside, p)
		}
	}
	return volume(inside, reference)
}

// within reports whether p is better than the reference in every objective.
func within(p, reference []float64) bool {
	for i, r := range reference {
		if !(p[i] < r) {
			return false
		}
	}
	return true
}

// volume is Hypervolume over the first len(reference) objectives of points within the reference. It may reorder points.
func volume(points [][]float64, reference []float64) float64 {
	switch {
	case len(points) == 0:
		return 0
	case len(points) == 1 || len(reference) == 0:
		return box(points[0], reference)
	case len(reference) == 1:
		return volume1(points, reference[0])
	case len(reference) == 2:
		return volume2(points, reference)
	case len(reference) == 3:
		return volume3(points, reference)
	}
	return volumeN(points, reference)
}

// box is the volume that one point dominates.
func box(p, reference []float64) float64 {
	v := 1.0
	for i, r := range reference {
		v = float64(v * (r - p[i])) // the conversion keeps a compiler from fusing it with what follows
	}
	return v
}

func volume1(points [][]float64, reference float64) float64 {
	least := points[0][0]
	for _, p := range points[1:] {
		least = min(least, p[0])
	}
	return reference - least
}

func volume2(points [][]float64, reference []float64) float64 {
	sortBy(points, 0)
	var area float64
	floor := reference[1]
	for _, p := range points {
		if p[1] < floor {
			area += float64((reference[0] - p[0]) * (floor - p[1]))
			floor = p[1]
		}
	}
	return area
}

// volume3 sweeps along the third objective and keeps the dominated area of the plane.
func volume3(points [][]float64, reference []float64) float64 {
	sortBy(points, 2)
	corners := make(stair, 0, len(points))
	var total, area float64
	for i, p := range points {
		area += corners.insert(p[0], p[1], reference[0], reference[1])
		next := reference[2]
		if i+1 < len(points) {
			next = points[i+1][2]
		}
		total += float64(area * (next - p[2]))
	}
	return total
}

// volumeN adds, from the worst last objective to the best, what each point dominates and no later one does.
func volumeN(points [][]float64, reference []float64) float64 {
	last := len(reference) - 1
	sortBy(points, last)
	var total float64
	lower := reference[:last]
	for i := len(points) - 1; i >= 0; i-- {
		p := points[i]
		total += float64((reference[last] - p[last]) * exclusive(p, points[:i], lower))
	}
	return total
}

// exclusive returns the volume that p dominates and none of the others does, over the first len(reference) objectives.
func exclusive(p []float64, others [][]float64, reference []float64) float64 {
	n := len(reference)
	limited := make([][]float64, 0, len(others))
	flat := make([]float64, len(others)*n)
	for j, q := range others {
		l := flat[j*n : (j+1)*n : (j+1)*n]
		for k := range l {
			l[k] = max(p[k], q[k])
		}
		if covers(l, p[:n]) {
			return 0
		}
		if within(l, reference) {
			limited = append(limited, l)
		}
	}
	if n > 3 {
		keep := NonDominated(limited)
		for i, k := range keep {
			limited[i] = limited[k]
		}
		limited = limited[:len(keep)]
	}
	return box(p, reference) - volume(limited, reference)
}

func sortBy(points [][]float64, objective int) {
	slices.SortFunc(points, func(p, q []float64) int {
		for k := objective; k >= 0; k-- { // the other objectives make the order of equal ones the same every time
			switch {
			case p[k] < q[k]:
				return -1
			case p[k] > q[k]:
				return 1
			}
		}
		return 0
	})
}

// Contributions returns for each point the volume within the reference that no other point dominates. Equal points
// contribute nothing.
func Contributions(points [][]float64, reference []float64) []float64 {
	out := make([]float64, len(points))
	others := make([][]float64, 0, len(points))
	for i, p := range points {
		if !within(p, reference) {
			continue
		}
		others = append(append(others[:0], points[:i]...), points[i+1:]...)
		out[i] = max(exclusive(p, others, reference), 0)
	}
	return out
}

// Subset returns the indices of k points, in the order of choice, that together dominate much of the volume within the
// reference: each adds the most to those before it, ties going to the first. This greedy choice is within a factor
// of 1 − 1/e of the best subset (Nemhauser, Wolsey, Fisher, 1978). With k at least the number of points it
// returns all of them.
func Subset(points [][]float64, reference []float64, k int) []int {
	k = min(max(k, 0), len(points))
	gains := make([]float64, len(points)) // upper bounds, since gains only shrink as the subset grows
	for i, p := range points {
		if within(p, reference) {
			gains[i] = box(p, reference)
		}
	}
	fresh := make([]int, len(points)) // size of the subset for which the gain was computed
	taken := make([]bool, len(points))
	out := make([]int, 0, k)
	chosen := make([][]float64, 0, k)
	for len(out) < k {
		best := -1
		for i, g := range gains {
			if !taken[i] && (best < 0 || g > gains[best]) {
				best = i
			}
		}
		if fresh[best] < len(chosen) {
			if gains[best] > 0 {
				gains[best] = min(gains[best], max(exclusive(points[best], chosen, reference), 0))
			}
			fresh[best] = len(chosen)
			continue
		}
		taken[best] = true
		out = append(out, best)
		chosen = append(chosen, points[best])
	}
	return out
}
