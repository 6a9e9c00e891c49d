package store

import (
	"fmt"
	"math"

	"google.golang.org/protobuf/proto"

	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// report is the fence: only the current attempt of a leased task may change anything.
// The session stays on a task whose lease a report ended, so that the same report
// again is told from a stale one.
func (a *applier) report(c *v1.ReportRequest) (Result, error) {
	task, err := a.needTask(c.GetTask())
	if err != nil {
		return Result{}, fmt.Errorf("report: %w", err)
	}
	r := Result{Task: task, Status: v1.ReportReply_STATUS_STALE}
	current := task.Attempt == c.Attempt && task.Session == c.Session && task.Worker == c.Worker && c.Session != ""
	if !current {
		return r, nil
	}
	if task.State != leased {
		r.Status = v1.ReportReply_STATUS_REPEATED
		return r, nil
	}
	switch out := c.Outcome.(type) {
	case *v1.ReportRequest_Baseline:
		if err = wrongKind(task, kindBaseline); err == nil && task.Remake.GetOpen() {
			r = a.remakeDone(task, out.Baseline.GetCheckpoint(), out.Baseline.GetArtifacts())
			break
		}
		r, err = a.baselineDone(task, out.Baseline)
	case *v1.ReportRequest_Trial:
		if err = wrongKind(task, kindTrial); err == nil && task.Remake.GetOpen() {
			r = a.remakeDone(task, out.Trial.GetCheckpoint(), out.Trial.GetArtifacts())
			break
		}
		r, err = a.trialDone(task, out.Trial)
	case *v1.ReportRequest_Measurement:
		r, err = a.measureDone(task, out.Measurement)
	case *v1.ReportRequest_Failure:
		r = a.attemptFailed(task, out.Failure)
	case *v1.ReportRequest_HandBack:
		ch := change(task)
		task.State = pending
		a.putTask(ch)
		r = Result{Task: task, Job: a.job(task.Job)}
	default:
		err = fmt.Errorf("%w: report on %s: outcome is missing", ErrInvalid, task.Id)
	}
	if err != nil {
		return Result{}, err
	}
	r.Status = v1.ReportReply_STATUS_ACCEPTED
	return r, nil
}

// finish makes a leased task DONE.
func (a *applier) finish(task *v1.Task) {
	ch := change(task)
	task.State, task.FinishedMs = taskDone, a.nowMS
	a.putTask(ch)
}

func wrongKind(task *v1.Task, want v1.TaskKind) error {
	if task.Kind == want {
		return nil
	}
	return fmt.Errorf("%w: report on %s: outcome is of a %s task", ErrInvalid, task.Id, want)
}

// checkUnit refuses what is no fraction, NaN among it: the front compares these.
func checkUnit(task *v1.Task, field string, v float64) error {
	if v >= 0 && v <= 1 {
		return nil
	}
	return fmt.Errorf("%w: report on %s: %s is %v, want 0 to 1", ErrInvalid, task.Id, field, v)
}

func (a *applier) baselineDone(task *v1.Task, b *v1.Baseline) (Result, error) {
	if err := wrongKind(task, kindBaseline); err != nil {
		return Result{}, err
	}
	if err := checkUnit(task, "accuracy", b.GetAccuracy()); err != nil {
		return Result{}, err
	}
	job, err := a.needJob(task.Job)
	if err != nil {
		return Result{}, err
	}
	a.finish(task)
	job.Baseline = b
	b.Measurements = nil
	if job.State == paused {
		job.ResumeTo = searching
	} else {
		job.State = searching
	}
	created := a.createMeasures(job, 0)
	a.finishIfIdle(job)
	a.putJob(job)
	return Result{Job: job, Task: task, Created: created}, nil
}

func (a *applier) trialDone(task *v1.Task, res *v1.TrialResult) (Result, error) {
	if err := wrongKind(task, kindTrial); err != nil {
		return Result{}, err
	}
	if err := checkUnit(task, "accuracy", res.GetAccuracy()); err != nil {
		return Result{}, err
	}
	job, err := a.needJob(task.Job)
	if err != nil {
		return Result{}, err
	}
	a.finish(task)
	job.Completed++
	trial := a.endTrial(job.Id, task.Trial, v1.TrialState_TRIAL_STATE_DONE, "")
	trial.Result = res
	a.join(job, trial)
	created := a.createMeasures(job, task.Trial)
	a.finishIfIdle(job)
	a.putJob(job)
	return Result{Job: job, Task: task, Trial: trial, Created: created}, nil
}

// measureDone records the final measurement of a trial (or of the baseline, trial 0)
// on a device and lets it join that device's front.
func (a *applier) measureDone(task *v1.Task, m *v1.Measurement) (Result, error) {
	if err := checkMeasurement(task, m); err != nil {
		return Result{}, err
	}
	job, err := a.needJob(task.Job)
	if err != nil {
		return Result{}, err
	}
	r := Result{Job: job, Task: task}
	if task.Trial == 0 {
		if err := checkArtifact(task, m, job.Baseline.GetArtifacts()); err != nil {
			return Result{}, err
		}
		job.Baseline = measuredBaseline(job.Baseline, m)
	} else {
		trial := a.trial(task.Job, task.Trial)
		if err := checkArtifact(task, m, trial.GetResult().GetArtifacts()); err != nil {
			return Result{}, err
		}
		if trial.Measurements == nil {
			trial.Measurements = map[string]*v1.Measurement{}
		}
		trial.Measurements[task.Device] = m
		a.putTrial(trial)
		a.joinFront(job.Id, task.Device, pointOf(trial, m))
		r.Trial = trial
	}
	a.finish(task)
	a.putJob(job)
	return r, nil
}

// measuredBaseline is a baseline with one more measurement. The one before stays as it is: results hold it.
func measuredBaseline(b *v1.Baseline, m *v1.Measurement) *v1.Baseline {
	out := proto.Clone(b).(*v1.Baseline)
	if out.Measurements == nil {
		out.Measurements = map[string]*v1.Measurement{}
	}
	out.Measurements[m.GetDevice()] = m
	return out
}

func checkMeasurement(task *v1.Task, m *v1.Measurement) error {
	if err := wrongKind(task, kindMeasure); err != nil {
		return err
	}
	switch {
	case m.GetDevice() != task.Device:
		return fmt.Errorf("%w: report on %s: measurement is of device %q", ErrInvalid, task.Id, m.GetDevice())
	case m.SizeBytes <= 0 || m.P50Ns <= 0 || m.P95Ns < m.P50Ns:
		return fmt.Errorf("%w: report on %s: size %d bytes, p50 %d ns, p95 %d ns: want positive numbers, p95 no less than p50",
			ErrInvalid, task.Id, m.SizeBytes, m.P50Ns, m.P95Ns)
	case math.IsNaN(m.Spread) || math.IsInf(m.Spread, 0) || m.Spread < 0:
		return fmt.Errorf("%w: report on %s: spread is %v", ErrInvalid, task.Id, m.Spread)
	}
	return nil
}

// checkArtifact holds the promise that size, latency and checksum are of one file:
// the measured file is one of the trial's artifacts, with that size.
func checkArtifact(task *v1.Task, m *v1.Measurement, artifacts []*v1.FileRef) error {
	for _, f := range artifacts {
		if f.Hash == m.Artifact {
			if f.SizeBytes != m.SizeBytes {
				return fmt.Errorf("%w: report on %s: artifact %s has %d bytes, the measurement says %d", ErrInvalid, task.Id, f.Hash, f.SizeBytes, m.SizeBytes)
			}
			return nil
		}
	}
	return fmt.Errorf("%w: report on %s: measured file %q is none of the trial's artifacts", ErrInvalid, task.Id, m.Artifact)
}

// attemptFailed counts a failure: the task waits, longer each time, or is FAILED.
func (a *applier) attemptFailed(task *v1.Task, f *v1.Failure) Result {
	ch := change(task)
	task.Failures++
	task.Reasons = append(task.Reasons, cut(fmt.Sprintf("attempt %d on %s: %s", task.Attempt, task.Worker, f.GetReason())))
	if f.GetPermanent() || task.Failures >= MaxFailures {
		return a.fail(ch, f.GetReason())
	}
	task.State = pending
	task.NotBeforeMs = a.nowMS + DelayMS(task.Failures)
	a.putTask(ch)
	return Result{Task: task, Job: a.job(task.Job), Trial: a.trialOf(task)}
}
