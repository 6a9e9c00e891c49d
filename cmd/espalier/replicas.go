package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/espalier-ml/espalier/client"
	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

func newCluster() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cluster",
		Short: "Look after the replicas of a cluster",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newClusterStatus(), newClusterAdd(), newClusterRemove(), newClusterTransfer(),
		newClusterBackup(), newClusterRestore(), newClusterRecover(),
		newClusterHealth(), newClusterCerts())
	return cmd
}

// newMember makes the commands that act on the cluster and say so in one line.
func newMember(use, short string, args cobra.PositionalArgs, act func(context.Context, *client.Client, []string) (string, error)) *cobra.Command {
	var cluster clusterFlags
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  args,
		RunE: func(cmd *cobra.Command, args []string) error {
			return cluster.with(cmd, func(ctx context.Context, c *client.Client) error {
				said, err := act(ctx, c, args)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintln(cmd.OutOrStdout(), said)
				return err
			})
		},
	}
	cluster.add(cmd)
	return cmd
}

func newClusterAdd() *cobra.Command {
	return newMember("add ID RAFT-ADDRESS", "Make a started replica a member (`server --join` does this by itself)", cobra.ExactArgs(2),
		func(ctx context.Context, c *client.Client, args []string) (string, error) {
			_, err := c.Cluster.AddReplica(ctx, &espalierv1.AddReplicaRequest{Id: args[0], RaftAddress: args[1]})
			return args[0] + " is a member", err
		})
}

func newClusterRemove() *cobra.Command {
	var force bool
	cmd := newMember("remove ID", "Remove a replica, such as one whose machine is lost", cobra.ExactArgs(1),
		func(ctx context.Context, c *client.Client, args []string) (string, error) {
			_, err := c.Cluster.RemoveReplica(ctx, &espalierv1.RemoveReplicaRequest{Id: args[0], Force: force})
			return args[0] + " is no longer a member", err
		})
	cmd.Flags().BoolVar(&force, "force", false, "remove it even if no majority of those that remain answers")
	return cmd
}

func newClusterTransfer() *cobra.Command {
	return newMember("transfer [ID]", "Give the lead to another replica, before its machine is stopped", cobra.MaximumNArgs(1),
		func(ctx context.Context, c *client.Client, args []string) (string, error) {
			req := &espalierv1.TransferLeadRequest{}
			if len(args) > 0 {
				req.Id = args[0]
			}
			_, err := c.Cluster.TransferLead(ctx, req)
			return "the lead has moved", err
		})
}
