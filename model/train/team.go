package train

import (
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"

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
type team struct {
	workers []*worker
	wake    []chan struct{} // one for each helper
	done    sync.WaitGroup  // helpers still busy with the current run
	exit    sync.WaitGroup

	job  task
	n    int64
	next atomic.Int64

	mu       sync.Mutex
	err      error
	errIndex int
}

// newTeam starts threads-1 helpers. Close it to end them.
func newTeam(threads int) *team {
	t := &team{}
	for i := range max(1, threads) {
		t.workers = append(t.workers, &worker{id: i})
	}
	for _, w := range t.workers[1:] {
		c := make(chan struct{}, 1)
		t.wake = append(t.wake, c)
		t.exit.Go(func() {
			for range c {
				t.work(w)
				t.done.Done()
			}
		})
	}
	return t
}

// close ends the helpers and waits for them.
func (t *team) close() {
	for _, c := range t.wake {
		close(c)
	}
	t.exit.Wait()
	t.wake = nil
}

// run calls j.do for 0 to n-1 and returns the error of the smallest index that
// gave one. It is not for concurrent use.
func (t *team) run(n int, j task) error {
	if n == 0 {
		return nil
	}
	t.job, t.n, t.err = j, int64(n), nil
	t.next.Store(0)
	helpers := t.wake[:min(len(t.wake), n-1)]
	t.done.Add(len(helpers))
	for _, c := range helpers {
		c <- struct{}{}
	}
	t.work(t.workers[0])
	t.done.Wait()
	t.job = nil
	return t.err
}

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
