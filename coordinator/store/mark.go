package store

import (
	"context"
	"sync"
)

// mark is an index that goes up and can be waited for.
type mark struct {
	mu    sync.Mutex
	index uint64
	next  chan struct{} // closed when index changes
}

func newMark() *mark { return &mark{next: make(chan struct{})} }

func (m *mark) get() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.index
}

// advance moves the mark up to index; never down.
func (m *mark) advance(index uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if index > m.index {
		m.set(index)
	}
}

// reset moves the mark to index, also down: after a restore.
func (m *mark) reset(index uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.set(index)
}

func (m *mark) set(index uint64) {
	m.index = index
	close(m.next)
	m.next = make(chan struct{})
}

// wait returns when the mark is at index or above, or with ctx's error, or with
// ErrClosed when done is closed.
func (m *mark) wait(ctx context.Context, done <-chan struct{}, index uint64) error {
	for {
		m.mu.Lock()
		at, next := m.index, m.next
		m.mu.Unlock()
		if at >= index {
			return nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return ctx.Err()
		case <-done:
			return ErrClosed
		}
	}
}
