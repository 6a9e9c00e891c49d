package api

import (
	"context"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/espalier-ml/espalier/coordinator/clock"
	"github.com/espalier-ml/espalier/coordinator/store"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// awayAfter is how long after its last sign a worker counts as away.
const awayAfter = time.Minute

// status builds what moves of a job.
func (s *service) status(v *store.View, job *v1.Job) *v1.JobStatus {
	now := s.now()
	counts := v.Counts(job.GetId())
	out := &v1.JobStatus{
		Job: job, Running: s.cfg.Dispatch.Running(job.GetId()), NowMs: clock.Milli(now),
		PendingMeasures: int32(counts.OpenMeasures()), EtaMs: eta(v, job, now), Notes: notes(v, job),
	}
	present := map[string]bool{}
	seen := s.cfg.Dispatch.Seen()
	for _, w := range v.Workers() {
		if at, ok := seen[w.GetInfo().GetName()]; ok && now.Sub(at) < awayAfter {
			present[w.GetInfo().GetDevice()] = true
		}
	}
	for _, device := range job.GetDevices() {
		members := frontMembers(v, job, device)
		best := fit(members, budget(v, job, device))
		out.Fronts = append(out.Fronts, &v1.FrontSummary{
			Device: device, Members: int32(len(members)), Hypervolume: hypervolume(job, device, members), Best: best,
		})
		if !present[device] && len(v.PendingOf(job.GetId(), v1.TaskKind_TASK_KIND_MEASURE, device, 1)) > 0 {
			out.AbsentDevices = append(out.AbsentDevices, device)
		}
	}
	return out
}

// eta estimates the milliseconds left from the trials' pace and the rules for trials and time; -1 if unknown.
func eta(v *store.View, job *v1.Job, now time.Time) int64 {
	if job.GetState() != v1.JobState_JOB_STATE_SEARCHING {
		return -1
	}
	left := int64(-1)
	stop := job.GetSpec().GetStop()
	if limit := stop.GetTimeMs(); limit > 0 {
		left = max(limit-(clock.Milli(now)-job.GetStartedMs()-job.GetPausedMs()), 0)
	}
	done := int64(job.GetCompleted() + job.GetFailed())
	first := v.Trial(job.GetId(), 1)
	if stop.GetTrials() > 0 && done > 0 && first != nil {
		spent := max(clock.Milli(now)-first.GetCreatedMs()-job.GetPausedMs(), 0)
		byTrials := spent * max(int64(stop.GetTrials())-done, 0) / done
		if left < 0 || byTrials < left {
			left = byTrials
		}
	}
	return left
}

// Get implements JobService. It may be stale.
func (s *service) Get(_ context.Context, req *v1.GetRequest) (*v1.GetResponse, error) {
	out := &v1.GetResponse{}
	err := s.cfg.Store.View(func(v *store.View) error {
		job, err := resolve(v, req.GetJob())
		if err != nil {
			return err
		}
		out.Status = s.status(v, job)
		return nil
	})
	return out, wrap(err)
}

// List implements JobService. It may be stale.
func (s *service) List(context.Context, *v1.ListRequest) (*v1.ListResponse, error) {
	out := &v1.ListResponse{}
	err := s.cfg.Store.View(func(v *store.View) error {
		for _, job := range v.Jobs() {
			out.Jobs = append(out.Jobs, s.status(v, job))
		}
		return nil
	})
	return out, wrap(err)
}

// Watch implements JobService: the status now, then when it changes, at most once per Interval; heartbeats' progress is
// looked at once a second. Each message is a whole status, so that a client that comes back just watches again. The
// stream ends well when the job has ended.
func (s *service) Watch(ctx context.Context, req *v1.WatchRequest, stream *connect.ServerStream[v1.WatchResponse]) error {
	changes, cancel := s.cfg.Store.Subscribe()
	defer cancel()
	job, err := s.find(req.GetJob())
	if err != nil {
		return err
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var last *v1.JobStatus
	for {
		next, err := s.statusOf(job.GetId())
		if err != nil {
			return wrap(err)
		}
		if !sameStatus(last, next) {
			if err := stream.Send(&v1.WatchResponse{Status: next}); err != nil {
				return err
			}
			last = next
		}
		if !store.Live(next.GetJob().GetState()) {
			return nil
		}
		if err := s.pause(ctx, s.cfg.Interval); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return wrap(ctx.Err())
		case <-s.stop.Done():
			return connect.NewError(connect.CodeUnavailable, s.stop.Err())
		case <-tick.C:
		case _, open := <-changes:
			if !open {
				return wrap(store.ErrClosed)
			}
		}
	}
}

// pause waits a while, unless the stream or the server ends before.
func (s *service) pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return wrap(ctx.Err())
	case <-s.stop.Done():
		return connect.NewError(connect.CodeUnavailable, s.stop.Err())
	case <-timer.C:
		return nil
	}
}

func (s *service) statusOf(id string) (out *v1.JobStatus, err error) {
	err = s.cfg.Store.View(func(v *store.View) error {
		job := v.Job(id)
		if job == nil {
			return store.ErrNotFound
		}
		out = s.status(v, job)
		return nil
	})
	return out, err
}

// sameStatus compares all but the times that pass by themselves.
func sameStatus(a, b *v1.JobStatus) bool {
	if a == nil || b == nil {
		return a == b
	}
	c := proto.CloneOf(a)
	c.NowMs, c.EtaMs = b.GetNowMs(), b.GetEtaMs()
	return proto.Equal(c, b)
}
