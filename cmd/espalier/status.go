package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/espalier-ml/espalier/client"
	"github.com/espalier-ml/espalier/job"
	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

func newClusterStatus() *cobra.Command {
	var cluster clusterFlags
	var asJSON, digest bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the replicas: who leads, who answers, how far each has got, what its disk holds",
		Long: `Asks one server, and that one the others. Lag counts the entries by which a replica's records are behind
those of the replica that has most.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cluster.with(cmd, func(ctx context.Context, c *client.Client) error {
				r, err := c.Cluster.Replicas(ctx, &espalierv1.ReplicasRequest{All: true, Digest: digest})
				if err != nil {
					return err
				}
				if asJSON {
					return printProto(cmd.OutOrStdout(), r)
				}
				return showReplicas(cmd.OutOrStdout(), r)
			})
		},
	}
	cmd.Flags().BoolVar(&digest, "digest", false, "also print a checksum of the records: equal on replicas that have applied the same entries")
	cluster.add(cmd)
	jsonFlag(cmd, &asJSON)
	return cmd
}

// showReplicas prints a line for each replica, what is wrong, and the cluster as a whole.
func showReplicas(w io.Writer, r *espalierv1.ReplicasResponse) error {
	var most uint64
	voters, answer := 0, 0
	for _, m := range r.Replicas {
		most = max(most, m.GetReport().GetAppliedIndex())
		if m.Voter {
			voters++
			if m.Report != nil {
				answer++
			}
		}
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "replica\trole\tstate\tapi\tterm\tapplied\tlag\trecords\tlog\tfiles\tdisk free\tversion")
	for _, m := range r.Replicas {
		p := m.Report
		if p == nil {
			fmt.Fprintf(t, "%s\t%s\tdoes not answer\t%s\t–\t–\t–\t–\t–\t–\t–\t%s\n", m.Id, role(m), dash(m.ApiAddress), dash(m.Version))
			continue
		}
		state := "ready"
		if !p.Ready {
			state = "not ready"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%d\t%d\t%s\t%s\t%d, %s\t%s\t%s\n", m.Id, role(m), state, dash(m.ApiAddress), p.Term, p.AppliedIndex,
			most-p.AppliedIndex, job.FormatSize(p.StateBytes), job.FormatSize(p.LogBytes), p.Files, job.FormatSize(p.FileBytes),
			free(p.FreeBytes), dash(p.Version))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, m := range r.Replicas {
		switch {
		case m.Report == nil && m.Problem != "":
			fmt.Fprintf(w, "%s: %s\n", m.Id, m.Problem)
		case m.GetReport().GetReason() != "":
			fmt.Fprintf(w, "%s: %s\n", m.Id, m.Report.Reason)
		}
	}
	return showWhole(w, r, voters, answer)
}

// showWhole prints what holds for the cluster as a whole.
func showWhole(w io.Writer, r *espalierv1.ReplicasResponse, voters, answer int) error {
	leader := "nobody leads"
	if r.Leader != "" {
		leader = r.Leader + " leads"
	}
	majority := ""
	if answer <= voters/2 {
		majority = ": no majority, nothing is recorded"
	}
	_, err := fmt.Fprintf(w, "cluster %s: %s in term %d, %d of %d voters answer%s; asked %s\n", dash(r.ClusterId), leader, r.Term, answer, voters, majority, r.Id)
	if err == nil && r.Digest != "" {
		_, err = fmt.Fprintf(w, "records of %s up to entry %d: %s\n", r.Id, r.DigestIndex, r.Digest)
	}
	return err
}

func role(m *espalierv1.ReplicaStatus) string {
	switch {
	case m.Leader:
		return "leader"
	case !m.Voter:
		return "catching up"
	}
	return "voter"
}

func free(bytes int64) string {
	if bytes < 0 {
		return "–"
	}
	return job.FormatSize(bytes)
}
