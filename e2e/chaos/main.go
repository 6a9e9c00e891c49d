//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// Exit codes, as of espalier itself.
const (
	exitHeld        = 0
	exitBroken      = 1
	exitUse         = 2
	exitInterrupted = 130
)

// options are what the command line says.
type options struct {
	Minutes float64
	Seed    uint64
	Binary  string
	Dir     string
	JSON    string
	Keep    bool
	Plan    bool
}

func parse(args []string, errOut io.Writer) (options, error) {
	var o options
	f := flag.NewFlagSet("chaos", flag.ContinueOnError)
	f.SetOutput(errOut)
	f.Float64Var(&o.Minutes, "minutes", 1, "how long faults are injected, in minutes")
	f.Uint64Var(&o.Seed, "seed", 1, "decides kinds, victims and moments of all faults")
	f.StringVar(&o.Binary, "binary", "bin/espalier-faults", "espalier, built with -tags faults")
	f.StringVar(&o.Dir, "dir", os.TempDir(), "where the run's folder is made")
	f.StringVar(&o.JSON, "json", "", "write the summary to this file too, as JSON")
	f.BoolVar(&o.Keep, "keep", false, "keep logs and data also when everything held")
	f.BoolVar(&o.Plan, "plan", false, "print what would be broken and when, and end")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unknown argument %q: want only flags", f.Arg(0))
	}
	if !(o.Minutes > 0 && o.Minutes <= 24*60) {
		return o, fmt.Errorf("--minutes is %v: want more than 0, at most %d", o.Minutes, 24*60)
	}
	return o, nil
}

func main() { os.Exit(start(os.Args[1:])) }

func start(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(args) > 0 && args[0] == handRole {
		return fail(playHand(ctx, args[1:]))
	}
	o, err := parse(args, os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return exitHeld
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		return exitUse
	}
	if o.Plan {
		printPlan(os.Stdout, o.plan())
		return exitHeld
	}
	if os.Getenv(insideEnv) == "" {
		return outside(ctx, o, args)
	}
	return inside(ctx, o, os.Getenv(insideEnv))
}

func fail(err error) int {
	if err == nil {
		return exitHeld
	}
	fmt.Fprintln(os.Stderr, "chaos:", err)
	return exitBroken
}

// inside runs the suite in the sandbox.
func inside(ctx context.Context, o options, dir string) int {
	if err := furnish(); err != nil {
		fmt.Fprintln(os.Stderr, "chaos: set up the namespaces:", err)
		return exitUse
	}
	s, err := run(ctx, o, dir)
	if ctx.Err() != nil {
		fmt.Fprintln(os.Stderr, "chaos: interrupted")
		return exitInterrupted
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		return exitBroken
	}
	s.print(os.Stdout)
	if o.JSON != "" {
		if err := writeJSON(o.JSON, s); err != nil {
			return fail(err)
		}
	}
	if len(s.Violations) > 0 {
		return exitBroken
	}
	return exitHeld
}

func writeJSON(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}

// poll calls ok every interval until it says yes, the time is over or ctx ends.
func poll(ctx context.Context, within, interval time.Duration, ok func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for {
		if ok() {
			return true
		}
		if !sleep(ctx, interval) {
			return false
		}
	}
}

// sleep waits and tells whether ctx still stands.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(max(d, 0))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return ctx.Err() == nil
	}
}
