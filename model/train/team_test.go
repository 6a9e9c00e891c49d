package train

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"
)

// counting is a task that counts how often each index ran, and takes a while
// where slow says so.
type counting struct {
	ran  [7]atomic.Int32
	slow int
	err  error
}

func (c *counting) do(_ *worker, i int) error {
	if i == c.slow {
		busy(2 * patience)
	}
	c.ran[i].Add(1)
	if c.err != nil && i > 1 {
		return c.err
	}
	return nil
}

func busy(d time.Duration) {
	for start := time.Now(); time.Since(start) < d; {
	}
}

// TestTeam runs tasks with helpers and the caller awake or asleep: each waits
// for the others longer than it stays awake, or not at all.
func TestTeam(t *testing.T) {
	for _, threads := range []int{1, 2, 3, 8} {
		team := newTeam(threads)
		for round := range 400 {
			n := 1 + round%7
			c := &counting{slow: round%9 - 1}
			if round%5 == 0 {
				busy(2 * patience) // the helpers fall asleep
			}
			if err := team.run(n, c); err != nil {
				t.Fatal(err)
			}
			for i := range c.ran {
				want := int32(1)
				if i >= n {
					want = 0
				}
				if got := c.ran[i].Load(); got != want {
					t.Fatalf("%d threads, round %d: index %d of %d ran %d times, want %d", threads, round, i, n, got, want)
				}
			}
		}
		bad := errors.New("bad")
		if err := team.run(7, &counting{slow: 2, err: bad}); !errors.Is(err, bad) {
			t.Errorf("%d threads: error is %v, want %v", threads, err, bad)
		}
		if err := team.run(0, nil); err != nil {
			t.Error(err)
		}
		team.close()
	}
}
