package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/espalier-ml/espalier/client"
)

func newClusterHealth() *cobra.Command {
	var cluster clusterFlags
	var asJSON, alive bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Ask the first server named whether it is ready: exit code 0 if so, else 1 with the reason",
		Long: `Asks one server, the first of --server, whether it can serve: it knows who leads, its records have
caught up, and it is not about to end. It needs no token. Made for health checks of containers and
service managers.`,
		Example: `  espalier cluster health --server 127.0.0.1:8470
  espalier cluster health --server https://127.0.0.1:8470 --ca ca.pem --alive`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := cluster.config()
			if err != nil {
				return err
			}
			cfg.Addresses, cfg.Patience = cfg.Addresses[:1], -1
			c, err := client.New(cfg)
			if err != nil {
				return err
			}
			defer c.Close()
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			if alive {
				if err := c.Alive(ctx); err != nil {
					return fmt.Errorf("no server works at %s: %w", cfg.Addresses[0], err)
				}
				_, err = fmt.Fprintln(cmd.OutOrStdout(), "alive")
				return err
			}
			r, err := c.Ready(ctx)
			if err != nil {
				return fmt.Errorf("no server answers at %s: %w", cfg.Addresses[0], err)
			}
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), r)
			} else if r.Ready {
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is ready, %s leads\n", r.Replica, r.Leader)
			}
			if !r.Ready {
				err = errors.Join(err, fmt.Errorf("%s is not ready: %s", r.Replica, r.Reason))
			}
			return err
		},
	}
	cluster.add(cmd)
	cmd.Flags().BoolVar(&alive, "alive", false, "ask only whether the process works")
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Second, "longest wait for the answer")
	jsonFlag(cmd, &asJSON)
	return cmd
}
