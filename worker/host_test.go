package worker

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// TestQuietOfTheHost has three workers that train and one that measures, each with
// a gate of its own: no step of any runs during a measurement.
func TestQuietOfTheHost(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	ctx, cancel := context.WithCancel(t.Context())
	var others, trainings sync.WaitGroup
	var stepping, measuring, steps atomic.Int64
	for range 3 {
		var g Gate
		others.Go(func() { newHostQuiet(path).heed(ctx, &g, zerolog.Nop()) })
		trainings.Go(func() {
			if err := g.Enter(ctx); err != nil {
				return
			}
			defer g.Leave()
			for g.Step(ctx) == nil {
				stepping.Add(1)
				if measuring.Load() > 0 {
					t.Error("a step began during a measurement")
				}
				time.Sleep(time.Millisecond)
				if measuring.Load() > 0 {
					t.Error("a measurement began during a step")
				}
				stepping.Add(-1)
				steps.Add(1)
			}
		})
	}
	var own Gate
	g := hostGate{&own, newHostQuiet(path)}
	for range 5 {
		before := steps.Load()
		eventually(t, "steps between measurements", func() bool { return steps.Load() > before })
		release, err := g.Quiet(ctx)
		if err != nil {
			t.Fatal(err)
		}
		measuring.Add(1)
		if n := stepping.Load(); n > 0 {
			t.Errorf("%d steps run during a measurement", n)
		}
		time.Sleep(20 * time.Millisecond)
		measuring.Add(-1)
		release()
	}
	cancel()
	trainings.Wait()
	others.Wait()
}

func TestHostThatIsNeverQuiet(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	noise, err := newHostQuiet(path).share()
	if err != nil {
		t.Fatal(err)
	}
	mine := errors.New("mine")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, mine)
	defer cancel()
	var own Gate
	g := hostGate{&own, newHostQuiet(path)}
	if _, err := g.Quiet(ctx); !errors.Is(err, mine) {
		t.Fatalf("error %v, want mine", err)
	}
	if err := own.Enter(t.Context()); err != nil {
		t.Fatalf("the own gate stays quiet: %v", err)
	}
	own.Leave()
	if err := noise.Release(); err != nil {
		t.Fatal(err)
	}
	release, err := g.Quiet(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	release()
}
