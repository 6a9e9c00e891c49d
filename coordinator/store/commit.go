package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// Bounds of one log entry, and of entries on their way.
const (
	maxBatchCommands = 512
	maxBatchBytes    = 1 << 20
	// maxInFlight entries may be on their way at once. While they are, further calls
	// gather and share the next entry.
	maxInFlight = 2
)

// call is one Apply that waits for its results.
type call struct {
	cmds []*v1.Command
	size int
	// taken and gone are guarded by the committer's lock: a call is either taken into
	// an entry or given up by its caller, never both. One that was taken may be left by
	// its caller all the same, who then does not know its outcome.
	taken, gone, left bool
	done              chan struct{}
	results           []Result
	err               error
}

func (c *call) finish(results []Result, err error) {
	c.results, c.err = results, err
	close(c.done)
}

// committer gathers concurrent calls into entries: group commit.
type committer struct {
	raft *raft.Raft
	// ended is closed when Raft has ended.
	ended <-chan struct{}
	// cause tells why the store has stopped, nil while it has not.
	cause func() error
	// late is called when commands were applied that their caller has left.
	late    func()
	timings *timings

	mu    sync.Mutex
	queue []*call
	shut  bool
	wake  chan struct{}

	slots chan struct{}
	done  chan struct{}
	wg    sync.WaitGroup
}

func newCommitter(r *raft.Raft, ended <-chan struct{}, cause func() error, late func(), t *timings) *committer {
	c := &committer{
		raft: r, ended: ended, cause: cause, late: late, timings: t, wake: make(chan struct{}, 1),
		slots: make(chan struct{}, maxInFlight), done: make(chan struct{}),
	}
	c.wg.Go(c.run)
	return c
}

// stop refuses further calls and waits for those on their way; shut Raft down first.
func (c *committer) stop() {
	c.mu.Lock()
	c.shut = true
	queue := c.queue
	c.queue = nil
	c.mu.Unlock()
	close(c.done)
	for _, call := range queue {
		call.finish(nil, ErrClosed)
	}
	c.wg.Wait()
}

// apply hands the commands in and waits for their results.
func (c *committer) apply(ctx context.Context, cmds []*v1.Command) ([]Result, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	call := &call{cmds: cmds, done: make(chan struct{})}
	for _, cmd := range cmds {
		call.size += proto.Size(cmd)
	}
	c.mu.Lock()
	if c.shut {
		c.mu.Unlock()
		return nil, ErrClosed
	}
	c.queue = append(c.queue, call)
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
	select {
	case <-call.done:
		return call.results, call.err
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-call.done: // just now
		return call.results, call.err
	default:
	}
	if !call.taken {
		call.gone = true
		return nil, ctx.Err()
	}
	call.left = true
	return nil, fmt.Errorf("%w: %w", ErrUncertain, ctx.Err())
}

func (c *committer) run() {
	for {
		select {
		case c.slots <- struct{}{}:
		case <-c.done:
			return
		}
		calls := c.take()
		for len(calls) == 0 {
			select {
			case <-c.wake:
			case <-c.done:
				return
			}
			calls = c.take()
		}
		c.commit(calls)
	}
}

// take removes the calls of the next entry from the queue.
func (c *committer) take() []*call {
	c.mu.Lock()
	defer c.mu.Unlock()
	var calls []*call
	commands, size := 0, 0
	for len(c.queue) > 0 {
		next := c.queue[0]
		if next.gone {
			c.queue = c.queue[1:]
			continue
		}
		if len(calls) > 0 && (commands+len(next.cmds) > maxBatchCommands || size+next.size > maxBatchBytes) {
			break
		}
		next.taken = true
		calls = append(calls, next)
		commands, size = commands+len(next.cmds), size+next.size
		c.queue = c.queue[1:]
	}
	return calls
}

// commit hands one entry to Raft and distributes its results when they come.
func (c *committer) commit(calls []*call) {
	free := func() { <-c.slots }
	data, err := entryOf(calls)
	if err != nil {
		for _, call := range calls {
			call.finish(nil, err)
		}
		free()
		return
	}
	begin := time.Now()
	future := c.raft.Apply(data, 0)
	c.wg.Go(func() {
		defer free()
		if c.distribute(calls, future) {
			c.timings.commit.Observe(time.Since(begin).Seconds())
		}
	})
}

// entryOf encodes a lone command as itself, several as a batch.
func entryOf(calls []*call) ([]byte, error) {
	var cmds []*v1.Command
	for _, call := range calls {
		cmds = append(cmds, call.cmds...)
	}
	cmd := cmds[0]
	if len(cmds) > 1 {
		cmd = &v1.Command{Op: &v1.Command_Batch{Batch: &v1.Batch{Commands: cmds}}}
	}
	data, err := proto.Marshal(cmd)
	if err != nil {
		return nil, fmt.Errorf("%w: encode command: %w", ErrInvalid, err)
	}
	return data, nil
}

// distribute waits for an entry's results and tells whether there are any.
func (c *committer) distribute(calls []*call, future raft.ApplyFuture) bool {
	if err := answerOf(future, c.ended); err != nil {
		err = c.commitError(err)
		for _, call := range calls {
			call.finish(nil, err)
		}
		return false
	}
	r, ok := future.Response().(*reply)
	if !ok || r.err != nil {
		err := fmt.Errorf("%w: the state was not written", ErrUncertain)
		if ok {
			err = fmt.Errorf("%w: %w", ErrUncertain, r.err)
		}
		for _, call := range calls {
			call.finish(nil, err)
		}
		return false
	}
	at, late := 0, false
	c.mu.Lock()
	for _, call := range calls {
		call.finish(r.results[at:at+len(call.cmds)], nil)
		at += len(call.cmds)
		late = late || call.left
	}
	c.mu.Unlock()
	if late {
		c.late()
	}
	c.timings.commands.Observe(float64(at))
	return true
}

// commitError translates Raft's errors: what surely was not appended is ErrNotLeader,
// what may have been is ErrUncertain.
func (c *committer) commitError(err error) error {
	cause := c.cause()
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress), errors.Is(err, raft.ErrEnqueueTimeout):
		if cause != nil {
			err = cause // why it leads no more
		}
		return fmt.Errorf("%w: %w", ErrNotLeader, err)
	case cause != nil:
		// Raft loses the chain of a failed write's error.
		return fmt.Errorf("%w: %w", ErrUncertain, cause)
	}
	if errors.Is(err, raft.ErrRaftShutdown) {
		return fmt.Errorf("%w: %w", ErrUncertain, ErrClosed)
	}
	return fmt.Errorf("%w: %w", ErrUncertain, err)
}
