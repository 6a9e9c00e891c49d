package store

import (
	"fmt"
	"slices"

	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// Short names of the states that the rules below turn on.
const (
	preparing = v1.JobState_JOB_STATE_PREPARING
	searching = v1.JobState_JOB_STATE_SEARCHING
	paused    = v1.JobState_JOB_STATE_PAUSED
	jobDone   = v1.JobState_JOB_STATE_DONE
	jobFailed = v1.JobState_JOB_STATE_FAILED
	cancelled = v1.JobState_JOB_STATE_CANCELLED

	pending       = v1.TaskState_TASK_STATE_PENDING
	leased        = v1.TaskState_TASK_STATE_LEASED
	taskDone      = v1.TaskState_TASK_STATE_DONE
	taskFailed    = v1.TaskState_TASK_STATE_FAILED
	taskCancelled = v1.TaskState_TASK_STATE_CANCELLED

	kindBaseline = v1.TaskKind_TASK_KIND_BASELINE
	kindTrial    = v1.TaskKind_TASK_KIND_TRIAL
	kindMeasure  = v1.TaskKind_TASK_KIND_MEASURE
)

// Live tells whether a job in this state may still get results of trials.
func Live(s v1.JobState) bool { return s == preparing || s == searching || s == paused }

func (a *applier) submitJob(c *v1.SubmitJob) (Result, error) {
	if err := checkName("submit job: request_id", c.GetRequestId()); err != nil {
		return Result{}, err
	}
	if id := a.bucket(bucketJobRequests).Get([]byte(c.RequestId)); id != nil {
		return Result{Job: a.job(string(id))}, nil
	}
	if err := checkSubmit(c); err != nil {
		return Result{}, err
	}
	if a.job(c.Id) != nil {
		return Result{}, fmt.Errorf("submit job: %w: job %q", ErrExists, c.Id)
	}
	job := &v1.Job{Id: c.Id, Spec: c.Spec, State: preparing, CreatedMs: a.nowMS, Devices: c.Devices, RequestId: c.RequestId}
	a.putJob(job)
	a.putBytes(bucketJobRequests, []byte(c.RequestId), []byte(c.Id))
	task := a.createTask(c.Id, kindBaseline, 0, "")
	return Result{Job: job, Task: task, Created: []*v1.Task{task}}, nil
}

func checkSubmit(c *v1.SubmitJob) error {
	if err := checkID("submit job: id", c.Id); err != nil {
		return err
	}
	if c.Spec == nil {
		return fmt.Errorf("%w: submit job %s: spec is missing", ErrInvalid, c.Id)
	}
	if len(c.Devices) == 0 {
		return fmt.Errorf("%w: submit job %s: devices is empty, want at least one", ErrInvalid, c.Id)
	}
	for i, d := range c.Devices {
		if err := checkID("submit job: device", d); err != nil {
			return err
		}
		if slices.Contains(c.Devices[:i], d) {
			return fmt.Errorf("%w: submit job %s: device %q is listed twice", ErrInvalid, c.Id, d)
		}
	}
	return nil
}

// createTask makes a pending task.
func (a *applier) createTask(job string, kind v1.TaskKind, trial int32, device string) *v1.Task {
	task := &v1.Task{
		Id: TaskID(job, kind, trial, device), Job: job, Kind: kind,
		CreatedMs: a.nowMS, Trial: trial, Device: device,
	}
	c := change(task)
	task.State = pending
	a.putTask(c)
	return task
}

// createMeasures makes the measure tasks of a trial, one for each device of the job.
func (a *applier) createMeasures(job *v1.Job, trial int32) []*v1.Task {
	out := make([]*v1.Task, 0, len(job.Devices))
	for _, d := range job.Devices {
		out = append(out, a.createTask(job.Id, kindMeasure, trial, d))
	}
	return out
}

func (a *applier) needJob(id string) (*v1.Job, error) {
	job := a.job(id)
	if job == nil {
		return nil, fmt.Errorf("%w: job %q", ErrNotFound, id)
	}
	return job, nil
}

func (a *applier) stopJob(c *v1.StopJob) (Result, error) {
	job, err := a.needJob(c.GetJob())
	if err != nil {
		return Result{}, err
	}
	if !Live(job.State) {
		return Result{}, fmt.Errorf("stop job %s: %w: it is %s", job.Id, ErrState, job.State)
	}
	if !job.Stopping {
		job.Stopping, job.Reason = true, cut(c.Reason)
		a.finishIfIdle(job)
		a.putJob(job)
	}
	return Result{Job: job}, nil
}

// finishIfIdle ends a stopping job that has no baseline, profile or trial pending or
// leased. The caller writes the job.
func (a *applier) finishIfIdle(job *v1.Job) {
	if !job.Stopping || !Live(job.State) {
		return
	}
	counts := a.counts(job.Id)
	if counts.Active() <= int(job.Remaking) { // what is made again keeps no job from its end
		a.end(job, jobDone)
	}
}

// end moves a live job to a final state. The caller writes the job.
func (a *applier) end(job *v1.Job, state v1.JobState) {
	a.unpause(job)
	job.State, job.FinishedMs = state, a.nowMS
}

func (a *applier) unpause(job *v1.Job) {
	if job.State != paused {
		return
	}
	job.PausedMs += max(0, a.nowMS-job.PausedAtMs)
	job.State, job.PausedAtMs, job.ResumeTo = job.ResumeTo, 0, 0
}

// setJobState follows these transitions and refuses all others with ErrState; a job
// that is already in the wanted state is left as it is.
//
//	PREPARING, SEARCHING         -> PAUSED
//	PAUSED                       -> PREPARING or SEARCHING: whichever it came from
//	PREPARING, SEARCHING, PAUSED -> CANCELLED, FAILED
func (a *applier) setJobState(c *v1.SetJobState) (Result, error) {
	job, err := a.needJob(c.GetJob())
	if err != nil {
		return Result{}, err
	}
	refused := fmt.Errorf("set job %s to %s: %w: it is %s", job.Id, c.State, ErrState, job.State)
	running := job.State == preparing || job.State == searching
	switch c.State {
	case paused:
		if running {
			job.ResumeTo, job.PausedAtMs, job.State = job.State, a.nowMS, paused
			if !job.Stopping {
				job.Reason = cut(c.Reason)
			}
		} else if job.State != paused {
			return Result{}, refused
		}
	case preparing, searching:
		if job.State == paused {
			a.unpause(job)
			if !job.Stopping {
				job.Reason = ""
			}
			a.finishIfIdle(job)
		} else if !running {
			return Result{}, refused
		}
	case cancelled, jobFailed:
		if job.State == c.State {
			return Result{Job: job}, nil
		}
		if !Live(job.State) {
			return Result{}, refused
		}
		freed := a.abandon(job, c.State, c.Reason)
		return Result{Job: job, Freed: freed}, nil
	default:
		return Result{}, fmt.Errorf("%w: set job %s: state %s, want PAUSED, SEARCHING, CANCELLED or FAILED", ErrInvalid, job.Id, c.State)
	}
	a.putJob(job)
	return Result{Job: job}, nil
}

// abandon ends a live job as CANCELLED or FAILED: its unfinished tasks and trials are
// cancelled. It writes the job, and returns the tasks that were leased.
func (a *applier) abandon(job *v1.Job, state v1.JobState, reason string) (freed []*v1.Task) {
	a.end(job, state)
	job.Reason, job.Remaking = cut(reason), 0
	a.putJob(job)
	for _, task := range a.unfinished(job) {
		wasLeased := task.State == leased
		c := change(task)
		if task.Remake.GetOpen() {
			task.Worker, task.Session = "", ""
			a.closeRemake(c, reason)
			if wasLeased {
				freed = append(freed, task)
			}
			continue
		}
		task.State, task.FinishedMs, task.Worker, task.Session = taskCancelled, a.nowMS, "", ""
		a.putTask(c)
		if wasLeased {
			freed = append(freed, task)
		}
		if task.Kind == kindTrial {
			a.endTrial(job.Id, task.Trial, v1.TrialState_TRIAL_STATE_CANCELLED, reason)
		}
	}
	return freed
}

func (a *applier) endTrial(job string, number int32, state v1.TrialState, reason string) *v1.Trial {
	trial := a.trial(job, number)
	if trial == nil {
		panic(fault{fmt.Errorf("%w: task of trial %s/%d without its record", ErrCorrupt, job, number)})
	}
	trial.State, trial.FinishedMs, trial.Reason = state, a.nowMS, cut(reason)
	a.putTrial(trial)
	return trial
}

// unfinished lists a job's pending and leased tasks, pending ones first, each in the
// order of their keys.
func (a *applier) unfinished(job *v1.Job) []*v1.Task {
	var out []*v1.Task
	for _, p := range pendingPrefixes(job) {
		for _, k := range a.keys(bucketPending, p) {
			out = append(out, a.pendingTask(k))
		}
	}
	for _, k := range a.keys(bucketLeased, nil) {
		if task := a.leasedTask(k); task.Job == job.Id {
			out = append(out, task)
		}
	}
	return out
}

func pendingPrefixes(job *v1.Job) [][]byte {
	out := make([][]byte, 0, 3+len(job.Devices))
	for k := kindBaseline; k < kindMeasure; k++ {
		out = append(out, pendingPrefix(k, "", job.Id))
	}
	for _, d := range job.Devices {
		out = append(out, pendingPrefix(kindMeasure, d, job.Id))
	}
	return out
}
