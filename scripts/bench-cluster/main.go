// Command bench-cluster measures a coordinator under load, as one process with its fsync on: results committed per
// second by workers that report at once, and the utilisation of many workers with trials of some seconds.
//
//	go run ./scripts/bench-cluster [-workers 64] [-many 1000] [-trial 10s] [-for 10s] [-json]
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/pprof"
	"time"

	"github.com/espalier-ml/espalier/client"
	"github.com/espalier-ml/espalier/coordinator"
	"github.com/espalier-ml/espalier/worker/load"
)

func main() {
	workers := flag.Int("workers", 64, "workers that report at once")
	many := flag.Int("many", 1000, "workers with long trials; 0 leaves that part out")
	trial := flag.Duration("trial", 10*time.Second, "length of a long trial")
	length := flag.Duration("for", 10*time.Second, "length of each part")
	asJSON := flag.Bool("json", false, "print JSON")
	profile := flag.String("cpuprofile", "", "write a CPU profile to this file")
	flag.Parse()
	if *profile != "" {
		f, err := os.Create(*profile)
		if err == nil {
			err = pprof.StartCPUProfile(f)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench-cluster:", err)
			os.Exit(1)
		}
		defer pprof.StopCPUProfile()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *workers, *many, *trial, *length, *asJSON); err != nil {
		fmt.Fprintln(os.Stderr, "bench-cluster:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, workers, many int, trial, length time.Duration, asJSON bool) error {
	parts := []load.Config{{Workers: workers, Duration: length}}
	if many > 0 {
		parts = append(parts, load.Config{Workers: many, TrialTime: trial, Duration: length + 2*trial})
	}
	var results []*load.Result
	for _, p := range parts {
		r, err := one(ctx, p)
		if err != nil {
			return err
		}
		results = append(results, r)
		if !asJSON {
			fmt.Printf("%d workers, trials of %v: %.0f results/s, claim p50 %.2f ms p99 %.2f ms, report p50 %.2f ms p99 %.2f ms, utilisation %.1f %%, longest gap %.0f ms, %d errors\n",
				r.Workers, p.TrialTime, r.PerSecond, r.ClaimP50Ms, r.ClaimP99Ms, r.ReportP50Ms, r.ReportP99Ms, 100*r.Utilisation, r.GapMs, r.Errors)
		}
	}
	if asJSON {
		return json.NewEncoder(os.Stdout).Encode(results)
	}
	return nil
}

// one measures a fresh server.
func one(ctx context.Context, cfg load.Config) (r *load.Result, err error) {
	dir, err := os.MkdirTemp("", "espalier-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	s, err := coordinator.Start(ctx, coordinator.Config{Dir: dir, Version: "bench"})
	if err != nil {
		return nil, err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if closed := s.Close(closing); err == nil {
			err = closed
		}
	}()
	cfg.Server = client.Config{Addresses: []string{s.Address()}}
	return load.Run(ctx, cfg)
}
