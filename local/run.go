package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/rs/zerolog"
	"google.golang.org/protobuf/proto"

	"github.com/espalier-ml/espalier/client"
	"github.com/espalier-ml/espalier/coordinator"
	"github.com/espalier-ml/espalier/job"
	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/report"
	"github.com/espalier-ml/espalier/worker"
)

// Config is one embedded run.
type Config struct {
	Job     *job.File
	Out     string // results folder
	Slots   int    // trials at once; 0 means one for each core
	Known   job.Names
	Version string
	Logger  zerolog.Logger

	// OnStart is called once the folder is taken: whether a search in it goes on.
	OnStart func(resumed bool)
	// OnStatus is called with the job's status, now and after each change.
	OnStatus func(*espalierv1.JobStatus)
}

// Outcome is how a run ended.
type Outcome struct {
	Status *espalierv1.JobStatus
	Front  report.Front
	Dir    string
}

// drainTimeout bounds the wait for the last step of each slot when a run stops:
// its trials are handed back and start again when the run resumes.
const drainTimeout = 2 * time.Second

// Run searches until the job ends or ctx does. With ctx ended it stops cleanly,
// writes the results that there are and returns ctx's error besides them.
func Run(ctx context.Context, cfg Config) (out *Outcome, err error) {
	folder, err := OpenFolder(cfg.Out)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, folder.Close()) }()
	spec := proto.CloneOf(cfg.Job.Spec)
	data, err := SaveData(cfg.Job.Data, spec.Data, folder.path("upload.data"))
	if err != nil {
		return nil, err
	}
	defer os.Remove(folder.path("upload.data"))
	if err := folder.Bind(spec); err != nil {
		return nil, err
	}
	if cfg.OnStart != nil {
		cfg.OnStart(folder.Resumed)
	}
	r := &run{cfg: cfg, folder: folder, spec: spec, data: data}
	return r.search(ctx)
}

type run struct {
	cfg    Config
	folder *Folder
	spec   *espalierv1.JobSpec
	data   *espalierv1.FileRef
	client *client.Client
}

// search starts the coordinator, then the worker, and stops them in the other
// order.
func (r *run) search(ctx context.Context) (out *Outcome, err error) {
	server, err := coordinator.Start(ctx, coordinator.Config{
		Dir: r.folder.path("coordinator"), Known: r.cfg.Known, Version: r.cfg.Version, Logger: r.cfg.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("start coordinator: %w", err)
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		err = errors.Join(err, server.Close(closing))
	}()
	if r.client, err = client.New(client.Config{Addresses: []string{server.Address()}}); err != nil {
		return nil, err
	}
	defer r.client.Close()

	working, stopWorker := context.WithCancelCause(ctx)
	ended := make(chan error, 1)
	w, err := r.worker(server.Address())
	if err != nil {
		stopWorker(nil)
		return nil, err
	}
	go func() {
		err := w.Run(working)
		stopWorker(err)
		ended <- err
	}()
	status, err := r.follow(working)
	if err == nil || ctx.Err() != nil {
		out, err = r.write(ctx, status, err)
	}
	stopWorker(nil)
	if stopped := <-ended; stopped != nil && !errors.Is(stopped, context.Canceled) {
		return out, workerError(stopped) // what follow says then is a consequence
	}
	return out, err
}

// workerError explains why the worker ended by itself.
func workerError(err error) error {
	if errors.Is(err, worker.ErrHostLock) {
		return fmt.Errorf("%w: latency can be measured by one process at a time; wait for the other search or worker to end", err)
	}
	return fmt.Errorf("worker: %w", err)
}

func (r *run) worker(address string) (*worker.Worker, error) {
	return worker.New(worker.Config{
		Server: client.Config{Addresses: []string{address}}, Name: "local", Device: job.Local, Slots: r.cfg.Slots,
		DrainTimeout: drainTimeout, CacheDir: r.folder.path("cache"), Version: r.cfg.Version, Logger: r.cfg.Logger,
	})
}

// follow submits the job and watches it until it has ended and all of its
// measures are in.
func (r *run) follow(ctx context.Context) (*espalierv1.JobStatus, error) {
	f, err := os.Open(r.folder.path("upload.data"))
	if err != nil {
		return nil, err
	}
	err = r.client.Upload(ctx, r.data, f)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("store data set: %w", err)
	}
	j, err := r.submit(ctx)
	if err != nil {
		return nil, fmt.Errorf("submit job: %w", err)
	}
	see := func(s *espalierv1.JobStatus) error {
		if r.cfg.OnStatus != nil {
			r.cfg.OnStatus(s)
		}
		return nil
	}
	status, err := r.client.Watch(ctx, j.Id, see, nil)
	for err == nil && status.PendingMeasures > 0 {
		if err = sleep(ctx, 100*time.Millisecond); err != nil {
			break
		}
		if status, err = r.client.Job(ctx, j.Id); err == nil {
			err = see(status)
		}
	}
	if err != nil {
		if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
			err = cause
		}
		return &espalierv1.JobStatus{Job: j}, err
	}
	if status.Job.State != espalierv1.JobState_JOB_STATE_DONE {
		return status, fmt.Errorf("%w: %s; to try again remove %s, or use another --out folder", ErrJobFailed, status.Job.Reason, r.folder.Dir)
	}
	return status, nil
}

