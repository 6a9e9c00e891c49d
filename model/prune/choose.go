package prune

import "slices"

// choose removes the n channels with the lowest scores, ties by index, but none that
// one of the group's layers needs to keep its least, or that alone holds the group
// together. It gives what is kept.
func (g *Group) choose(scores []float64, n int) []int {
	left := map[int]int{} // layer: channels that stay
	for _, m := range g.members {
		for _, x := range m {
			left[x.Layer]++
		}
	}
	order := make([]int, g.Channels)
	for c := range order {
		order[c] = c
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case scores[a] < scores[b]:
			return -1
		case scores[a] > scores[b]:
			return 1
		}
		return 0
	})
	gone := make([]bool, g.Channels)
	for _, c := range order {
		if n == 0 {
			break
		}
		if gone[c] = g.spare(c, left); gone[c] && !g.connected(gone) {
			g.restore(c, left)
			gone[c] = false
		}
		if gone[c] {
			n--
		}
	}
	keep := make([]int, 0, g.Channels)
	for c := range gone {
		if !gone[c] {
			keep = append(keep, c)
		}
	}
	return keep
}

// spare takes channel c from left, if every layer keeps its least.
func (g *Group) spare(c int, left map[int]int) bool {
	for _, x := range g.members[c] {
		left[x.Layer]--
	}
	for _, x := range g.members[c] {
		if left[x.Layer] < g.least[x.Layer] {
			g.restore(c, left)
			return false
		}
	}
	return true
}

func (g *Group) restore(c int, left map[int]int) {
	for _, x := range g.members[c] {
		left[x.Layer]++
	}
}

// connected tells whether the channels that stay still tie all producers together. In
// most groups each does; where concatenations meet additions, few may.
func (g *Group) connected(gone []bool) bool {
	leader := map[int]int{}
	for _, i := range g.Producers {
		leader[i] = i
	}
	find := func(i int) int {
		for leader[i] != i {
			i = leader[i]
		}
		return i
	}
	parts := len(g.Producers)
	for c, members := range g.members {
		if parts == 1 {
			return true
		}
		if gone[c] {
			continue
		}
		for _, m := range members[1:] {
			if p, q := find(members[0].Layer), find(m.Layer); p != q {
				leader[q] = p
				parts--
			}
		}
	}
	return parts == 1
}
