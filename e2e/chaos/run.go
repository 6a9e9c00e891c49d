//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	// recovery bounds how long after everything was mended the next result may take, and all that waits for it.
	recovery = 60 * time.Second
	// finish bounds how long all jobs may take to end, once no more come.
	finish = 4 * time.Minute
)

// run runs the suite once. Its error says that it could not be run; what did not hold is in the summary.
func run(ctx context.Context, o options, dir string) (*summary, error) {
	log, err := os.Create(filepath.Join(dir, "chaos.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	var mu sync.Mutex
	say := func(text string) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintln(log, text)
	}
	l := newLedger(say)
	plan := o.plan()
	printPlan(log, plan)
	c, err := newCluster(o, dir, l)
	if err != nil {
		return nil, err
	}
	if err := c.start(ctx); err != nil {
		return nil, err
	}
	ld, err := newLoad(ctx, c)
	if err != nil {
		return nil, err
	}
	fmt.Printf("chaos: seed %d, %g minutes in %d periods, %d servers, %d workers; %s\n", o.Seed, o.Minutes, len(plan), servers, len(workerNames()), dir)
	s := &suite{c: c, l: l, ld: ld, o: o, digests: map[string]map[uint64]string{}}
	s.baseline(ctx)
	s.chaos(ctx, plan)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	sum := s.end(ctx)
	return sum, ctx.Err()
}

// suite is one run.
type suite struct {
	c  *cluster
	l  *ledger
	ld *load
	o  options
	// digests of the records, by replica and applied index.
	digests map[string]map[uint64]string
	// before are the resources of each server while the cluster was young and whole.
	before map[string]resources
	// slowest is the longest time from mending to the next result.
	slowest time.Duration
}

// chaos runs the load, and breaks and mends the cluster in turns.
func (s *suite) chaos(ctx context.Context, plan []Period) {
	loading, stop := context.WithCancel(ctx)
	var work sync.WaitGroup
	work.Go(func() { s.ld.run(loading) })
	work.Go(func() { s.progress(loading) })
	sleep(ctx, 5*time.Second)
	for i, p := range plan {
		if ctx.Err() != nil {
			break
		}
		s.l.note("period %d begins", i+1)
		s.c.breakIt(ctx, p)
		s.l.note("period %d: mending", i+1)
		s.c.heal()
		s.recovers(ctx)
		sleep(ctx, p.Heal)
		s.compareReplicas(ctx)
	}
	stop()
	work.Wait()
	s.c.copies.Wait()
}

// recovers waits for a result, and for an answer of every replica.
func (s *suite) recovers(ctx context.Context) {
	begun := time.Now()
	if poll(ctx, recovery, 20*time.Millisecond, func() bool { return s.l.last().After(begun) }) {
		s.slowest = max(s.slowest, s.l.last().Sub(begun))
	} else if ctx.Err() == nil {
		s.l.violation("no result within %v after everything was mended", recovery)
	}
	for i, name := range serverNames() {
		ok := poll(ctx, recovery, 100*time.Millisecond, func() bool {
			j := s.ld.pick()
			return j != nil && s.ld.submit(ctx, clients, i, j)
		})
		if !ok && ctx.Err() == nil {
			s.l.violation("no job is answered through %s within %v after everything was mended", name, recovery)
		}
	}
	s.c.mended()
	s.l.note("recovered after %.1fs", time.Since(begun).Seconds())
}

// progress prints a line every minute.
func (s *suite) progress(ctx context.Context) {
	for minute := 1; sleep(ctx, time.Minute); minute++ {
		_, term := s.c.leader(ctx)
		s.ld.mu.Lock()
		jobs := len(s.ld.jobs)
		s.ld.mu.Unlock()
		s.c.mu.Lock()
		faults := 0
		for _, n := range s.c.counts {
			faults += n
		}
		s.c.mu.Unlock()
		_, ops, reads, _ := s.l.seen()
		fmt.Printf("chaos: minute %d: %d faults, %d jobs, %d results acknowledged, %d job operations, %d reads, term %d, %d violations\n",
			minute, faults, jobs, s.l.results(), len(ops), len(reads), term, len(s.l.broken()))
	}
}
