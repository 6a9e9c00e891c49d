package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/espalier-ml/espalier/client"
	"github.com/espalier-ml/espalier/job"
	"github.com/espalier-ml/espalier/local"
	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

func newData() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "data",
		Short: "Upload and list data sets",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newDataPut(), newDataList())
	return cmd
}

func newDataPut() *cobra.Command {
	var cluster clusterFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "put NAME DIR",
		Short:   "Upload a data set under a name, for `data: {name: NAME}`",
		Example: "  espalier data put fashion ./fashion-mnist",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return cluster.with(cmd, func(ctx context.Context, c *client.Client) error {
				set, err := putData(ctx, c, args[0], args[1])
				if err != nil {
					return err
				}
				if asJSON {
					return printProto(cmd.OutOrStdout(), set)
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %d samples of %s, %d classes, %s\n", set.Name, set.Samples,
					shapeText(ints(set.Shape)), set.Classes, job.FormatSize(set.File.SizeBytes))
				return err
			})
		},
	}
	cluster.add(cmd)
	jsonFlag(cmd, &asJSON)
	return cmd
}

func putData(ctx context.Context, c *client.Client, name, from string) (*espalierv1.DataSet, error) {
	dir, err := os.MkdirTemp("", "espalier-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "data")
	spec := &espalierv1.DataSpec{Seed: 1}
	source := job.Data{Path: from}
	set, err := local.OpenData(source, spec)
	if err != nil {
		return nil, err
	}
	if _, err := local.SaveSet(set, spec, path); err != nil {
		return nil, err
	}
	ref, err := c.UploadFile(ctx, path, "data")
	if err != nil {
		return nil, err
	}
	out := &espalierv1.DataSet{
		Name: name, File: ref, CreatedMs: time.Now().UnixMilli(),
		Classes: int32(len(set.Classes)), Samples: int64(set.Len()),
	}
	for _, d := range set.Shape {
		out.Shape = append(out.Shape, int32(d))
	}
	_, err = c.Data.PutData(ctx, &espalierv1.PutDataRequest{Data: out})
	return out, err
}

func newDataList() *cobra.Command {
	var cluster clusterFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the data sets of a cluster",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cluster.with(cmd, func(ctx context.Context, c *client.Client) error {
				reply, err := c.Data.ListData(ctx, &espalierv1.ListDataRequest{})
				if err != nil {
					return err
				}
				if asJSON {
					return printProto(cmd.OutOrStdout(), reply)
				}
				t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				fmt.Fprintln(t, "name\tsamples\tshape\tclasses\tsize")
				for _, d := range reply.Data {
					fmt.Fprintf(t, "%s\t%d\t%s\t%d\t%s\n", d.Name, d.Samples, shapeText(ints(d.Shape)), d.Classes, job.FormatSize(d.File.SizeBytes))
				}
				return t.Flush()
			})
		},
	}
	cluster.add(cmd)
	jsonFlag(cmd, &asJSON)
	return cmd
}

func findData(ctx context.Context, c *client.Client, name string) (*espalierv1.DataSet, error) {
	reply, err := c.Data.ListData(ctx, &espalierv1.ListDataRequest{})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, d := range reply.Data {
		if d.Name == name {
			return d, nil
		}
		names = append(names, d.Name)
	}
	return nil, fmt.Errorf("%w: data.name %q: want one of: %s; upload with `espalier data put NAME DIR`", job.ErrField, name, joined(names))
}

func ints(v []int32) []int {
	out := make([]int, len(v))
	for i, x := range v {
		out[i] = int(x)
	}
	return out
}
