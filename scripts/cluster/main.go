// Command cluster prints what a cluster does under load. Run it by scripts/bench-cluster.
//
// The replicas are processes, each with a data folder of its own and fsync on; the workers are simulated in this one: they
// claim, send heartbeats and report over the broker as real ones do, and make up their results.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

// settings are the flags, and the rows so far.
type settings struct {
	bin      string
	replicas int
	workers  int
	many     int
	trial    time.Duration
	length   time.Duration
	kills    int
	trials   int
	rows     []row
	filled   uint64 // the log entry up to which restart has filled the stores
}

// row is one line of the result. Want is what docs/bench.md promises; empty for what is only for comparison.
type row struct {
	What string `json:"what"`
	// Value in Unit.
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	Want  string  `json:"want,omitempty"`
	Note  string  `json:"note,omitempty"`
}

// add adds a row, and prints it at once to stderr: the parts take a while.
func (s *settings) add(r row) {
	s.rows = append(s.rows, r)
	fmt.Fprintf(os.Stderr, "cluster: %s\n", r)
}

func (r row) String() string {
	out := fmt.Sprintf("%s: %s %s", r.What, number(r.Value), r.Unit)
	if r.Want != "" {
		out += ", want " + r.Want
	}
	if r.Note != "" {
		out += " (" + r.Note + ")"
	}
	return out
}

// number prints three digits that matter.
func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// part is one of the measurements.
type part struct {
	name string
	run  func(context.Context) error
}

func (s *settings) parts() []part {
	return []part{
		{"disk", s.disk}, {"alone", s.alone}, {"throughput", s.throughput}, {"utilisation", s.utilisation},
		{"failover", s.failover}, {"restart", s.restart},
	}
}

func main() {
	if err := command(); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func command() error {
	s := &settings{}
	var names []string
	for _, p := range s.parts() {
		names = append(names, p.name)
	}
	flag.StringVar(&s.bin, "espalier", "", "the built program (required)")
	flag.IntVar(&s.replicas, "replicas", 3, "replicas of the cluster")
	flag.IntVar(&s.workers, "workers", 64, "workers that report at once: throughput, failover, restart")
	flag.IntVar(&s.many, "many", 1000, "workers of the utilisation part")
	flag.DurationVar(&s.trial, "trial", 10*time.Second, "length of their trials, give or take a quarter")
	flag.DurationVar(&s.length, "for", 20*time.Second, "length of the throughput part; utilisation takes two trials more")
	flag.IntVar(&s.kills, "kills", 50, "how often failover kills the leader")
	flag.IntVar(&s.trials, "trials", 100_000, "trials in the store of the restart part")
	only := flag.String("parts", strings.Join(names, ","), "what to measure, comma-separated")
	asJSON := flag.Bool("json", false, "print JSON")
	flag.Parse()
	switch {
	case s.bin == "":
		return errors.New("-espalier is empty: run scripts/bench-cluster, which builds the program")
	case s.replicas < 1 || s.workers < 1 || s.many < 1 || s.kills < 1 || s.trials < 1:
		return errors.New("-replicas, -workers, -many, -kills and -trials must be 1 or more")
	case s.trial <= 0 || s.length <= 0:
		return fmt.Errorf("-trial %v and -for %v must be positive", s.trial, s.length)
	}
	wanted := strings.Split(*only, ",")
	for _, w := range wanted {
		if !slices.Contains(names, w) {
			return fmt.Errorf("-parts: %q is none of %s", w, strings.Join(names, ", "))
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	for _, p := range s.parts() {
		if !slices.Contains(wanted, p.name) {
			continue
		}
		if err := p.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	if *asJSON {
		return json.NewEncoder(os.Stdout).Encode(s.rows)
	}
	return s.print()
}

func (s *settings) print() error {
	w := tabwriter.NewWriter(os.Stdout, 2, 0, 2, ' ', 0)
	fmt.Fprintln(w, "what\tvalue\twant\t")
	for _, r := range s.rows {
		fmt.Fprintf(w, "%s\t%s %s\t%s\t%s\n", r.What, number(r.Value), r.Unit, r.Want, r.Note)
	}
	return w.Flush()
}

// quantile of unsorted values; 0 of none.
func quantile(values []time.Duration, q float64) time.Duration {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[int(q*float64(len(sorted)-1)+0.5)]
}
