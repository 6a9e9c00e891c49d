package worker

import (
	"context"
	"sync"
	"time"
)

// maxSick bounds the pause of a worker whose tasks keep failing.
const maxSick = time.Minute

// health makes a worker whose tasks fail one after the other, on a full disk say,
// pause before it takes more: so that it does not use up the attempts that others
// would make good.
type health struct {
	mu    sync.Mutex
	next  time.Duration // the pause after the next failure
	until time.Time
}

// failed notes a failure that another attempt may not have, and returns the pause
// that it brings; first is the pause after the first one.
func (h *health) failed(first time.Duration) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	pause := max(h.next, first)
	h.next = min(2*pause, maxSick)
	h.until = time.Now().Add(pause)
	return pause
}

// well notes a success.
func (h *health) well() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.next, h.until = 0, time.Time{}
}

// wait lets the pause pass.
func (h *health) wait(ctx context.Context) {
	h.mu.Lock()
	left := time.Until(h.until)
	h.mu.Unlock()
	if left <= 0 {
		return
	}
	t := time.NewTimer(left)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
