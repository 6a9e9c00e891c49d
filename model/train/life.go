package train

import (
	"cmp"
	"slices"
)

// use is when a gradient is needed on the way back: from which pass to which,
// and from which unit to which, counted over all passes.
type use struct {
	from, to    int
	first, last int
	writes      []int // units that write or overwrite it, in order
}

// life is the joint use of gradients of one size that share a place.
type life struct {
	use
	values []*value
}

func (l *life) size() int { return l.values[0].size }

// kept says whether the gradient is needed for the whole batch.
func (l *life) kept() bool {
	return l.from != l.to || slices.ContainsFunc(l.values, func(v *value) bool { return v.keep })
}

// eachBackward calls f for every unit in the order of the way back.
func (b *block) eachBackward(f func(pass, number int, u unit)) {
	number := 0
	for i, p := range b.bwd {
		for _, u := range p.units {
			f(i, number, u)
			number++
		}
	}
}

// uses finds when each gradient is touched.
func (b *block) uses() map[*value]*use {
	uses := map[*value]*use{}
	b.eachBackward(func(pass, number int, u unit) {
		touch := func(v *value, writes bool) {
			s := uses[v]
			if s == nil {
				s = &use{from: pass, first: number}
				uses[v] = s
			}
			s.to, s.last = pass, number
			if writes {
				s.writes = append(s.writes, number)
			}
		}
		v, overwrites := gradient(u)
		touch(v, overwrites)
		if _, ok := u.(*dense); ok {
			v.keep = true
		}
		if _, ok := u.(normApply); ok {
			return // normStats writes the gradient of the input
		}
		for _, in := range u.ports() {
			if in.needGrad {
				touch(in.value, true)
			}
		}
	})
	return uses
}

// gradient is the value whose gradient a unit starts from, and whether the unit
// overwrites it by that before the activation.
func gradient(u unit) (v *value, overwrites bool) {
	switch u := u.(type) {
	case normStats:
		return u.out, false
	case interface{ masks() bool }:
		overwrites = u.masks()
	}
	return u.result(), overwrites
}

// lives groups gradients that share a place, in the order in which they come to
// life. An addition passes its gradient on unchanged, so those of its inputs
// need no place of their own.
func (b *block) lives() []*life {
	uses := b.uses()
	of := map[*value]*life{}
	var all []*life
	for _, v := range append(b.results(), b.in) {
		if s := uses[v]; s != nil {
			of[v] = &life{use: *s, values: []*value{v}}
			all = append(all, of[v])
		}
	}
	b.eachBackward(func(_, number int, u unit) {
		a, ok := u.(*add)
		if !ok || a.out == b.out {
			return
		}
		for _, in := range a.ports2() {
			if out := of[a.out]; in.needGrad && !in.add && in.value != b.in && joinable(uses, out, of[in.value], in.value, number) {
				in.same = true
				all = slices.DeleteFunc(all, func(l *life) bool { return l == of[in.value] })
				out.join(of[in.value])
				for _, v := range out.values {
					of[v] = out
				}
			}
		}
	})
	slices.SortStableFunc(all, func(a, b *life) int { return cmp.Compare(a.first, b.first) })
	return all
}

// joinable says whether the gradients of an addition's result and of its input
// in can share a place: nobody overwrites one while another is needed. number is
// that of the addition, whose own writing falls away, and does so for uses too.
func joinable(uses map[*value]*use, out, own *life, in *value, number int) bool {
	if out == own || uses[in].writes[0] != number {
		return false
	}
	uses[in].writes = uses[in].writes[1:]
	for _, v := range out.values {
		for _, w := range own.values {
			if uses[v].overwrittenIn(uses[w]) || uses[w].overwrittenIn(uses[v]) {
				uses[in].writes = append([]int{number}, uses[in].writes...)
				return false
			}
		}
	}
	return true
}

// overwrittenIn says whether the gradient changes while the other is needed.
func (s *use) overwrittenIn(other *use) bool {
	return slices.ContainsFunc(s.writes, func(n int) bool { return other.first < n && n <= other.last })
}

// join adds the values of another life.
func (l *life) join(o *life) {
	l.values = append(l.values, o.values...)
	l.from, l.to = min(l.from, o.from), max(l.to, o.to)
	l.first, l.last = min(l.first, o.first), max(l.last, o.last)
}
