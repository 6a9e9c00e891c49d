package main

import (
	_ "embed"

	"github.com/spf13/cobra"

	"github.com/espalier-ml/espalier/job"
)

// demoJob is the job file of the demo.
//
//go:embed demo.yaml
var demoJob []byte

func newDemo() *cobra.Command {
	o := &runOptions{out: "espalier-out"}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Search on a generated image set, everything in one process",
		Long: `Trains a small convolutional network on a generated image set, searches over ways to
prune it, measures each on this machine, and writes the front and the models to a folder.
Takes about two minutes. Ctrl-C stops it; the same command goes on where it stopped.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := job.Parse(demoJob, known())
			if err != nil {
				return err
			}
			return o.run(cmd, f)
		},
	}
	o.flags(cmd)
	return cmd
}
