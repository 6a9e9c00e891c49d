package worker

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
)

// Gate keeps this process quiet while it measures: training pauses at the next
// step, and all of it is paused before a measurement begins. The zero value is
// ready.
type Gate struct {
	wanted atomic.Bool // a measurement waits or runs: the fast path of Step

	mu      sync.Mutex
	noisy   int
	quiet   bool          // somebody has, or waits for, quiet
	changed chan struct{} // closed at the next change
}

// Enter begins noisy work, once no measurement waits or runs.
func (g *Gate) Enter(ctx context.Context) error {
	return g.await(ctx, func() bool {
		if g.quiet {
			return false
		}
		g.noisy++
		return true
	})
}

// Leave ends noisy work.
func (g *Gate) Leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.noisy--
	g.signal()
}

// Step is called in noisy work where it may pause: it waits while a measurement
// wants quiet. After an error the work is noisy still, and Leave must be called.
func (g *Gate) Step(ctx context.Context) error {
	if !g.wanted.Load() {
		return ctx.Err()
	}
	g.Leave()
	err := g.Enter(ctx)
	if err != nil {
		g.mu.Lock()
		g.noisy++
		g.mu.Unlock()
	}
	return err
}

// Quiet waits until all noisy work has paused or ended, one caller at a time, and
// keeps it so until release is called.
func (g *Gate) Quiet(ctx context.Context) (release func(), err error) {
	err = g.await(ctx, func() bool {
		if g.quiet {
			return false
		}
		g.quiet = true
		g.wanted.Store(true)
		return true
	})
	if err != nil {
		return nil, err
	}
	release = func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.quiet = false
		g.wanted.Store(false)
		g.signal()
	}
	if err := g.await(ctx, func() bool { return g.noisy == 0 }); err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// await returns when take, called with mu held, has returned true, or with the
// context's error.
func (g *Gate) await(ctx context.Context, take func() bool) error {
	for {
		g.mu.Lock()
		if ctx.Err() == nil && take() {
			g.mu.Unlock()
			return nil
		}
		if g.changed == nil {
			g.changed = make(chan struct{})
		}
		changed := g.changed
		g.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for a measurement: %w", context.Cause(ctx))
		}
	}
}

// signal wakes those who wait. The caller holds mu.
func (g *Gate) signal() {
	if g.changed != nil {
		close(g.changed)
		g.changed = nil
	}
}
