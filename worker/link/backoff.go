package link

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff waits longer each time, with jitter, up to 5 s.
type Backoff struct{ first, next, most time.Duration }

// NewBackoff returns a Backoff whose first wait is at most first.
func NewBackoff(first time.Duration) *Backoff {
	return &Backoff{first: first, next: first, most: 5 * time.Second}
}

// Reset starts again with the shortest wait.
func (b *Backoff) Reset() { b.next = b.first }

// Sleep waits and tells whether ctx still stands.
func (b *Backoff) Sleep(ctx context.Context) bool { return b.wait(ctx, nil) }

// wait is Sleep that wake ends early, and starts over.
func (b *Backoff) wait(ctx context.Context, wake <-chan struct{}) bool {
	d := b.next/2 + rand.N(b.next/2+1)
	b.next = min(2*b.next, max(b.most, b.first))
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-wake:
		b.Reset()
		return true
	case <-ctx.Done():
		return false
	}
}
