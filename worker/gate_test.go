package worker

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestNoStepDuringQuiet lets several trainings step and several measurements
// interrupt them.
func TestNoStepDuringQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Gate
		var stepping, measuring, steps, measured atomic.Int64
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if err := g.Enter(t.Context()); err != nil {
					t.Error(err)
					return
				}
				defer g.Leave()
				for range 200 {
					if err := g.Step(t.Context()); err != nil {
						t.Error(err)
						return
					}
					stepping.Add(1)
					if measuring.Load() > 0 {
						t.Error("a step began during a measurement")
					}
					time.Sleep(time.Millisecond)
					steps.Add(1)
					stepping.Add(-1)
				}
			})
		}
		for range 2 {
			wg.Go(func() {
				for range 10 {
					time.Sleep(7 * time.Millisecond)
					release, err := g.Quiet(t.Context())
					if err != nil {
						t.Error(err)
						return
					}
					if measuring.Add(1) != 1 {
						t.Error("two measurements at once")
					}
					if stepping.Load() > 0 {
						t.Error("a measurement began during a step")
					}
					time.Sleep(5 * time.Millisecond)
					measured.Add(1)
					measuring.Add(-1)
					release()
				}
			})
		}
		wg.Wait()
		if steps.Load() != 800 || measured.Load() != 20 {
			t.Errorf("%d steps, %d measurements", steps.Load(), measured.Load())
		}
	})
}

func TestGateGivesUpWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Gate
		mine := errors.New("mine")
		if err := g.Enter(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, mine)
		defer cancel()
		if _, err := g.Quiet(ctx); !errors.Is(err, mine) {
			t.Fatalf("quiet: error %v, want mine", err)
		}
		if err := g.Step(t.Context()); err != nil {
			t.Fatalf("after a measurement gave up: %v", err)
		}
		g.Leave()
		release, err := g.Quiet(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel = context.WithTimeoutCause(t.Context(), time.Second, mine)
		defer cancel()
		if err := g.Enter(ctx); !errors.Is(err, mine) {
			t.Fatalf("enter: error %v, want mine", err)
		}
		release()
		if err := g.Enter(t.Context()); err != nil {
			t.Fatal(err)
		}
		g.Leave()
	})
}
