package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/espalier-ml/espalier/job"
	"github.com/espalier-ml/espalier/local"
	"github.com/espalier-ml/espalier/report"
)

func newPull() *cobra.Command {
	var out, device, format, path string
	var limits limitFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "pull --out DIR --device DEVICE -o FILE",
		Short: "Write the model that fits a device's budget best",
		Long: `Picks from the front the most accurate model within the budget (the 95th percentile of
latency, the bytes of the file, the least accuracy) and writes its file. Exits with 3 if
nothing satisfies the budget.`,
		Example: "  espalier pull --out results --device local --max-latency 50us --max-size 100KB -o model.esp",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if out == "" {
				return usagef("--out is missing: want a results folder")
			}
			f, err := local.ReadFront(out)
			if err != nil {
				return err
			}
			if device != f.Device {
				return usagef("--device %q: the folder has the device %q", device, f.Device)
			}
			budget, err := limits.budget()
			if err != nil {
				return err
			}
			member, err := f.Select(budget)
			if err != nil {
				return err
			}
			pulled, err := f.Pull(out, member, format, path)
			if err != nil {
				return err
			}
			return showPulled(cmd.OutOrStdout(), pulled, asJSON)
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "results folder of a run")
	cmd.Flags().StringVar(&device, "device", job.Local, "the device to pull for")
	cmd.Flags().StringVar(&format, "format", "", "file format: esp or onnx (default: the device's own)")
	cmd.Flags().StringVarP(&path, "output", "o", "", "file to write (default: named after job and trial)")
	limits.add(cmd)
	jsonFlag(cmd, &asJSON)
	return cmd
}

// limitFlags are a budget on the command line.
type limitFlags struct {
	accuracy      float64
	size, latency string
}

func (l *limitFlags) add(cmd *cobra.Command) {
	cmd.Flags().Float64Var(&l.accuracy, "min-accuracy", 0, "least validation accuracy, as a fraction such as 0.9")
	cmd.Flags().StringVar(&l.size, "max-size", "", "most bytes of the file, such as 200KB")
	cmd.Flags().StringVar(&l.latency, "max-latency", "", "most latency (95th percentile), such as 5ms")
}

func (l *limitFlags) budget() (local.Budget, error) {
	b := local.Budget{Accuracy: l.accuracy}
	if !(l.accuracy >= 0 && l.accuracy <= 1) {
		return b, usagef("--min-accuracy %v: want a fraction from 0 to 1, such as 0.9", l.accuracy)
	}
	if l.size != "" {
		n, err := job.ParseSize(l.size)
		if err != nil {
			return b, fmt.Errorf("--max-size: %w", err)
		}
		b.SizeBytes = n
	}
	if l.latency != "" {
		d, err := job.ParseDuration(l.latency)
		if err != nil {
			return b, fmt.Errorf("--max-latency: %w", err)
		}
		b.LatencyNs = d.Nanoseconds()
	}
	return b, nil
}

func showPulled(w io.Writer, p local.Pulled, asJSON bool) error {
	if asJSON {
		return printJSON(w, p)
	}
	latency := fmt.Sprintf("p50 %s, p95 %s on %s", report.Latency(p.LatencyP50), report.Latency(p.LatencyP95), p.Device)
	if !p.Measured {
		latency = fmt.Sprintf("latency not measured in this format (as %s: %s)", p.Format, latency)
	}
	_, err := fmt.Fprintf(w, "%s: trial %d (%s), accuracy %s, test accuracy %s, %s, %s\nsha256 %s\n",
		p.File, p.Trial, p.Strategy, report.Percent(p.Accuracy), report.Percent(p.TestAccuracy), job.FormatSize(p.Bytes), latency, p.SHA256)
	return err
}
