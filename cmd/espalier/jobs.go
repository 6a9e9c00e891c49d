package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/espalier-ml/espalier/client"
	"github.com/espalier-ml/espalier/local"
	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// printProto writes a message for programs, with the field names of the API.
func printProto(w io.Writer, m proto.Message) error {
	b, err := protojson.MarshalOptions{UseProtoNames: true, Multiline: true, EmitUnpopulated: true}.Marshal(m)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", b)
	return err
}

func newJobs() *cobra.Command {
	var cluster clusterFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "jobs",
		Short: "List the jobs of a cluster",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cluster.with(cmd, func(ctx context.Context, c *client.Client) error {
				reply, err := c.Jobs.List(ctx, &espalierv1.ListRequest{})
				if err != nil {
					return err
				}
				if asJSON {
					return printProto(cmd.OutOrStdout(), reply)
				}
				t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				fmt.Fprintln(t, "job\tname\tstate\ttrials\trunning\thypervolume\tage")
				for _, s := range reply.Jobs {
					hv := "–"
					if len(s.Fronts) > 0 {
						hv = fmt.Sprintf("%.4f", s.Fronts[0].Hypervolume)
					}
					fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n", s.Job.Id, s.Job.Spec.Name, local.StateName(s.Job.State),
						outOf(s.Job), len(s.Running), hv, roundTime(max(0, s.NowMs-s.Job.CreatedMs)))
				}
				return t.Flush()
			})
		},
	}
	cluster.add(cmd)
	jsonFlag(cmd, &asJSON)
	return cmd
}

func newJob() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "job",
		Short: "Look at one job",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newJobShow())
	return cmd
}

func newJobShow() *cobra.Command {
	var cluster clusterFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show JOB",
		Short: "Show a job: where it stands, its baseline, what runs, what waits",
		Long:  "JOB is an id, a unique prefix of one, or a name: then the newest job of that name.",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return cluster.with(cmd, func(ctx context.Context, c *client.Client) error {
				s, err := c.Job(ctx, args[0])
				if err != nil {
					return err
				}
				if asJSON {
					return printProto(cmd.OutOrStdout(), s)
				}
				return showJob(cmd.OutOrStdout(), s)
			})
		},
	}
	cluster.add(cmd)
	jsonFlag(cmd, &asJSON)
	return cmd
}

func showJob(w io.Writer, s *espalierv1.JobStatus) error {
	j := s.Job
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(k, format string, args ...any) { fmt.Fprintf(t, "%s\t%s\n", k, fmt.Sprintf(format, args...)) }
	row("job", "%s", j.Id)
	row("name", "%s", j.Spec.Name)
	state := local.StateName(j.State)
	if j.Reason != "" {
		state += ": " + j.Reason
	}
	row("state", "%s", state)
	row("model", "%s", j.Spec.GetModel().GetZoo())
	row("data", "%s", j.Spec.Data.Source)
	row("devices", "%s", joined(j.Devices))
	row("trials", "%s done, %d failed", outOf(j), j.Failed)
	if b := j.Baseline; b != nil {
		row("baseline", "accuracy %.2f %%, test %.2f %%, %d parameters, %d MACs", 100*b.Accuracy, 100*b.TestAccuracy, b.Params, b.Macs)
	}
	for _, f := range s.Fronts {
		row("front", "%s: %d members, hypervolume %.4f", f.Device, f.Members, f.Hypervolume)
	}
	for _, r := range s.Running {
		p := r.GetProgress()
		row("running", "%s on %s, attempt %d: %s %.0f %%", r.Task.Id, r.Task.Worker, r.Task.Attempt, p.GetStage(), 100*p.GetFraction())
	}
	if s.PendingMeasures > 0 {
		row("waiting", "%d measures", s.PendingMeasures)
	}
	for _, d := range s.AbsentDevices {
		row("absent", "no worker measures for %s: start one there with `espalier worker --device %s`", d, d)
	}
	for _, n := range s.Notes {
		row("files", "%s", n)
	}
	row("created", "%s", time.UnixMilli(j.CreatedMs).Format(time.RFC3339))
	return t.Flush()
}

// newControl makes cancel, pause and resume.
func newControl(verb, short string, call func(context.Context, *client.Client, string) (*espalierv1.Job, error)) func() *cobra.Command {
	return func() *cobra.Command {
		var cluster clusterFlags
		var asJSON bool
		cmd := &cobra.Command{
			Use:   verb + " JOB",
			Short: short,
			Args:  cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				return cluster.with(cmd, func(ctx context.Context, c *client.Client) error {
					j, err := call(ctx, c, args[0])
					if err != nil {
						return err
					}
					if asJSON {
						return printProto(cmd.OutOrStdout(), j)
					}
					_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is %s\n", j.Id, local.StateName(j.State))
					return err
				})
			},
		}
		cluster.add(cmd)
		jsonFlag(cmd, &asJSON)
		return cmd
	}
}

func cancelJob(ctx context.Context, c *client.Client, job string) (*espalierv1.Job, error) {
	reply, err := c.Jobs.Cancel(ctx, &espalierv1.CancelRequest{Job: job})
	return reply.GetJob(), err
}

func pauseJob(ctx context.Context, c *client.Client, job string) (*espalierv1.Job, error) {
	reply, err := c.Jobs.Pause(ctx, &espalierv1.PauseRequest{Job: job})
	return reply.GetJob(), err
}

func resumeJob(ctx context.Context, c *client.Client, job string) (*espalierv1.Job, error) {
	reply, err := c.Jobs.Resume(ctx, &espalierv1.ResumeRequest{Job: job})
	return reply.GetJob(), err
}

func newWatch() *cobra.Command {
	var cluster clusterFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "watch JOB",
		Short: "Follow a job until it ends; Ctrl-C stops following, not the job",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return cluster.with(cmd, func(ctx context.Context, c *client.Client) error {
				return watchJob(ctx, cmd, c, args[0], asJSON)
			})
		},
	}
	cluster.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object for each change")
	return cmd
}

// watchJob shows a job's status as it changes. A job that failed is an error.
func watchJob(ctx context.Context, cmd *cobra.Command, c *client.Client, ref string, asJSON bool) error {
	var show progress = &jsonLines{w: cmd.OutOrStdout()}
	if !asJSON {
		show = newProgress(cmd.OutOrStdout())
	}
	see := func(s *espalierv1.JobStatus) error { show.status(s); return nil }
	lost := func(err error) { fmt.Fprintf(cmd.ErrOrStderr(), "connection lost, trying again: %v\n", err) }
	s, err := c.Watch(ctx, ref, see, lost)
	show.close()
	if err != nil {
		return err
	}
	if s.Job.State == espalierv1.JobState_JOB_STATE_FAILED {
		return fmt.Errorf("%w: %s", local.ErrJobFailed, s.Job.Reason)
	}
	return nil
}

// jsonLines prints every status as one line.
type jsonLines struct{ w io.Writer }

func (j *jsonLines) status(s *espalierv1.JobStatus) {
	b, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(s)
	if err == nil {
		fmt.Fprintf(j.w, "%s\n", b)
	}
}

func (j *jsonLines) close() {}
