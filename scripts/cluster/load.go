package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/espalier-ml/espalier/worker/load"
)

// disk prints how fast the machine's disk is: what all else rests on.
func (s *settings) disk(context.Context) (err error) {
	dir, err := os.MkdirTemp("", "espalier-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	f, err := os.Create(filepath.Join(dir, "disk"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	page := make([]byte, 4096)
	const pages = 256
	if _, err := f.Write(make([]byte, pages*len(page))); err != nil {
		return err
	}
	var times []time.Duration
	for i := range 1000 {
		begin := time.Now()
		if _, err := f.WriteAt(page, int64(i%pages*len(page))); err != nil {
			return err
		}
		if err := dataSync(f); err != nil {
			return err
		}
		times = append(times, time.Since(begin))
	}
	s.add(row{What: "disk: write of 4 KiB with fdatasync, median", Value: ms(quantile(times, 0.5)), Unit: "ms",
		Note: fmt.Sprintf("p99 %.2f ms", ms(quantile(times, 0.99)))})
	return nil
}

// ms is a time in milliseconds.
func ms(d time.Duration) float64 { return d.Seconds() * 1000 }

// put puts a fresh cluster of n replicas under load. cpu is the processor time of the replicas meanwhile.
func (s *settings) put(ctx context.Context, n int, cfg load.Config) (r *load.Result, cpu time.Duration, err error) {
	c, err := startCluster(ctx, s.bin, n)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	before, err := c.processor()
	if err != nil {
		return nil, 0, err
	}
	cfg.Server = c.server()
	if r, err = load.Run(ctx, cfg); err != nil {
		return nil, 0, err
	}
	after, err := c.processor()
	return r, after - before, err
}

// alone is throughput of one replica, which shares its log with nobody.
func (s *settings) alone(ctx context.Context) error {
	return s.results(ctx, 1, "one replica alone", "")
}

func (s *settings) throughput(ctx context.Context) error {
	return s.results(ctx, s.replicas, fmt.Sprintf("%d replicas", s.replicas), "≥ 2000")
}

func (s *settings) results(ctx context.Context, replicas int, name, want string) error {
	r, cpu, err := s.put(ctx, replicas, load.Config{Workers: s.workers, Duration: s.length})
	if err != nil {
		return err
	}
	s.add(row{What: fmt.Sprintf("%s: results of %d workers", name, s.workers), Value: r.PerSecond, Unit: "/s", Want: want,
		Note: fmt.Sprintf("claim p50 %s p99 %s ms, report p50 %s p99 %s ms, longest gap %.0f ms, %.2f ms of processor time each, %d requests made again",
			number(r.ClaimP50Ms), number(r.ClaimP99Ms), number(r.ReportP50Ms), number(r.ReportP99Ms), r.GapMs, ms(cpu)/float64(max(r.Results, 1)), r.Errors)})
	return nil
}

func (s *settings) utilisation(ctx context.Context) error {
	r, cpu, err := s.put(ctx, s.replicas, load.Config{Workers: s.many, TrialTime: s.trial, Duration: s.length + 2*s.trial})
	if err != nil {
		return err
	}
	s.add(row{What: fmt.Sprintf("utilisation of %d workers, trials of %v", s.many, s.trial), Value: 100 * r.Utilisation, Unit: "%", Want: "≥ 95",
		Note: fmt.Sprintf("%.0f results/s, report p50 %s p99 %s ms, processor %.0f %% busy with replicas, %d requests made again",
			r.PerSecond, number(r.ReportP50Ms), number(r.ReportP99Ms), 100*cpu.Seconds()/r.Seconds/float64(runtime.NumCPU()), r.Errors)})
	s.add(row{What: "  claim latency, median", Value: r.ClaimP50Ms, Unit: "ms", Want: "≤ 5"})
	s.add(row{What: "  claim latency, 99th percentile", Value: r.ClaimP99Ms, Unit: "ms", Want: "≤ 50"})
	return nil
}
