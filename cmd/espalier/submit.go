package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/espalier-ml/espalier/client"
	"github.com/espalier-ml/espalier/job"
	"github.com/espalier-ml/espalier/local"
	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/worker"
)

func newSubmit() *cobra.Command {
	var cluster clusterFlags
	var watch, asJSON bool
	cmd := &cobra.Command{
		Use:     "submit JOB.yaml",
		Short:   "Submit a job file to a cluster",
		Example: "  espalier submit fashion.yaml --watch",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := job.Load(args[0], known())
			if err != nil {
				return err
			}
			return cluster.with(cmd, func(ctx context.Context, c *client.Client) error {
				j, err := submit(ctx, c, f)
				if err != nil {
					return err
				}
				if watch {
					fmt.Fprintln(cmd.ErrOrStderr(), "submitted", j.Id)
					return watchJob(ctx, cmd, c, j.Id, asJSON)
				}
				if asJSON {
					return printProto(cmd.OutOrStdout(), j)
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\nfollow it with: espalier watch %s\n", j.Id, j.Id)
				return err
			})
		},
	}
	cluster.add(cmd)
	cmd.Flags().BoolVar(&watch, "watch", false, "follow the job until it ends; Ctrl-C stops following, not the job")
	jsonFlag(cmd, &asJSON)
	return cmd
}

// submit uploads the data set unless the cluster has it, then the job.
func submit(ctx context.Context, c *client.Client, f *job.File) (*espalierv1.Job, error) {
	if err := bringData(ctx, c, f); err != nil {
		return nil, err
	}
	var here *espalierv1.Fingerprint
	if slices.Contains(f.Spec.Devices, job.Local) {
		here = worker.Fingerprint()
	}
	return c.Submit(ctx, f.Spec, here)
}

func bringData(ctx context.Context, c *client.Client, f *job.File) error {
	if f.Data.Name != "" {
		set, err := findData(ctx, c, f.Data.Name)
		if err != nil {
			return err
		}
		f.Spec.Data.Hash = set.File.Hash
		return nil
	}
	dir, err := os.MkdirTemp("", "espalier-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "data")
	if _, err := local.SaveData(f.Data, f.Spec.Data, path); err != nil {
		return err
	}
	_, err = c.UploadFile(ctx, path, "data")
	return err
}
