package store

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// BenchmarkResults commits results of trials, with fsync: 64 workers, each of which
// leases a trial, reports it, and waits for both.
func BenchmarkResults(b *testing.B) {
	cfg := testConfig(b.TempDir())
	cfg.NoSync = false
	s := open(b, cfg)
	benchResults(b, s)
}

func benchResults(b *testing.B, s *Store) {
	b.Helper()
	const workers = 64
	prepareJobs(b, s, workers)
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	b.ResetTimer()
	begin := time.Now()
	for w := range workers {
		wg.Go(func() {
			name, job := fmt.Sprint("w", w), fmt.Sprint("j", w)
			for n := int32(1); left.Add(-1) >= 0; n++ {
				r, err := s.Apply(b.Context(), newTrial(1, job, n, fmt.Sprintf("%s-%d", name, n), name, "s"))
				if err != nil || r[0].Err != nil {
					b.Error(err, r)
					return
				}
				task := r[0].Task.Id
				r, err = s.Apply(b.Context(), reportTrial(2, task, 1, name, "s", n, 0.9, 1000))
				if err != nil || r[0].Err != nil {
					b.Error(err, r)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/time.Since(begin).Seconds(), "results/s")
}

// prepareJobs makes a worker and a searching job for each.
func prepareJobs(b testing.TB, s applies, n int) {
	b.Helper()
	for i := range n {
		name, job := fmt.Sprint("w", i), fmt.Sprint("j", i)
		must(b, s, worker(1, name, "s"))
		must(b, s, submit(1, job, "local"))
		must(b, s, lease(1, job+"/baseline", "b"+job, name, "s"))
		must(b, s, reportBaseline(1, job+"/baseline", 1, name, "s"))
	}
}

// BenchmarkApply measures the state machine alone, without Raft: leases and results of
// one job.
func BenchmarkApply(b *testing.B) {
	l := openLocal(b)
	prepareJobs(b, l, 1)
	var n int32
	for b.Loop() {
		n++
		must(b, l, newTrial(1, "j0", n, fmt.Sprint("r", n), "w0", "s"))
		must(b, l, reportTrial(2, TaskID("j0", kindTrial, n, ""), 1, "w0", "s", n, 0.9, 1000))
	}
}

// BenchmarkResultsThree is BenchmarkResults over three replicas on loopback.
func BenchmarkResultsThree(b *testing.B) {
	c := newCluster(b, 3, func(cfg *Config) { cfg.NoSync, cfg.Election = false, time.Second })
	l := c.leader()
	benchResults(b, l)
}

// BenchmarkFailover closes the leader without warning and waits for the next commit.
func BenchmarkFailover(b *testing.B) {
	c := newCluster(b, 3, func(cfg *Config) { cfg.NoSync, cfg.Election = false, 0 })
	var times []time.Duration
	for i := 0; b.Loop(); i++ {
		l := c.leader()
		at := c.index(l)
		l.silence() // nothing leaves it any more: as if it were killed
		c.up[at] = nil
		begin := time.Now()
		must(b, c, submit(1, fmt.Sprint("job-", i), "local"))
		times = append(times, time.Since(begin))
		if err := l.Close(); err != nil {
			b.Fatal(err)
		}
		c.start(at)
		c.same()
	}
	slices.Sort(times)
	b.ReportMetric(times[len(times)/2].Seconds(), "median-s")
	b.ReportMetric(times[len(times)-1].Seconds(), "worst-s")
}

// BenchmarkRestart opens a store with 100,000 trials: sealed, and as after a crash with a
// snapshot.
func BenchmarkRestart(b *testing.B) {
	const trials = 100_000
	cfg := testConfig(b.TempDir())
	s := open(b, cfg)
	prepareJobs(b, s, 1)
	for n := int32(1); n <= trials; n += 100 {
		var cmds []*v1.Command
		for k := n; k < n+100; k++ {
			cmds = append(cmds, newTrial(1, "j0", k, fmt.Sprint("r", k), "w0", "s"),
				reportTrial(2, TaskID("j0", kindTrial, k, ""), 1, "w0", "s", k, 0.9, 1000))
		}
		if _, err := s.Apply(b.Context(), cmds...); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Snapshot(); err != nil {
		b.Fatal(err)
	}
	closeStore(b, s)
	for _, mode := range []string{"sealed", "crashed"} {
		b.Run(mode, func(b *testing.B) {
			for b.Loop() {
				if mode == "crashed" {
					if err := os.Remove(filepath.Join(cfg.Dir, "state.db.seal")); err != nil {
						b.Fatal(err)
					}
				}
				s, err := Open(b.Context(), cfg)
				if err != nil {
					b.Fatal(err)
				}
				lead(b, s)
				err = s.View(func(v *View) error {
					if n := v.Job("j0").Completed; n != trials {
						b.Fatalf("%d trials", n)
					}
					return nil
				})
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(s.Status().StateBytes)/1e6, "state-MB")
				closeStore(b, s)
			}
		})
	}
}
