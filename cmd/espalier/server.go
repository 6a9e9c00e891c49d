package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/espalier-ml/espalier/coordinator"
	"github.com/espalier-ml/espalier/job"
)

func newServer() *cobra.Command {
	o := &serverOptions{}
	cmd := &cobra.Command{
		Use:   "server --data DIR",
		Short: "Run a coordinator: keeps jobs, results and files, and hands out tasks",
		Long: `Runs a coordinator until SIGTERM or Ctrl-C. It listens on this machine alone unless told
otherwise; beyond it only with TLS and a token, or --insecure.`,
		Example: `  espalier server --data /var/lib/espalier
  espalier server --data DIR --listen 0.0.0.0:8470 --tls-cert c.pem --tls-key k.pem --token-file token
  espalier server --data A --cluster
  espalier server --data B --listen 127.0.0.1:8480 --join 127.0.0.1:8470`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd) },
	}
	cmd.Flags().StringVar(&o.data, "data", "", "folder for the state and the files (required)")
	cmd.Flags().StringVar(&o.listen, "listen", defaultServer, "address of the API; port 0 takes a free one")
	cmd.Flags().StringVar(&o.broker, "broker-listen", "", "address of the broker, for workers (default: one port above the API's)")
	cmd.Flags().StringVar(&o.host, "advertise", "", "name or address under which others reach this machine (default: found out)")
	cmd.Flags().BoolVar(&o.cluster, "cluster", false, "be the first of several replicas; they connect to the three ports above the API's")
	cmd.Flags().StringSliceVar(&o.join, "join", nil, "API address of one or more replicas of the cluster to be a member of")
	cmd.Flags().StringVar(&o.id, "id", "", "name of this replica, for ever (default: made up and kept in --data)")
	cmd.Flags().StringVar(&o.ca, "ca", "", "PEM file with the authority of the other replicas' certificates (default: the system's)")
	cmd.Flags().StringVar(&o.cert, "tls-cert", "", "PEM file with the certificate")
	cmd.Flags().StringVar(&o.key, "tls-key", "", "PEM file with its key")
	cmd.Flags().StringVar(&o.token, "token-file", "", "file with the token that clients, workers and other servers must show; further lines: tokens that do too (default $"+envTokenFile+", or $"+envToken+" itself)")
	cmd.Flags().BoolVar(&o.insecure, "insecure", false, "allow listening beyond this machine without TLS and token")
	cmd.Flags().DurationVar(&o.scrub, "scrub-every", 24*time.Hour, "time between two scrubs, which compare all files with their hashes")
	cmd.Flags().StringVar(&o.scrubRate, "scrub-rate", "20MB", "most bytes that a scrub reads in a second")
	cmd.Flags().DurationVar(&o.lease, "lease", 30*time.Second, "how long a task stays with a worker that sends no heartbeat")
	o.log.add(cmd, "info")
	return cmd
}

type serverOptions struct {
	data, listen, broker, host, cert, key, token string
	id, ca                                       string
	join                                         []string
	insecure, cluster                            bool
	log                                          logFlags
	lease                                        time.Duration
	scrub                                        time.Duration
	scrubRate                                    string
}

// closeTimeout bounds a clean shutdown.
const closeTimeout = 15 * time.Second

// minLease leaves room for the heartbeats of a busy machine: six go into a lease.
const minLease = time.Second

func (o *serverOptions) run(cmd *cobra.Command) error {
	if o.data == "" {
		return usagef("--data is missing: want a folder for the state")
	}
	if o.lease < minLease {
		return usagef("--lease is %v: want at least %v", o.lease, minLease)
	}
	if o.scrub <= 0 {
		return usagef("--scrub-every is %v: want more than 0", o.scrub)
	}
	rate, err := job.ParseSize(o.scrubRate)
	if err != nil || rate <= 0 {
		return usagef("--scrub-rate %q: want bytes, such as 20MB", o.scrubRate)
	}
	logger, err := o.log.logger(cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	tokens, err := findTokens(o.token)
	if err != nil {
		return err
	}
	at, err := resolveAddresses(o.listen, o.broker, o.host)
	if err != nil {
		return err
	}
	if o.cluster || len(o.join) > 0 {
		if err := at.replicate(); err != nil {
			return err
		}
	}
	raiseHeapFloor()
	ctx := cmd.Context()
	server, err := coordinator.Start(ctx, coordinator.Config{
		Dir: o.data, Listen: at.listen, BrokerListen: at.broker, Advertise: at.advertise, BrokerAdvertise: at.brokerAdvertise,
		ReplicaID: o.id, RaftListen: at.raft, RaftAdvertise: at.raftAdvertise, BrokerCluster: at.routes,
		BrokerClusterAdvertise: at.routesAdvertise, Join: o.join, CAFile: o.ca,
		CertFile: o.cert, KeyFile: o.key, Tokens: tokens, Lease: o.lease, ScrubEvery: o.scrub, ScrubRate: rate,
		Insecure: o.insecure, Known: known(), Version: version, Logger: logger,
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "espalier server %s listens on %s\n", version, server.Address())
	select {
	case <-ctx.Done():
	case err = <-server.Failed():
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	if closed := server.Close(closing); err == nil {
		err = closed
	}
	if errors.Is(err, coordinator.ErrRemoved) {
		// Not a failure, and starting it again would not help.
		_, err = fmt.Fprintf(cmd.ErrOrStderr(), "espalier: %v\n", err)
	}
	return err
}
