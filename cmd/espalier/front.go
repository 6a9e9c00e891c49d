package main

import (
	"bytes"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/espalier-ml/espalier/local"
	"github.com/espalier-ml/espalier/report"
)

func newFront() *cobra.Command {
	var out, plot string
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "front --out DIR",
		Short:   "Show the front: what can be had at which accuracy, size and latency",
		Example: "  espalier front --out results --plot front.png",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if out == "" {
				return usagef("--out is missing: want a results folder")
			}
			f, err := local.ReadFront(out)
			if err != nil {
				return err
			}
			if plot != "" {
				if err := savePlot(plot, f.Front); err != nil {
					return err
				}
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), f.Front)
			}
			return showFront(cmd.OutOrStdout(), f.Front, out)
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "results folder of a run")
	cmd.Flags().StringVar(&plot, "plot", "", "also draw the front to this file, .svg or .png")
	jsonFlag(cmd, &asJSON)
	return cmd
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
	return os.WriteFile(path, b.Bytes(), 0o644)
}
