package store

import (
	"slices"
	"sync"
)

// Change says what changed since the subscriber last looked.
type Change struct {
	// Index is the last applied entry it includes.
	Index uint64
	// Jobs are the ids of the jobs that changed (the job, its tasks, trials or
	// fronts), sorted.
	Jobs []string
	// Cluster: workers, devices, data sets or files changed.
	Cluster bool
	// All: the whole state was replaced by a snapshot; anything may have changed.
	All bool
}

// hub hands changes to subscribers. A slow one gets several merged into one.
type hub struct {
	mu   sync.Mutex
	next int
	subs map[int]chan Change
	shut bool
}

func newHub() *hub { return &hub{subs: map[int]chan Change{}} }

// subscribe gives a channel with room for one change, closed by cancel or when the
// store closes.
func (h *hub) subscribe() (<-chan Change, func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	ch := make(chan Change, 1)
	if h.shut {
		close(ch)
		return ch, func() {}
	}
	id := h.next
	h.next++
	h.subs[id] = ch
	return ch, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if _, ok := h.subs[id]; ok {
			delete(h.subs, id)
			close(ch)
		}
	}
}

// publish never blocks: only it sends, so that after taking out a waiting change
// there is room for the merged one.
func (h *hub) publish(c Change) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, ch := range h.subs {
		merged := c
		select {
		case old := <-ch:
			merged = merge(old, c)
		default:
		}
		ch <- merged
	}
}

func merge(a, b Change) Change {
	jobs := append(slices.Clone(a.Jobs), b.Jobs...)
	slices.Sort(jobs)
	return Change{
		Index: b.Index, Jobs: slices.Compact(jobs),
		Cluster: a.Cluster || b.Cluster, All: a.All || b.All,
	}
}

func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.shut = true
	for id, ch := range h.subs {
		delete(h.subs, id)
		close(ch)
	}
}
