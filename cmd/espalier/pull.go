package main

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/espalier-ml/espalier/client"
	"github.com/espalier-ml/espalier/job"
	"github.com/espalier-ml/espalier/local"
	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/report"
	"github.com/espalier-ml/espalier/search/pareto"
)

func newPull() *cobra.Command {
	o := &pullOptions{}
	cmd := &cobra.Command{
		Use:   "pull JOB | --out DIR",
		Short: "Write the model that fits a device's budget best",
		Long: `Picks from the front the most accurate model within the budget (the 95th percentile of
latency, the bytes of the file, the least accuracy) and writes its file. Limits that are not
given come from the job. Exits with 3 if nothing satisfies the budget.`,
		Example: `  espalier pull --out results --device local --max-latency 50us --max-size 100KB -o model.esp
  espalier pull fashion --device pi4 -o model.esp`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			budget, err := o.limits.budget()
			if err != nil {
				return err
			}
			if err := oneSource(o.out, args); err != nil {
				return err
			}
			var pulled local.Pulled
			if o.out != "" {
				pulled, err = o.fromFolder(budget)
			} else {
				err = o.cluster.with(cmd, func(ctx context.Context, c *client.Client) (err error) {
					pulled, err = o.fromCluster(ctx, c, args[0], budget)
					return err
				})
			}
			if err != nil {
				return err
			}
			return showPulled(cmd.OutOrStdout(), pulled, o.json)
		},
	}
	cmd.Flags().StringVar(&o.out, "out", "", "results folder of a run")
	cmd.Flags().StringVar(&o.device, "device", "", "the device to pull for (default: the job's only one)")
	cmd.Flags().StringVar(&o.format, "format", "", "file format: esp or onnx (default: the device's own)")
	cmd.Flags().StringVarP(&o.path, "output", "o", "", "file to write (default: named after job and trial)")
	o.limits.add(cmd)
	o.cluster.add(cmd)
	jsonFlag(cmd, &o.json)
	return cmd
}

type pullOptions struct {
	out, device, format, path string
	limits                    limitFlags
	cluster                   clusterFlags
	json                      bool
}

func (o *pullOptions) fromFolder(budget local.Budget) (local.Pulled, error) {
	f, err := local.ReadFront(o.out)
	if err != nil {
		return local.Pulled{}, err
	}
	if o.device != "" && o.device != f.Device {
		return local.Pulled{}, usagef("--device %q: the folder has the device %q", o.device, f.Device)
	}
	member, err := f.Select(budget)
	if err != nil {
		return local.Pulled{}, err
	}
	return f.Pull(o.out, member, o.format, o.path)
}

func (o *pullOptions) fromCluster(ctx context.Context, c *client.Client, ref string, b local.Budget) (local.Pulled, error) {
	reply, err := c.Jobs.Fit(ctx, &espalierv1.FitRequest{
		Job: ref, Device: o.device,
		Budget: &espalierv1.Budget{LatencyNs: b.LatencyNs, SizeBytes: b.SizeBytes, Accuracy: b.Accuracy},
	})
	if err != nil {
		return local.Pulled{}, err
	}
	if reply.Member == nil {
		return local.Pulled{}, fmt.Errorf("%w: %s", pareto.ErrNoFit, reply.Misses)
	}
	return o.download(ctx, c, ref, reply.Member)
}

func (o *pullOptions) download(ctx context.Context, c *client.Client, ref string, m *espalierv1.FrontMember) (local.Pulled, error) {
	member := report.MemberFromProto(m)
	format := o.format
	if format == "" {
		format = member.Format
	}
	i := slices.IndexFunc(m.Artifacts, func(a *espalierv1.FileRef) bool { return a.Format == format })
	if i < 0 {
		return local.Pulled{}, usagef("--format %q: trial %d has no such file", format, member.Trial)
	}
	file, path := m.Artifacts[i], o.path
	if path == "" {
		path = fmt.Sprintf("%s-trial-%d.%s", ref, member.Trial, format)
	}
	if err := c.Download(ctx, file, path); err != nil {
		if m.Note != "" {
			err = fmt.Errorf("%w (trial %d: %s)", err, m.Trial, m.Note)
		}
		return local.Pulled{}, err
	}
	return local.Pulled{
		Member: member, Device: o.device, File: path, SHA256: file.Hash, Bytes: file.SizeBytes,
		Measured: format == member.Format, FileType: format,
	}, nil
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
		p.File, p.Trial, p.How(), report.Percent(p.Accuracy), report.Percent(p.TestAccuracy), job.FormatSize(p.Bytes), latency, p.SHA256)
	return err
}
