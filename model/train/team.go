package train

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/espalier-ml/espalier/model/kernel"
)

// worker is one goroutine's share of what operations need while they run.
type worker struct {
	id int
	s  kernel.Scratch

	local  []float32 // gradients that live only within a chunk
	addend []float32 // a gradient on its way to be added
}

// task is what a team runs for every index of a range.
type task interface {
	do(w *worker, i int) error
}

// team runs tasks on a fixed number of goroutines, the caller being one of
// them. Which goroutine runs which index is left to chance, so a task must give
// the same result whoever runs it.
//
// The parts of a step are short, and waking a sleeping thread takes as long as
// many of them: whoever has to wait looks again and again for a moment before
// it goes to sleep.
type team struct {
	workers []*worker
	helpers []*helper
	exit    sync.WaitGroup

	job  task
	n    int64
	next atomic.Int64

	left   atomic.Int64  // goroutines that still work on the current run
	asleep atomic.Bool   // the caller waits for done
	done   chan struct{} // wakes the caller; it must look at left again

	mu       sync.Mutex
	err      error
	errIndex int
}

// helper is a goroutine of a team other than the caller.
type helper struct {
	state atomic.Int32
	wake  chan struct{} // sent to when state was helperAsleep
}

// States of a helper.
const (
	helperIdle int32 = iota // looks for work
	helperAsleep
	helperBusy
	helperExit
)

// patience is how long one looks before going to sleep.
const patience = 20 * time.Microsecond

// spin waits for ready for a moment, and reports whether it came. With one
// processor whoever is waited for could not run meanwhile.
func spin(ready func() bool) bool {
	if runtime.GOMAXPROCS(0) == 1 {
		return ready()
	}
	for start := time.Now(); time.Since(start) < patience; {
		for range 100 {
			if ready() {
				return true
			}
		}
	}
	return false
}

// newTeam starts threads-1 helpers. Close it to end them.
func newTeam(threads int) *team {
	t := &team{done: make(chan struct{}, 1)}
	for i := range max(1, threads) {
		t.workers = append(t.workers, &worker{id: i})
	}
	for _, w := range t.workers[1:] {
		h := &helper{wake: make(chan struct{}, 1)}
		t.helpers = append(t.helpers, h)
		t.exit.Go(func() { t.help(h, w) })
	}
	return t
}

// help works on every run that the helper is called to.
func (t *team) help(h *helper, w *worker) {
	for {
		if !spin(func() bool { return h.state.Load() != helperIdle }) && h.state.CompareAndSwap(helperIdle, helperAsleep) {
			<-h.wake
		}
		if h.state.Load() == helperExit {
			return
		}
		t.work(w)
		h.state.Store(helperIdle)
		if t.left.Add(-1) == 0 && t.asleep.CompareAndSwap(true, false) {
			t.done <- struct{}{}
		}
	}
}

// call gives the helper something to do.
func (h *helper) call(state int32) {
	if h.state.Swap(state) == helperAsleep {
		h.wake <- struct{}{}
	}
}

// close ends the helpers and waits for them.
func (t *team) close() {
	for _, h := range t.helpers {
		h.call(helperExit)
	}
	t.exit.Wait()
	t.helpers = nil
}

// run calls j.do for 0 to n-1 and returns the error of the smallest index that
// gave one. It is not for concurrent use.
func (t *team) run(n int, j task) error {
	if n == 0 {
		return nil
	}
	t.job, t.n, t.err = j, int64(n), nil
	t.next.Store(0)
	helpers := t.helpers[:min(len(t.helpers), n-1)]
	t.left.Store(int64(len(helpers)))
	for _, h := range helpers {
		h.call(helperBusy)
	}
	t.work(t.workers[0])
	t.wait()
	t.job = nil
	return t.err
}

// wait returns when no helper works any more. A helper that was the last of an
// earlier run may wake it too early.
func (t *team) wait() {
	if spin(t.idle) {
		return
	}
	for {
		t.asleep.Store(true)
		if t.idle() && t.asleep.CompareAndSwap(true, false) {
			return
		}
		<-t.done
		if t.idle() {
			return
		}
	}
}

func (t *team) idle() bool { return t.left.Load() == 0 }

func (t *team) work(w *worker) {
	for {
		i := t.next.Add(1) - 1
		if i >= t.n {
			return
		}
		if err := t.call(w, int(i)); err != nil {
			t.mu.Lock()
			if t.err == nil || int(i) < t.errIndex {
				t.err, t.errIndex = err, int(i)
			}
			t.mu.Unlock()
		}
	}
}

// call turns a panic of the task into an error, since a helper's panic would
// end the process.
func (t *team) call(w *worker, i int) (err error) {
	defer recovered(&err)
	return t.job.do(w, i)
}

// recovered is deferred; it turns a panic into an error that wraps ErrOperator.
func recovered(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("%w: panic: %v\n%s", ErrOperator, r, debug.Stack())
	}
}
