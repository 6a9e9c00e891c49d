package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/espalier-ml/espalier/job"
	"github.com/espalier-ml/espalier/local"
	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/report"
)

func newRun() *cobra.Command {
	o := &runOptions{}
	cmd := &cobra.Command{
		Use:   "run JOB.yaml --out DIR",
		Short: "Run a job file, everything in one process",
		Long: `Runs a job with a coordinator, a broker and a worker in this process, and writes the
front and the models to a folder. Ctrl-C stops it; the same command goes on where it stopped.`,
		Example: "  espalier run fashion.yaml --out results",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.out == "" {
				return usagef("--out is missing: want a folder for the results")
			}
			f, err := job.Load(args[0], known())
			if err != nil {
				return err
			}
			return o.run(cmd, f)
		},
	}
	o.flags(cmd)
	return cmd
}

// runOptions are the flags that `run` and `demo` share.
type runOptions struct {
	out   string
	slots int
	json  bool
	log   logFlags
}

func (o *runOptions) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.out, "out", o.out, "folder for the results")
	cmd.Flags().IntVar(&o.slots, "slots", 0, "trials at once (default: one for each core)")
	jsonFlag(cmd, &o.json)
	o.log.add(cmd, "error")
}

func (o *runOptions) run(cmd *cobra.Command, f *job.File) error {
	if len(f.Spec.Devices) != 1 || f.Spec.Devices[0] != job.Local {
		return usagef("devices %v: a run of its own has the device %q alone: for others start a server and workers, and submit", f.Spec.Devices, job.Local)
	}
	if o.slots < 0 || o.slots > 4*runtime.NumCPU() {
		return usagef("--slots %d: want 1 to %d", o.slots, 4*runtime.NumCPU())
	}
	logger, err := o.log.logger(cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	notes := cmd.OutOrStdout()
	if o.json {
		notes = cmd.ErrOrStderr()
	}
	show := newProgress(notes)
	out, err := local.Run(cmd.Context(), local.Config{
		Job: f, Out: o.out, Slots: o.slots, Known: known(), Version: version, Logger: logger,
		OnStart: func(resumed bool) {
			if resumed {
				fmt.Fprintf(notes, "resuming the search in %s\n", o.out)
			}
		},
		OnStatus: show.status,
	})
	show.close()
	if err == nil {
		return o.finish(cmd, out)
	}
	if cmd.Context().Err() != nil && errors.Is(err, context.Canceled) {
		return o.stopped(cmd, out)
	}
	return err
}

func (o *runOptions) finish(cmd *cobra.Command, out *local.Outcome) error {
	if o.json {
		return printJSON(cmd.OutOrStdout(), out.Front)
	}
	return showFront(cmd.OutOrStdout(), out.Front, out.Dir)
}

// stopped says what a run that was stopped leaves.
func (o *runOptions) stopped(cmd *cobra.Command, out *local.Outcome) error {
	w := cmd.ErrOrStderr()
	done := 0
	if out != nil {
		done = int(out.Status.Job.Completed)
	}
	fmt.Fprintf(w, "stopped after %d trials; the same command goes on from here\n", done)
	return errors.Join(errQuiet, context.Canceled)
}

// bestText says what the best member so far is.
func bestText(s *espalierv1.JobStatus) string {
	for _, f := range s.Fronts {
		if b := f.Best; b != nil {
			return fmt.Sprintf("best %s, %s, %s", report.Percent(b.Accuracy), job.FormatSize(b.SizeBytes), report.Latency(float64(b.LatencyP50Ns)/1e3))
		}
	}
	return ""
}
