package store

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
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
