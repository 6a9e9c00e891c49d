// Command bench-cluster measures a cluster under load, its replicas and the simulated workers in one process, with
// fsync on: results committed per second by workers that report at once, and the utilisation of many workers with trials
// of some seconds.
//
//	go run ./scripts/bench-cluster [-replicas 3] [-workers 64] [-many 1000] [-trial 10s] [-for 10s] [-json]
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"time"

	"github.com/espalier-ml/espalier/coordinator"
	"github.com/espalier-ml/espalier/job"
	"github.com/espalier-ml/espalier/search/sampler"
	"github.com/espalier-ml/espalier/worker/load"
)

func main() {
	replicas := flag.Int("replicas", 3, "replicas of the cluster")
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
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, *replicas, *workers, *many, *trial, *length, *asJSON)
	stop()
	pprof.StopCPUProfile() // which writes the profile, of a failed run too
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-cluster:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, replicas, workers, many int, trial, length time.Duration, asJSON bool) error {
	parts := []load.Config{{Workers: workers, Duration: length}}
	if many > 0 {
		parts = append(parts, load.Config{Workers: many, TrialTime: trial, Duration: length + 2*trial})
	}
	var results []*load.Result
	for _, p := range parts {
		r, err := one(ctx, replicas, p)
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

// one measures a fresh cluster.
func one(ctx context.Context, replicas int, cfg load.Config) (r *load.Result, err error) {
	dir, err := os.MkdirTemp("", "espalier-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	var servers []*coordinator.Server
	defer func() {
		closing, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		for i := len(servers) - 1; i >= 0; i-- {
			err = errors.Join(err, servers[i].Close(closing))
		}
	}()
	for i := range replicas {
		c := coordinator.Config{Dir: filepath.Join(dir, fmt.Sprint(i)), ReplicaID: fmt.Sprint("replica-", i), Version: "bench", Known: known()}
		if replicas > 1 {
			if c.RaftListen, err = freeAddress(); err != nil {
				return nil, err
			}
		}
		if i > 0 {
			c.Join = []string{servers[0].Address()}
		}
		s, err := coordinator.Start(ctx, c)
		if err != nil {
			return nil, err
		}
		servers = append(servers, s)
		cfg.Server.Addresses = append(cfg.Server.Addresses, s.Address())
	}
	return load.Run(ctx, cfg)
}

// known is what the load's job asks for.
func known() job.Names {
	return job.Names{Zoo: []string{"lenet-5"}, Strategies: []string{"magnitude", "channel-l1"}, Schedules: []string{"one-shot"},
		Samplers: sampler.Names(), Optimizers: []string{"adam"}}
}

// freeAddress gives an address that was free a moment ago.
func freeAddress() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), ln.Close()
}
