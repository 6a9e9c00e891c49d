package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/espalier-ml/espalier/coordinator/sim"
	"github.com/espalier-ml/espalier/search/problem"
	"github.com/espalier-ml/espalier/search/sampler"
)

func newSearch() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "search",
		Short: "Try search algorithms, without training anything",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newSimulate())
	return cmd
}

func newSimulate() *cobra.Command {
	cfg := sim.Config{}
	var name string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "simulate --problem NAME",
		Short: "Simulate a search on a cluster whose workers die",
		Long: `Runs the real leader, dispatcher, records and samplers against simulated workers under a
fake clock, and checks after every step that no result is lost or counted twice. The same
seed takes the same course.

Problems: ` + strings.Join(problem.Names(), ", ") + `,
or exec:COMMAND: a program whose first line describes the parameters,
{"params": [{"name": "x", "kind": "float", "min": 0, "max": 1}], "reference": [11, 11]},
and which then answers each line {"x": 0.5} with {"objectives": [1.5, 0.2]}, lower is better.`,
		Example: "  espalier search simulate --problem zdt1 --sampler nsga2 --trials 500 --workers 20 --kill 0.2",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if name == "" {
				return usagef("--problem is missing: want one of %s, or exec:COMMAND", strings.Join(problem.Names(), ", "))
			}
			p, closeProblem, err := sim.OpenProblem(cmd.Context(), name)
			if err != nil {
				return fmt.Errorf("%w: %w", errUsage, err)
			}
			defer func() { err = errors.Join(err, closeProblem()) }()
			cfg.Problem = p
			begun := time.Now()
			r, err := sim.Run(cmd.Context(), cfg)
			if errors.Is(err, sim.ErrConfig) {
				return fmt.Errorf("%w: %w", errUsage, err)
			}
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), r)
			}
			return showSimulation(cmd.OutOrStdout(), r, time.Since(begun))
		},
	}
	f := cmd.Flags()
	f.StringVar(&name, "problem", "", "what to search")
	f.StringVar(&cfg.Sampler, "sampler", sampler.Auto, "one of "+strings.Join(sampler.Names(), ", "))
	f.IntVar(&cfg.Trials, "trials", 200, "when to stop")
	f.IntVar(&cfg.Workers, "workers", 8, "simulated workers, with one slot each")
	f.Uint64Var(&cfg.Seed, "seed", 1, "fixes everything")
	f.BoolVar(&cfg.Deterministic, "deterministic", false, "trial k sees only trials up to k − window")
	f.IntVar(&cfg.Window, "window", 0, "with --deterministic (default 8)")
	f.DurationVar(&cfg.TrialTime, "trial-time", 10*time.Second, "how long a trial takes on average, in simulated time")
	f.Float64Var(&cfg.Kill, "kill", 0, "probability that a worker dies during a task")
	f.Float64Var(&cfg.Sleep, "sleep", 0, "probability that a worker sleeps past its lease, and reports all the same")
	f.Float64Var(&cfg.Fail, "fail", 0, "probability that a task fails")
	f.Float64Var(&cfg.Lose, "lose", 0, "probability that a message is lost")
	f.Float64Var(&cfg.Duplicate, "duplicate", 0, "probability that a message comes twice")
	f.Float64Var(&cfg.Late, "late", 0, "probability that a message is late")
	f.Float64Var(&cfg.Unclear, "unclear", 0, "probability that a commit does not say what became of it")
	f.Float64Var(&cfg.Depose, "depose", 0, "probability, every ten seconds, that the leader is replaced")
	jsonFlag(cmd, &asJSON)
	return cmd
}

func showSimulation(w io.Writer, r *sim.Result, took time.Duration) error {
	c := r.Counts
	fmt.Fprintf(w, "%s, seed %d: %d trials completed, %d failed, on %d workers\n", r.Sampler, r.Seed, r.Completed, r.Failed, r.Workers)
	for _, p := range r.Curve {
		fmt.Fprintf(w, "  after %5d  hypervolume %.4f\n", p.Trials, p.Hypervolume)
	}
	fmt.Fprintf(w, "front of %d, hypervolume %.4f\n", len(r.Front), r.Hypervolume)
	fmt.Fprintf(w, "simulated %s in %s, utilisation %.1f %%\n", time.Duration(r.SimulatedSeconds*float64(time.Second)).Round(time.Second),
		took.Round(time.Millisecond), 100*r.Utilisation)
	fmt.Fprintf(w, "%d steps, %d messages (%d lost, %d twice, %d late), %d kills, %d sleeps, %d failures, %d leaders\n",
		c.Steps, c.Messages, c.Lost, c.Duplicated, c.Late, c.Kills, c.Sleeps, c.Failures, c.Leaders)
	_, err := fmt.Fprintf(w, "%d reports accepted, %d repeated, %d stale; %d leases lost; nothing lost, nothing counted twice (%d comparisons with brute force)\n",
		c.Accepted, c.Repeated, c.Stale, c.LostLeases, c.Checks)
	return err
}
