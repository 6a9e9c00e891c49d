package sim

import (
	"container/heap"
	"math/rand/v2"
	"time"
)

// event is something that happens at a time; events of the same time happen in the order in which they were planned.
type event struct {
	at    time.Time
	order int
	run   func()
}

type queue []event

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	if !q[i].at.Equal(q[j].at) {
		return q[i].at.Before(q[j].at)
	}
	return q[i].order < q[j].order
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(event)) }
func (q *queue) Pop() any {
	old := *q
	e := old[len(old)-1]
	*q = old[:len(old)-1]
	return e
}

// clock is the simulated time; only events move it.
type clock struct{ now time.Time }

// Now implements the clocks of dispatch and leader.
func (c *clock) Now() time.Time { return c.now }

// timeline is the clock, what is to come, and the source of all chance.
type timeline struct {
	clock   clock
	events  queue
	planned int
	rng     *rand.Rand
}

// after plans f.
func (t *timeline) after(d time.Duration, f func()) {
	t.planned++
	heap.Push(&t.events, event{t.clock.now.Add(d), t.planned, f})
}

// next runs the next event; false when there is none.
func (t *timeline) next() bool {
	if len(t.events) == 0 {
		return false
	}
	e := heap.Pop(&t.events).(event)
	t.clock.now = e.at
	e.run()
	return true
}

// chance is true with probability p.
func (t *timeline) chance(p float64) bool { return p > 0 && t.rng.Float64() < p }

// between draws a duration.
func (t *timeline) between(low, high time.Duration) time.Duration {
	return low + time.Duration(t.rng.Float64()*float64(high-low))
}
