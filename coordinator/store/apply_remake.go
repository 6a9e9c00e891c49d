package store

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// loseFiles marks files as lost, and has the task that made them do it again.
func (a *applier) loseFiles(c *v1.LoseFiles) (Result, error) {
	for _, h := range c.GetHashes() {
		if err := checkHash("lose files", h); err != nil {
			return Result{}, err
		}
	}
	var task *v1.Task
	if c.GetTask() != "" {
		var err error
		if task, err = a.needTask(c.GetTask()); err != nil {
			return Result{}, fmt.Errorf("lose files: %w", err)
		}
		if err := a.checkRemake(task, c.GetHashes()); err != nil {
			return Result{}, err
		}
	}
	var lost []string
	for _, h := range c.GetHashes() {
		rec := new(v1.FileRecord)
		if !a.get(bucketFiles, []byte(h), rec) || rec.DroppedMs > 0 {
			continue
		}
		lost = append(lost, h)
		if rec.LostMs == 0 {
			rec.LostMs = max(1, a.nowMS)
			a.put(bucketFiles, []byte(h), rec)
			a.other = true
		}
	}
	if task == nil || len(lost) == 0 {
		return Result{}, nil
	}
	return a.remake(task, lost), nil
}

// checkRemake refuses what the task did not make, or is not done with.
func (a *applier) checkRemake(task *v1.Task, hashes []string) error {
	if task.Kind != kindBaseline && task.Kind != kindTrial {
		return fmt.Errorf("%w: lose files of %s: it makes none", ErrInvalid, task.Id)
	}
	if task.State != taskDone && !task.Remake.GetOpen() {
		return fmt.Errorf("lose files of %s: %w: it is %s", task.Id, ErrState, task.State)
	}
	_, files := a.resultOf(task)
	for _, h := range hashes {
		if !slices.ContainsFunc(files, func(f *v1.FileRef) bool { return f.GetHash() == h }) {
			return fmt.Errorf("%w: lose files of %s: it did not make %s", ErrInvalid, task.Id, h)
		}
	}
	return nil
}

// resultOf is what a task that is done has recorded: the kernel variant, and the files with
// the checkpoint first.
func (a *applier) resultOf(task *v1.Task) (variant string, files []*v1.FileRef) {
	if task.Kind == kindBaseline {
		b := a.job(task.Job).GetBaseline()
		return b.GetVariant(), append([]*v1.FileRef{b.GetCheckpoint()}, b.GetArtifacts()...)
	}
	r := a.trial(task.Job, task.Trial).GetResult()
	return r.GetVariant(), append([]*v1.FileRef{r.GetCheckpoint()}, r.GetArtifacts()...)
}

// remake makes a task that is done pending again. Its result stands, and its trial stays as
// it is: nothing is counted twice, and nothing that was measured changes.
func (a *applier) remake(task *v1.Task, lost []string) Result {
	job := a.job(task.Job)
	if job == nil {
		panic(fault{fmt.Errorf("%w: task %s without its job", ErrCorrupt, task.Id)})
	}
	if !Live(job.State) && job.State != jobDone {
		return Result{Job: job}
	}
	variant, files := a.resultOf(task)
	r := Result{Job: job, Task: task}
	c := change(task)
	if task.Remake.GetOpen() {
		for _, h := range lost {
			if !slices.Contains(task.Remake.Lost, h) {
				task.Remake.Lost = append(task.Remake.Lost, h)
			}
		}
	} else {
		task.State, task.Failures, task.Losses, task.NotBeforeMs = pending, 0, 0, 0
		task.Worker, task.Session, task.RequestId = "", "", ""
		task.Remake = &v1.Remake{Open: true, Lost: lost, LostMs: a.nowMS, Variant: variant}
		job.Remaking++
		if !slices.Contains(job.Remakes, task.Trial) {
			job.Remakes = slices.Sorted(slices.Values(append(slices.Clone(job.Remakes), task.Trial)))
		}
	}
	a.putTask(c)
	if task.Kind == kindBaseline && slices.Contains(lost, files[0].GetHash()) {
		job.BaselineLost = true
	}
	a.putJob(job)
	return r
}

// remakeDone takes the files that a task has made again: the recorded result stands. Files
// that differ are recorded beside it; only a baseline's checkpoint takes the lost one's
// place, since the trials to come need one.
func (a *applier) remakeDone(task *v1.Task, checkpoint *v1.FileRef, artifacts []*v1.FileRef) Result {
	made := artifacts
	if checkpoint != nil {
		made = append([]*v1.FileRef{checkpoint}, artifacts...)
	}
	same := true
	for _, h := range task.Remake.Lost {
		same = same && slices.ContainsFunc(made, func(f *v1.FileRef) bool { return f.GetHash() == h })
	}
	if same {
		made = nil
	}
	task.Remake.Same, task.Remake.Made = same, made
	return a.endRemake(change(task), checkpoint, "")
}

// endRemake makes the task DONE again, given up if there is a reason.
func (a *applier) endRemake(c *taskChange, checkpoint *v1.FileRef, reason string) Result {
	task := c.Task
	job := a.job(task.Job)
	if job == nil {
		panic(fault{fmt.Errorf("%w: task %s without its job", ErrCorrupt, task.Id)})
	}
	a.closeRemake(c, reason)
	job.Remaking = max(0, job.Remaking-1)
	r := Result{Job: job, Task: task}
	if task.Kind == kindBaseline && job.BaselineLost {
		switch {
		case task.Remake.Same:
			job.BaselineLost = false
		case reason == "" && checkpoint != nil:
			b := proto.Clone(job.Baseline).(*v1.Baseline)
			b.Checkpoint = checkpoint
			job.BaselineLost, job.Baseline = false, b
		case Live(job.State):
			r.Freed = a.abandon(job, jobFailed, "the dense model's checkpoint is lost and was not made again: "+reason)
			return r
		}
	}
	a.finishIfIdle(job)
	a.putJob(job)
	return r
}

// closeRemake writes the end of a remake to its task.
func (a *applier) closeRemake(c *taskChange, reason string) {
	c.State, c.FinishedMs = taskDone, a.nowMS
	c.Remake.Open, c.Remake.EndedMs, c.Remake.Reason = false, a.nowMS, cut(reason)
	a.putTask(c)
}

// fileFound clears what hung on a lost file. It returns a job that may go on.
func (a *applier) fileFound(hash string) (freed *v1.Job) {
	for _, k := range a.keys(bucketJobs, nil) {
		job := a.job(string(k))
		if job.GetBaselineLost() && job.GetBaseline().GetCheckpoint().GetHash() == hash {
			job.BaselineLost = false
			a.putJob(job)
			freed = job
		}
	}
	return freed
}
