package dispatch

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/espalier-ml/espalier/coordinator/store"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// lease puts together all that a worker needs for a leased task of a job, and of a trial if it has one.
func (d *Dispatcher) lease(v *store.View, t *v1.Task, job *v1.Job, trial *v1.Trial) (*v1.Lease, error) {
	if job == nil {
		return nil, fmt.Errorf("task %s has no job", t.GetId())
	}
	out := &v1.Lease{
		Task: t, Spec: job.GetSpec(), RequestId: job.GetRequestId(),
		HeartbeatMs: d.cfg.Heartbeat.Milliseconds(), LeaseMs: d.cfg.Lease.Milliseconds(),
	}
	switch t.GetKind() {
	case v1.TaskKind_TASK_KIND_PROFILE:
		out.Baseline = job.GetBaseline()
	case v1.TaskKind_TASK_KIND_TRIAL:
		if trial == nil {
			return nil, fmt.Errorf("task %s has no trial", t.GetId())
		}
		out.Config, out.Baseline = trial.GetConfig(), job.GetBaseline()
		out.Parent = parent(v, job, trial.GetConfig().GetParent())
	case v1.TaskKind_TASK_KIND_MEASURE:
		files := job.GetBaseline().GetArtifacts()
		if n := t.GetTrial(); n > 0 {
			trial := v.Trial(t.GetJob(), n)
			files, out.Config = trial.GetResult().GetArtifacts(), trial.GetConfig()
		}
		out.Artifact = artifact(files, v.Device(t.GetDevice()).GetFormat())
		if out.Artifact == nil {
			return nil, fmt.Errorf("task %s has no file to measure", t.GetId())
		}
	}
	return out, nil
}

// parent returns the checkpoint that a trial starts from: the dense model's if the parent's is gone.
func parent(v *store.View, job *v1.Job, number int32) *v1.FileRef {
	if number > 0 {
		if f := v.Trial(job.GetId(), number).GetResult().GetCheckpoint(); f != nil {
			if rec := v.File(f.GetHash()); rec != nil && rec.GetDroppedMs() == 0 && rec.GetLostMs() == 0 {
				return f
			}
		}
	}
	return job.GetBaseline().GetCheckpoint()
}

// artifact returns the file in the device's format, the first one if none has it.
func artifact(files []*v1.FileRef, format string) *v1.FileRef {
	for _, f := range files {
		if f.GetFormat() == format {
			return f
		}
	}
	if len(files) > 0 {
		return files[0]
	}
	return nil
}

// Heartbeat keeps the leases that the session holds and takes their progress.
func (d *Dispatcher) Heartbeat(req *v1.HeartbeatRequest) *v1.HeartbeatReply {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.on {
		return &v1.HeartbeatReply{Error: errNotLeader}
	}
	if d.cache.stale || len(d.cache.staleTasks) > 0 {
		if err := d.refresh(); err != nil {
			return &v1.HeartbeatReply{Error: unavailable(err)}
		}
	}
	now := d.cfg.Clock.Now()
	if d.cache.sessions[req.GetWorker()] == req.GetSession() {
		d.cache.seen[req.GetWorker()] = now
	}
	reply := &v1.HeartbeatReply{}
	for _, b := range req.GetBeats() {
		out := &v1.BeatReply{Task: b.GetTask(), Attempt: b.GetAttempt(), Verdict: v1.BeatReply_VERDICT_LOST}
		if l := d.cache.leases[b.GetTask()]; l != nil && l.task.GetAttempt() == b.GetAttempt() &&
			l.task.GetWorker() == req.GetWorker() && l.task.GetSession() == req.GetSession() {
			out.Verdict = v1.BeatReply_VERDICT_CONTINUE
			l.deadline = now.Add(d.cfg.Lease)
			l.progress = b.GetProgress()
			if p := l.progress; len(p.GetStage()) > maxName {
				p.Stage = strings.ToValidUTF8(p.GetStage()[:maxName], "")
			}
		}
		reply.Beats = append(reply.Beats, out)
	}
	return reply
}

// Expire ends the leases whose time is over.
func (d *Dispatcher) Expire(ctx context.Context) error {
	var ended []*v1.Task
	d.mu.Lock()
	if !d.on {
		d.mu.Unlock()
		return nil
	}
	now := d.cfg.Clock.Now()
	for _, l := range d.cache.leases {
		if now.Before(l.deadline) {
			continue
		}
		ended = append(ended, l.task)
	}
	d.mu.Unlock()
	if len(ended) == 0 {
		return nil
	}
	slices.SortFunc(ended, func(a, b *v1.Task) int { return strings.Compare(a.GetId(), b.GetId()) })
	cmds := make([]*v1.Command, len(ended))
	for i, t := range ended {
		cmds[i] = &v1.Command{Op: &v1.Command_EndLease{EndLease: &v1.EndLease{
			Task: t.GetId(), Attempt: t.GetAttempt(), Reason: fmt.Sprintf("no heartbeat for %v", d.cfg.Lease),
		}}}
	}
	results, err := d.apply(ctx, cmds...)
	if err != nil {
		return err
	}
	for i, r := range results {
		log := about(d.cfg.Log.Warn(), ended[i])
		if r.Err != nil {
			log.Err(r.Err).Msg("lease ended otherwise") // its report came first: the next reload shows it
			d.reread()
			continue
		}
		d.counts.expired.Add(1)
		log.Str("request", d.requestOf(ended[i].GetJob())).Stringer("state", r.Task.GetState()).Msg("lease expired")
	}
	d.nudge()
	return nil
}
