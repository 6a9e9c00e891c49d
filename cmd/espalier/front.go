package main

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/espalier-ml/espalier/client"
	"github.com/espalier-ml/espalier/local"
	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/report"
)

func newFront() *cobra.Command {
	var cluster clusterFlags
	var out, plot, device string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "front JOB | --out DIR",
		Short: "Show the front: what can be had at which accuracy, size and latency",
		Example: `  espalier front --out results --plot front.png
  espalier front fashion --device pi4`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := readFront(cmd, &cluster, out, args, device)
			if err != nil {
				return err
			}
			if plot != "" {
				if err := savePlot(plot, f); err != nil {
					return err
				}
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), f)
			}
			return showFront(cmd.OutOrStdout(), f, out)
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "results folder of a run")
	cmd.Flags().StringVar(&device, "device", "", "whose front (default: the job's only device)")
	cmd.Flags().StringVar(&plot, "plot", "", "also draw the front to this file, .svg or .png")
	cluster.add(cmd)
	jsonFlag(cmd, &asJSON)
	return cmd
}

// oneSource wants either a job of a cluster or a results folder.
func oneSource(out string, args []string) error {
	if (out == "") == (len(args) == 0) {
		return usagef("want either a JOB of a cluster or --out with a results folder")
	}
	return nil
}

func readFront(cmd *cobra.Command, cluster *clusterFlags, out string, args []string, device string) (f report.Front, err error) {
	if err := oneSource(out, args); err != nil {
		return f, err
	}
	if out != "" {
		folder, err := local.ReadFront(out)
		if err != nil {
			return f, err
		}
		if device != "" && device != folder.Device {
			return f, usagef("--device %q: the folder has the device %q", device, folder.Device)
		}
		return folder.Front, nil
	}
	err = cluster.with(cmd, func(ctx context.Context, c *client.Client) error {
		reply, err := c.Jobs.Front(ctx, &espalierv1.FrontRequest{Job: args[0], Device: device})
		if err == nil {
			f = report.FromProto(reply.Front)
		}
		return err
	})
	return f, err
}

// showFront prints the table and the plot, and with a results folder where the
// files are.
func showFront(w io.Writer, f report.Front, dir string) error {
	width, _ := isTerminal(w)
	fmt.Fprintln(w)
	if err := report.WriteTable(w, f); err != nil {
		return err
	}
	fmt.Fprintln(w)
	if err := report.WritePlot(w, f, min(width, 100), 18); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nhypervolume %.4f · %d models on the front of %s\n", f.Hypervolume, len(f.Members), f.Device)
	for _, m := range f.Members {
		if m.Note != "" {
			fmt.Fprintf(w, "trial %d: %s\n", m.Trial, m.Note)
		}
	}
	if dir == "" {
		return nil
	}
	_, err := fmt.Fprintf(w, `report  %s/report.html
models  %s/models
next    espalier pull --out %s --max-size 100KB -o model.esp
`, dir, dir, dir)
	return err
}

// savePlot draws a front to a file, whole or not at all.
func savePlot(path string, f report.Front) error {
	format, err := report.PlotFormat(path)
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	var b bytes.Buffer
	if err := report.WriteImage(&b, f, format); err != nil {
		return err
	}
	return local.WriteFile(path, b.Bytes())
}