// submit records the job once the worker has made itself known, so that the
// device `local` is there.
func (r *run) submit(ctx context.Context) (*espalierv1.Job, error) {
	for {
		devices, err := r.client.Cluster.Devices(ctx, &espalierv1.DevicesRequest{})
		if err == nil && len(devices.Devices) > 0 {
			return r.client.SubmitAs(ctx, r.folder.Request(), r.spec, devices.Devices[0].Device.Fingerprint)
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// write fills the results folder, also when the run was stopped in mid-search:
// then stopped is why, and returned besides the outcome.
func (r *run) write(ctx context.Context, status *espalierv1.JobStatus, stopped error) (*Outcome, error) {
	if status.GetJob() == nil {
		return nil, stopped
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if fresh, err := r.client.Job(ctx, status.Job.Id); err == nil {
		status = fresh
	}
	if status.Job.Baseline == nil {
		return &Outcome{Status: status, Dir: r.folder.Dir}, stopped
	}
	reply, err := r.client.Jobs.Front(ctx, &espalierv1.FrontRequest{Job: status.Job.Id})
	if err != nil {
		return nil, errors.Join(stopped, fmt.Errorf("read front: %w", err))
	}
	front, err := r.folder.Write(ctx, r.client, reply.Front, Summarise(status, r.cfg.Version))
	if err != nil {
		return nil, errors.Join(stopped, err)
	}
	return &Outcome{Status: status, Front: front, Dir: r.folder.Dir}, stopped
}

// Summarise says of a job what a page shows.
func Summarise(s *espalierv1.JobStatus, version string) report.Summary {
	j := s.Job
	end := j.FinishedMs
	if end == 0 {
		end = s.NowMs
	}
	return report.Summary{
		Name: j.Spec.Name, Job: j.Id, Version: version, Model: j.Spec.GetModel().GetZoo(), Data: j.Spec.Data.Source,
		State: StateName(j.State), Reason: j.Reason, Completed: int(j.Completed), Failed: int(j.Failed),
		Elapsed: (time.Duration(max(0, end-j.CreatedMs)) * time.Millisecond).Round(100 * time.Millisecond),
	}
}

// StateName is a job's state in one word.
func StateName(s espalierv1.JobState) string {
	switch s {
	case espalierv1.JobState_JOB_STATE_PREPARING:
		return "preparing"
	case espalierv1.JobState_JOB_STATE_SEARCHING:
		return "searching"
	case espalierv1.JobState_JOB_STATE_PAUSED:
		return "paused"
	case espalierv1.JobState_JOB_STATE_DONE:
		return "done"
	case espalierv1.JobState_JOB_STATE_FAILED:
		return "failed"
	case espalierv1.JobState_JOB_STATE_CANCELLED:
		return "cancelled"
	}
	return "unknown"
}
