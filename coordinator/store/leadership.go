package store

import "sync"

// Leadership is one transition of this replica.
type Leadership struct {
	// Leader: leadership began; else it ended.
	Leader bool
	// Term is Raft's term when the transition was seen.
	Term uint64
}

// transitions takes leadership changes from Raft at once and keeps them, in order,
// until they are received: Raft stands still while its channel is full.
type transitions struct {
	in   chan bool
	out  chan Leadership
	done chan struct{}
	wg   sync.WaitGroup
	term func() uint64
	// led is told of each beginning, out of the way.
	led func()
}

func newTransitions() *transitions {
	return &transitions{in: make(chan bool, 1), out: make(chan Leadership), done: make(chan struct{})}
}

// start begins to hand on transitions; term gives Raft's current term, and led is
// called, without blocking anything, when leadership begins.
func (t *transitions) start(term func() uint64, led func()) {
	t.term, t.led = term, led
	t.wg.Go(t.run)
}

func (t *transitions) run() {
	defer close(t.out)
	var queue []Leadership
	for {
		var out chan Leadership
		var head Leadership
		if len(queue) > 0 {
			out, head = t.out, queue[0]
		}
		select {
		case leader := <-t.in:
			if leader {
				t.led()
			}
			queue = append(queue, Leadership{Leader: leader, Term: t.term()})
		case out <- head:
			queue = queue[1:]
		case <-t.done:
			return
		}
	}
}

func (t *transitions) stop() {
	close(t.done)
	t.wg.Wait()
}
