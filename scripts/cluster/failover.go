package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/espalier-ml/espalier/worker/load"
)

const (
	// settle is how long the cluster works with all replicas before the next kill.
	settle = time.Second
	// recoverTimeout is when a kill is given up as never recovered from.
	recoverTimeout = 60 * time.Second
)

// witness waits for results that were surely committed by a new leader.
type witness struct {
	mu    sync.Mutex
	gone  time.Time // when the old one was gone; zero while nobody waits
	found chan time.Time
}

// acknowledged takes note of a result. Only an answer to a report that was sent after the old leader's end is a new one's.
func (w *witness) acknowledged(sent, answered time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.gone.IsZero() && sent.After(w.gone) {
		w.gone = time.Time{}
		w.found <- answered
	}
}

// await returns when the first result came whose report was sent after gone.
func (w *witness) await(ctx context.Context, gone time.Time) (time.Time, error) {
	w.mu.Lock()
	w.gone = gone
	w.mu.Unlock()
	select {
	case at := <-w.found:
		return at, nil
	case <-time.After(recoverTimeout):
		return time.Time{}, fmt.Errorf("no result within %v", recoverTimeout)
	case <-ctx.Done():
		return time.Time{}, ctx.Err()
	}
}

// failover kills the leader under load, waits for the next result that is committed, and starts the killed replica again.
func (s *settings) failover(ctx context.Context) (err error) {
	c, err := startCluster(ctx, s.bin, s.replicas)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	w := &witness{found: make(chan time.Time, 1)}
	until := make(chan struct{})
	var loaded error
	var work sync.WaitGroup
	work.Go(func() {
		_, loaded = load.Run(ctx, load.Config{Server: c.server(), Workers: s.workers, Duration: time.Hour, Until: until, Acknowledged: w.acknowledged})
	})
	times, err := s.killAll(ctx, c, w)
	close(until)
	work.Wait()
	if err = errors.Join(err, loaded); err != nil {
		return err
	}
	note := fmt.Sprintf("%d kills under %d workers; p90 %.2f s", len(times), s.workers, quantile(times, 0.9).Seconds())
	s.add(row{What: "kill -9 of the leader until the next committed result, median", Value: quantile(times, 0.5).Seconds(), Unit: "s", Want: "≤ 1.5", Note: note})
	s.add(row{What: "  worst", Value: quantile(times, 1).Seconds(), Unit: "s", Want: "≤ 4"})
	return nil
}

// killAll kills the leader time and again.
func (s *settings) killAll(ctx context.Context, c *cluster, w *witness) (times []time.Duration, err error) {
	for range s.kills {
		// Results flow, and all replicas are there.
		if _, err := w.await(ctx, time.Now()); err != nil {
			return times, err
		}
		select {
		case <-ctx.Done():
			return times, ctx.Err()
		case <-time.After(settle):
		}
		if err := c.together(ctx); err != nil {
			return times, err
		}
		_, leader, err := c.state(ctx)
		if err != nil || leader < 0 {
			return times, fmt.Errorf("no leader to kill: %w", err)
		}
		begin := time.Now()
		c.replicas[leader].kill()
		at, err := w.await(ctx, time.Now())
		if err != nil {
			return times, err
		}
		times = append(times, at.Sub(begin))
		if _, err := c.replicas[leader].start(ctx); err != nil {
			return times, err
		}
	}
	return times, nil
}
