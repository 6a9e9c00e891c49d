package pareto

import "sort"

// step is a corner of a stair.
type step struct{ x, y float64 }

// stair is the boundary of a set of points in the plane, lower is better: its corners by rising x and falling y, none of
// which covers another.
type stair []step

// after returns the index of the first corner with a greater x.
func (s stair) after(x float64) int {
	return sort.Search(len(s), func(i int) bool { return s[i].x > x })
}

// covers reports whether a corner is at least as good as (x, y) in both.
func (s stair) covers(x, y float64) bool {
	i := s.after(x)
	return i > 0 && s[i-1].y <= y
}

// insert adds (x, y), drops the corners that it covers, and returns the area that becomes dominated within the
// reference (right, top). The point must lie within the reference. A covered point changes nothing.
func (s *stair) insert(x, y, right, top float64) (area float64) {
	old := *s
	end := old.after(x)
	if end > 0 && old[end-1].y <= y {
		return 0
	}
	// The corners from begin up to end have a greater or equal y; the first of them may share x.
	begin := end
	if begin > 0 && old[begin-1].x == x {
		begin--
	}
	ceiling := top
	if begin > 0 {
		ceiling = old[begin-1].y
	}
	left := x
	for end = begin; end < len(old) && old[end].y >= y; end++ {
		area += float64((old[end].x - left) * (ceiling - y))
		left, ceiling = old[end].x, old[end].y
	}
	if end < len(old) {
		right = old[end].x
	}
	area += float64((right - left) * (ceiling - y))

	switch n := end - begin; {
	case n == 0:
		old = append(old, step{})
		copy(old[begin+1:], old[begin:])
	case n > 1:
		old = append(old[:begin+1], old[end:]...)
	}
	old[begin] = step{x, y}
	*s = old
	return area
}
