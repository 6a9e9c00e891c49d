package main

import (
	"context"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/espalier-ml/espalier/client"
	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

func newWorkers() *cobra.Command {
	var cluster clusterFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "workers",
		Short: "List the workers of a cluster and what they do",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cluster.with(cmd, func(ctx context.Context, c *client.Client) error {
				reply, err := c.Cluster.Workers(ctx, &espalierv1.WorkersRequest{})
				if err != nil {
					return err
				}
				if asJSON {
					return printProto(cmd.OutOrStdout(), reply)
				}
				t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				fmt.Fprintln(t, "worker\tconnected\tslots\tdevice\tcpu\tkernels\trunning")
				for _, w := range reply.Workers {
					i := w.Worker.Info
					fmt.Fprintf(t, "%s\t%v\t%d/%d\t%s\t%s\t%s\t%s\n", i.Name, w.Connected, len(w.Running), i.Slots, dash(i.Device),
						i.GetFingerprint().GetCpu(), i.GetFingerprint().GetVariant(), dash(taskIDs(w.Running)))
				}
				return t.Flush()
			})
		},
	}
	cluster.add(cmd)
	jsonFlag(cmd, &asJSON)
	return cmd
}

func newDevices() *cobra.Command {
	var cluster clusterFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "devices",
		Short: "List the devices on which a cluster measures",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cluster.with(cmd, func(ctx context.Context, c *client.Client) error {
				reply, err := c.Cluster.Devices(ctx, &espalierv1.DevicesRequest{})
				if err != nil {
					return err
				}
				if asJSON {
					return printProto(cmd.OutOrStdout(), reply)
				}
				t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				fmt.Fprintln(t, "device\truntime\tformat\tcpu\tkernels\tworkers\twaiting")
				for _, d := range reply.Devices {
					v := d.Device
					fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%d\n", v.Name, v.Runtime, v.Format, v.GetFingerprint().GetCpu(),
						v.GetFingerprint().GetVariant(), dash(joined(d.Workers)), d.WaitingMeasures)
				}
				return t.Flush()
			})
		},
	}
	cluster.add(cmd)
	jsonFlag(cmd, &asJSON)
	return cmd
}

func dash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}

func taskIDs(running []*espalierv1.RunningTask) string {
	ids := make([]string, len(running))
	for i, r := range running {
		ids[i] = r.Task.Id
	}
	return joined(ids)
}
