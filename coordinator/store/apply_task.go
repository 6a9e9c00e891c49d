package store

import (
	"bytes"
	"fmt"

	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// pendingTask reads the task behind a key of bucketPending.
func (t *txn) pendingTask(k []byte) *v1.Task {
	key, err := taskKeyOfPending(k)
	if err != nil {
		panic(fault{err})
	}
	return t.indexedTask(bucketPending, key)
}

// leasedTask reads the task behind a key of bucketLeased.
func (t *txn) leasedTask(k []byte) *v1.Task {
	parts := bytes.SplitN(k, []byte{0}, 3)
	if len(parts) != 3 {
		panic(fault{fmt.Errorf("%w: leased key %x", ErrCorrupt, k)})
	}
	return t.indexedTask(bucketLeased, parts[2])
}

func (t *txn) indexedTask(index, key []byte) *v1.Task {
	task := t.taskAt(key)
	if task == nil {
		panic(fault{fmt.Errorf("%w: index %s names task %x, which is not there", ErrCorrupt, index, key)})
	}
	return task
}

func (a *applier) needTask(id string) (*v1.Task, error) {
	if _, _, _, _, err := ParseTaskID(id); err != nil {
		return nil, err
	}
	task := a.taskByID(id)
	if task == nil {
		return nil, fmt.Errorf("%w: task %q", ErrNotFound, id)
	}
	return task, nil
}

// checkSession refuses a session that is not its worker's current one.
func (a *applier) checkSession(worker, session string) error {
	rec := new(v1.WorkerRecord)
	if !a.get(bucketWorkers, []byte(worker), rec) {
		return fmt.Errorf("%w: worker %q", ErrNotFound, worker)
	}
	if rec.Info.GetSession() != session {
		return fmt.Errorf("%w: worker %q is at session %q, not %q", ErrSession, worker, rec.Info.GetSession(), session)
	}
	return nil
}

// leaseTask leases a pending task or a new trial. A request that holds a lease gets
// that lease again, whatever task it names.
func (a *applier) leaseTask(c *v1.LeaseTask) (Result, error) {
	if err := checkLease(c); err != nil {
		return Result{}, err
	}
	if err := a.checkSession(c.Worker, c.Session); err != nil {
		return Result{}, fmt.Errorf("lease task: %w", err)
	}
	if key := a.bucket(bucketLeaseReqs).Get([]byte(c.RequestId)); key != nil {
		task := a.indexedTask(bucketLeaseReqs, key)
		if task.Worker != c.Worker || task.Session != c.Session {
			return Result{}, fmt.Errorf("lease task: %w: request %q belongs to worker %q", ErrInvalid, c.RequestId, task.Worker)
		}
		return Result{Task: task, Trial: a.trialOf(task)}, nil
	}
	if c.Trial != nil {
		return a.leaseNewTrial(c)
	}
	task, err := a.needTask(c.Task)
	if err != nil {
		return Result{}, fmt.Errorf("lease task: %w", err)
	}
	if task.State != pending {
		return Result{}, fmt.Errorf("lease task %s: %w: it is %s", task.Id, ErrState, task.State)
	}
	job, err := a.needJob(task.Job)
	if err != nil {
		return Result{}, fmt.Errorf("lease task %s: %w", task.Id, err)
	}
	if job.State == paused {
		return Result{}, fmt.Errorf("lease task %s: %w: its job is %s", task.Id, ErrState, job.State)
	}
	if task.Kind == kindTrial && job.BaselineLost {
		return Result{}, fmt.Errorf("lease task %s: %w: the dense model's checkpoint is lost", task.Id, ErrState)
	}
	r := Result{Job: job}
	a.grant(task, c)
	r.Task = task
	if job.StartedMs == 0 {
		job.StartedMs = a.nowMS
		a.putJob(job)
	}
	if task.Kind == kindTrial {
		r.Trial = a.trial(task.Job, task.Trial)
		if !task.Remake.GetOpen() { // who made the result stays on record
			r.Trial.Worker, r.Trial.Attempt = c.Worker, task.Attempt
			a.putTrial(r.Trial)
		}
	}
	return r, nil
}

func checkLease(c *v1.LeaseTask) error {
	if err := checkName("lease task: request_id", c.GetRequestId()); err != nil {
		return err
	}
	if err := checkName("lease task: worker", c.Worker); err != nil {
		return err
	}
	return checkName("lease task: session", c.Session)
}

// trialOf is the trial of a trial task, nil for other tasks.
func (a *applier) trialOf(task *v1.Task) *v1.Trial {
	if task.Kind != kindTrial {
		return nil
	}
	return a.trial(task.Job, task.Trial)
}

// grant turns a pending or new task into a leased one with the next attempt.
func (a *applier) grant(task *v1.Task, c *v1.LeaseTask) {
	ch := change(task)
	task.State = leased
	task.Attempt++
	task.Worker, task.Session, task.RequestId = c.Worker, c.Session, c.RequestId
	task.LeasedMs, task.NotBeforeMs = a.nowMS, 0
	a.putTask(ch)
}

func (a *applier) leaseNewTrial(c *v1.LeaseTask) (Result, error) {
	n := c.Trial
	job, err := a.needJob(n.Job)
	if err != nil {
		return Result{}, fmt.Errorf("lease new trial: %w", err)
	}
	switch {
	case job.BaselineLost:
		return Result{}, fmt.Errorf("lease trial %d of job %s: %w: the dense model's checkpoint is lost", n.Number, job.Id, ErrState)
	case job.State != searching || job.Stopping:
		return Result{}, fmt.Errorf("lease trial %d of job %s: %w: the job is %s, stopping %t", n.Number, job.Id, ErrState, job.State, job.Stopping)
	case n.Number != job.LastTrial+1:
		return Result{}, fmt.Errorf("lease trial %d of job %s: %w: want %d", n.Number, job.Id, ErrNumber, job.LastTrial+1)
	case n.Config == nil:
		return Result{}, fmt.Errorf("%w: lease trial %d of job %s: config is missing", ErrInvalid, n.Number, job.Id)
	case n.Config.Parent < 0 || n.Config.Parent > job.LastTrial:
		return Result{}, fmt.Errorf("%w: lease trial %d of job %s: parent %d, want 0 to %d", ErrInvalid, n.Number, job.Id, n.Config.Parent, job.LastTrial)
	}
	job.LastTrial = n.Number
	a.putJob(job)
	task := &v1.Task{
		Id: TaskID(job.Id, kindTrial, n.Number, ""), Job: job.Id, Kind: kindTrial,
		CreatedMs: a.nowMS, Trial: n.Number,
	}
	a.grant(task, c)
	trial := &v1.Trial{
		Job: job.Id, Number: n.Number, Config: n.Config, State: v1.TrialState_TRIAL_STATE_RUNNING,
		CreatedMs: a.nowMS, Worker: c.Worker, Attempt: task.Attempt, Seen: n.Seen,
	}
	a.putTrial(trial)
	return Result{Job: job, Task: task, Trial: trial}, nil
}

// endLease takes a lease away: a lost lease, counted towards MaxLosses.
func (a *applier) endLease(c *v1.EndLease) (Result, error) {
	task, err := a.needTask(c.GetTask())
	if err != nil {
		return Result{}, fmt.Errorf("end lease: %w", err)
	}
	if task.State != leased {
		return Result{}, fmt.Errorf("end lease of %s: %w: it is %s", task.Id, ErrState, task.State)
	}
	if task.Attempt != c.Attempt {
		return Result{}, fmt.Errorf("end lease of %s: %w: attempt %d, now at %d", task.Id, ErrAttempt, c.Attempt, task.Attempt)
	}
	r := a.lose(task, c.Reason)
	return r, nil
}

// lose ends a lease without a report. The session is forgotten, so that a report of
// this attempt that still comes is stale.
func (a *applier) lose(task *v1.Task, reason string) Result {
	ch := change(task)
	task.Losses++
	task.Reasons = append(task.Reasons, cut(fmt.Sprintf("attempt %d on %s: lease lost: %s", task.Attempt, task.Worker, reason)))
	task.Worker, task.Session, task.RequestId = "", "", ""
	if task.Losses < MaxLosses {
		task.State = pending
		a.putTask(ch)
		return Result{Task: task, Job: a.job(task.Job), Trial: a.trialOf(task)}
	}
	return a.fail(ch, fmt.Sprintf("lease lost %d times, last: %s", task.Losses, reason))
}

// fail makes a task FAILED and draws the consequences: a failed trial counts as a
// result, a failed baseline fails the job.
func (a *applier) fail(ch *taskChange, reason string) Result {
	task := ch.Task
	if task.Remake.GetOpen() {
		return a.endRemake(ch, nil, reason)
	}
	task.State, task.FinishedMs = taskFailed, a.nowMS
	a.putTask(ch)
	job := a.job(task.Job)
	if job == nil {
		panic(fault{fmt.Errorf("%w: task %s without its job", ErrCorrupt, task.Id)})
	}
	r := Result{Task: task, Job: job}
	if !Live(job.State) {
		return r
	}
	switch task.Kind {
	case kindTrial:
		job.Failed++
		r.Trial = a.endTrial(job.Id, task.Trial, v1.TrialState_TRIAL_STATE_FAILED, reason)
		a.join(job, r.Trial)
	case kindBaseline:
		r.Freed = a.abandon(job, jobFailed, "baseline failed: "+reason)
		return r
	case kindMeasure:
		return r
	}
	a.finishIfIdle(job)
	a.putJob(job)
	return r
}

// join gives a finished trial its place in the order of results.
func (a *applier) join(job *v1.Job, trial *v1.Trial) {
	trial.Order = job.Completed + job.Failed
	a.putTrial(trial)
	a.putBytes(bucketOrder, numberKey(job.Id, trial.Order), numberKey("", trial.Number)[1:])
}
