package check

import (
	"slices"
	"time"
)

// maxOpen bounds how many operations with an answer may be under way on one job at once.
const maxOpen = 64

// place is how far an order of a job's operations has got: the job's state, which of the operations under way are in the order
// already, and how many of those without an answer are, by verb. Those of one verb are all alike, so the number is enough.
type place struct {
	now  life
	in   uint64
	used [4]uint16
}

// verbs are the places in place.used.
var verbs = [4]Verb{Submit, Pause, Resume, Cancel}

// search looks for orders by going through the history in time: an operation is put into the order when its answer comes at the
// latest, and with it only what had to be before it (just-in-time linearization: Lowe, Testing for linearizability, 2017).
// An operation without an answer is used when it changes something; so its time is polynomial in their number, where a search over
// subsets of them is not.
type search struct {
	open   [maxOpen]*Op
	begun  [4]uint16 // operations without an answer that have begun, by verb
	places []place
}

// ordered tells whether the operations on one job can be put in an order that fits their answers and times, and whether that
// could be found out: not with more than 64 under way at once.
func ordered(ops []Op) (ok, decided bool) {
	type event struct {
		at     time.Time
		answer bool
		op     *Op
	}
	var events []event
	for i := range ops {
		events = append(events, event{at: ops[i].Begun, op: &ops[i]})
	}
	for i := range ops {
		if ops[i].Answer != Unknown {
			events = append(events, event{at: ops[i].Ended, answer: true, op: &ops[i]})
		}
	}
	// What begins when another ends is at once with it: beginnings stay before answers.
	slices.SortStableFunc(events, func(a, b event) int { return a.at.Compare(b.at) })
	s := search{places: []place{{now: absent}}}
	for _, e := range events {
		switch {
		case e.answer:
			if s.answer(e.op); len(s.places) == 0 {
				return false, true
			}
		case e.op.Answer == Unknown:
			s.begun[slices.Index(verbs[:], e.op.Verb)]++
		default:
			slot := slices.Index(s.open[:], nil)
			if slot < 0 {
				return false, false
			}
			s.open[slot] = e.op
		}
	}
	return true, true
}

// answer leaves the places in which op is in the order.
func (s *search) answer(op *Op) {
	slot := slices.Index(s.open[:], op)
	mask := uint64(1) << slot
	seen := map[place]bool{}
	best := map[place][]place{} // by state and operations in the order: the fewest used
	todo := s.places
	for len(todo) > 0 {
		p := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[p] {
			continue
		}
		seen[p] = true
		if p.in&mask != 0 {
			p.in &^= mask
			keepFewest(best, p)
			continue
		}
		todo = append(todo, s.next(p)...)
	}
	s.open[slot] = nil
	s.places = nil
	for _, all := range best {
		s.places = append(s.places, all...)
	}
}

// next are the places that one operation more leads to.
func (s *search) next(p place) (out []place) {
	for slot, op := range s.open {
		if op == nil || p.in&(1<<slot) != 0 {
			continue
		}
		if ok, now := step(p.now, *op); ok {
			q := p
			q.now, q.in = now, p.in|1<<slot
			out = append(out, q)
		}
	}
	for i, v := range verbs {
		if _, now := step(p.now, Op{Verb: v, Answer: Unknown}); now != p.now && p.used[i] < s.begun[i] {
			q := p
			q.now = now
			q.used[i]++
			out = append(out, q)
		}
	}
	return out
}

// keepFewest keeps p unless another place with the same state and order has used no more of anything, and drops those that
// have used no less.
func keepFewest(best map[place][]place, p place) {
	key := place{now: p.now, in: p.in}
	noMore := func(a, b place) bool {
		for i := range a.used {
			if a.used[i] > b.used[i] {
				return false
			}
		}
		return true
	}
	if slices.ContainsFunc(best[key], func(q place) bool { return noMore(q, p) }) {
		return
	}
	best[key] = append(slices.DeleteFunc(best[key], func(q place) bool { return noMore(p, q) }), p)
}
