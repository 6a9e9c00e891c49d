package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/espalier-ml/espalier/worker/load"
)

// restart fills a cluster's stores with finished trials of a job that goes on, and starts the replicas again: one after a
// stop in good order, one after kill -9, and all at once after kill -9.
func (s *settings) restart(ctx context.Context) (err error) {
	c, err := startCluster(ctx, s.bin, s.replicas)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	if err := s.fill(ctx, c); err != nil {
		return err
	}
	_, leader, err := c.state(ctx)
	if err != nil || leader < 0 {
		return fmt.Errorf("nobody leads: %w", err)
	}
	if s.filled, err = c.replicas[leader].applied(ctx); err != nil {
		return err
	}
	follower := c.replicas[(leader+1)%len(c.replicas)]
	if err := follower.stop(); err != nil {
		return err
	}
	if err := s.again(ctx, "stopped in good order", follower); err != nil {
		return err
	}
	follower.kill()
	if err := s.again(ctx, "killed", follower); err != nil {
		return err
	}
	for _, r := range c.replicas {
		r.kill()
	}
	return s.again(ctx, "all killed", c.replicas...)
}

// fill has simulated workers finish trials.
func (s *settings) fill(ctx context.Context, c *cluster) error {
	var done atomic.Int64
	until := make(chan struct{})
	_, err := load.Run(ctx, load.Config{Server: c.server(), Workers: s.workers, Duration: time.Hour, Until: until, Keep: true,
		Acknowledged: func(time.Time, time.Time) {
			if done.Add(1) == int64(s.trials) {
				close(until)
			}
		}})
	return err
}

// again starts replicas at the same time and prints when the last one was ready, and what they took.
func (s *settings) again(ctx context.Context, how string, replicas ...*replica) error {
	times, errs := make([]time.Duration, len(replicas)), make([]error, len(replicas))
	var starting sync.WaitGroup
	for i, r := range replicas {
		starting.Go(func() { times[i], errs[i] = r.start(ctx) })
	}
	starting.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	late, err := s.caughtUp(ctx, replicas)
	if err != nil {
		return err
	}
	// A new leader reads the job that goes on.
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(5 * time.Second):
	}
	var most, own int64
	for _, r := range replicas {
		m, o, err := r.memory()
		if err != nil {
			return err
		}
		most, own = max(most, m), max(own, o)
	}
	s.add(row{What: fmt.Sprintf("restart with %d trials, %s: ready", s.trials, how), Value: quantile(times, 1).Seconds(), Unit: "s", Want: "≤ 3",
		Note: fmt.Sprintf("all of the log applied %.2f s later", late.Seconds())})
	s.add(row{What: "  most resident memory of a replica until 5 s later", Value: float64(most) / 1e6, Unit: "MB", Want: "≤ 300",
		Note: fmt.Sprintf("then %.0f MB without mapped files", float64(own)/1e6)})
	return nil
}

// caughtUp waits until replicas have applied all that the fill left.
func (s *settings) caughtUp(ctx context.Context, replicas []*replica) (time.Duration, error) {
	begin := time.Now()
	for _, r := range replicas {
		for {
			at, err := r.applied(ctx)
			if err == nil && at >= s.filled {
				break
			}
			if time.Since(begin) > startTimeout {
				return 0, fmt.Errorf("replica %s has applied entry %d, not %d: %w", r.id, at, s.filled, err)
			}
			select {
			case <-ctx.Done():
				return 0, ctx.Err()
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
	return time.Since(begin), nil
}
