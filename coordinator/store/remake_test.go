package store

import (
	"errors"
	"testing"

	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

func addFiles(at int64, files ...*v1.FileRef) *v1.Command {
	return &v1.Command{TimeMs: at, Op: &v1.Command_AddFiles{AddFiles: &v1.AddFiles{Files: files}}}
}

func loseFiles(at int64, task string, hashes ...string) *v1.Command {
	return &v1.Command{TimeMs: at, Op: &v1.Command_LoseFiles{LoseFiles: &v1.LoseFiles{Task: task, Hashes: hashes, Reason: "test"}}}
}

// remaking is a job with a trial on its front, whose file is lost.
type remaking struct {
	*Local
	t    *testing.T
	task string
}

func newRemaking(t *testing.T) *remaking {
	t.Helper()
	r := &remaking{Local: openLocal(t), t: t, task: TaskID("j", kindTrial, 1, "")}
	for _, c := range []*v1.Command{
		worker(1, "w", "s"), submit(1, "j", "local"), lease(2, "j/baseline", "b", "w", "s"), addFiles(3, artifacts(0, 1000)...),
		reportBaseline(3, "j/baseline", 1, "w", "s"), newTrial(4, "j", 1, "t1", "w", "s"), addFiles(5, artifacts(1, 100)...),
		reportTrial(5, r.task, 1, "w", "s", 1, 0.9, 100), lease(6, TaskID("j", kindMeasure, 1, "local"), "m1", "w", "s"),
		reportMeasure(7, TaskID("j", kindMeasure, 1, "local"), 1, "w", "s", "local", 1, 100, 10),
	} {
		must(t, r, c)
	}
	return r
}

func (r *remaking) read() (job *v1.Job, task *v1.Task, trial *v1.Trial, file *v1.FileRecord) {
	r.t.Helper()
	err := r.View(func(v *View) error {
		job, task, trial, file = v.Job("j"), v.Task(r.task), v.Trial("j", 1), v.File(artifactHash(1))
		if front := v.Front("j", "local"); len(front) != 1 {
			r.t.Errorf("front %v", front)
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return job, task, trial, file
}

// lose loses the trial's file and leases its task again.
func (r *remaking) lose() {
	r.t.Helper()
	must(r.t, r, loseFiles(10, r.task, artifactHash(1)))
	job, task, trial, file := r.read()
	if task.State != pending || !task.Remake.GetOpen() || file.LostMs != 10 || job.Remaking != 1 || len(job.Remakes) != 1 {
		r.t.Fatalf("task %v, file %v, job %v", task, file, job)
	}
	if trial.State != v1.TrialState_TRIAL_STATE_DONE || trial.Worker != "w" || trial.Attempt != 1 {
		r.t.Errorf("trial %v", trial)
	}
	must(r.t, r, lease(11, r.task, "again", "w", "s"))
	// What the first attempt still says is stale.
	if got := do(r.t, r, reportTrial(12, r.task, 1, "w", "s", 1, 0.1, 100)); got.Status != v1.ReportReply_STATUS_STALE {
		r.t.Errorf("an old report is %v", got.Status)
	}
}

// ended checks that nothing was counted twice, and nothing recorded has changed.
func (r *remaking) ended() *v1.Task {
	r.t.Helper()
	job, task, trial, _ := r.read()
	if task.State != taskDone || task.Remake.GetOpen() || job.Remaking != 0 || job.Completed != 1 || job.Failed != 0 {
		r.t.Errorf("task %v, job %v", task, job)
	}
	if trial.State != v1.TrialState_TRIAL_STATE_DONE || trial.Result.GetAccuracy() != 0.9 || trial.Order != 1 || len(trial.Result.GetArtifacts()) != 1 {
		r.t.Errorf("trial %v", trial)
	}
	return task
}

func TestRemakeSame(t *testing.T) {
	r := newRemaking(t)
	r.lose()
	must(t, r, addFiles(13, artifacts(1, 100)...))
	must(t, r, reportTrial(13, r.task, 2, "w", "s", 1, 0.9, 100))
	task := r.ended()
	if _, _, _, file := r.read(); !task.Remake.Same || file.LostMs != 0 || task.Remake.Made != nil {
		t.Errorf("remake %v, file %v", task.Remake, file)
	}
	// Lost once more: that begins anew.
	must(t, r, loseFiles(20, r.task, artifactHash(1)))
	if job, task, _, _ := r.read(); !task.Remake.Open || task.Remake.Same || job.Remaking != 1 || len(job.Remakes) != 1 {
		t.Errorf("remake %v, job %v", task.Remake, job)
	}
}

func TestRemakeOther(t *testing.T) {
	r := newRemaking(t)
	r.lose()
	must(t, r, addFiles(13, artifacts(7, 90)...))
	must(t, r, reportTrial(13, r.task, 2, "w", "s", 7, 0.8, 90))
	task := r.ended()
	if _, _, _, file := r.read(); task.Remake.Same || file.LostMs == 0 || len(task.Remake.Made) != 1 || task.Remake.Made[0].Hash != artifactHash(7) {
		t.Errorf("remake %v, file %v", task.Remake, file)
	}
}

// TestRemakeGivenUp: failures and lost leases end it, and no job waits for it.
func TestRemakeGivenUp(t *testing.T) {
	r := newRemaking(t)
	r.lose()
	must(t, r, stop(12, "j"))
	if job, _, _, _ := r.read(); job.State != jobDone {
		t.Errorf("the job is %s", job.State)
	}
	must(t, r, reportFailure(13, r.task, 2, "w", "s", true))
	if task := r.ended(); task.Remake.Same || task.Remake.Reason != "it broke" {
		t.Errorf("remake %v", task.Remake)
	}
	r.lose2(t)
}

// lose2 loses the leases of a second remake until it is given up.
func (r *remaking) lose2(t *testing.T) {
	t.Helper()
	must(t, r, loseFiles(20, r.task, artifactHash(1)))
	for i := range int32(MaxLosses) {
		must(t, r, lease(21, r.task, string('A'+i), "w", "s"))
		must(t, r, endLease(22, r.task, 3+i))
	}
	if task := r.ended(); task.Remake.Reason == "" {
		t.Errorf("remake %v", task.Remake)
	}
}

func TestRemakeCancelled(t *testing.T) {
	r := newRemaking(t)
	r.lose()
	must(t, r, setState(12, "j", cancelled))
	if task := r.ended(); task.Remake.Reason != "because" {
		t.Errorf("remake %v", task.Remake)
	}
	if got := do(t, r, loseFiles(20, r.task, artifactHash(1))); got.Err != nil {
		t.Error(got.Err)
	}
	if job, task, _, _ := r.read(); task.State != taskDone || job.Remaking != 0 {
		t.Errorf("of a cancelled job files are made again: %v", task)
	}
}

// TestBaselineLost: without the dense model's checkpoint no trial begins; another one takes
// its place, and a job for which none can be made fails.
func TestBaselineLost(t *testing.T) {
	for _, tc := range []struct {
		name string
		end  *v1.Command
		want v1.JobState
	}{
		{"another", func() *v1.Command {
			c := reportBaseline(30, "j/baseline", 2, "w", "s")
			b := c.GetReport().GetBaseline()
			b.Checkpoint, b.Artifacts = artifacts(9, 9)[0], artifacts(8, 8)
			return c
		}(), searching},
		{"none", reportFailure(30, "j/baseline", 2, "w", "s", true), jobFailed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := openLocal(t)
			base := reportBaseline(3, "j/baseline", 1, "w", "s")
			base.GetReport().GetBaseline().Checkpoint = artifacts(5, 50)[0]
			for _, c := range []*v1.Command{worker(1, "w", "s"), submit(1, "j", "local"), lease(2, "j/baseline", "b", "w", "s"),
				addFiles(3, artifacts(5, 50)...), base, loseFiles(10, "j/baseline", artifactHash(5))} {
				must(t, l, c)
			}
			if r := do(t, l, newTrial(11, "j", 1, "t1", "w", "s")); !errors.Is(r.Err, ErrState) {
				t.Errorf("a trial without the dense model: %v, want ErrState", r.Err)
			}
			must(t, l, lease(12, "j/baseline", "again", "w", "s"))
			must(t, l, tc.end)
			err := l.View(func(v *View) error {
				j := v.Job("j")
				if j.State != tc.want || j.Baseline.GetAccuracy() != 0.95 {
					t.Errorf("job %v", j)
				}
				if tc.want == searching && (j.BaselineLost || j.Baseline.GetCheckpoint().GetHash() != artifactHash(9)) {
					t.Errorf("job %v", j)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestLoseFilesRefused(t *testing.T) {
	r := newRemaking(t)
	for _, tc := range []struct {
		cmd  *v1.Command
		want error
	}{
		{loseFiles(1, "", "x"), ErrInvalid},
		{loseFiles(1, "j/nothing", artifactHash(1)), ErrInvalid},
		{loseFiles(1, TaskID("j", kindTrial, 9, ""), artifactHash(1)), ErrNotFound},
		{loseFiles(1, TaskID("j", kindMeasure, 1, "local"), artifactHash(1)), ErrInvalid},
		{loseFiles(1, r.task, artifactHash(0)), ErrInvalid},
	} {
		before := digest(t, r)
		if got := do(t, r, tc.cmd); !errors.Is(got.Err, tc.want) {
			t.Errorf("%v: %v, want %v", tc.cmd, got.Err, tc.want)
		}
		if digest(t, r) != before {
			t.Errorf("%v changed something", tc.cmd)
		}
	}
	must(t, r, loseFiles(1, "", artifactHash(1), artifactHash(77)))
	if job, task, _, file := r.read(); file.LostMs != 1 || task.State != taskDone || job.Remaking != 0 {
		t.Errorf("file %v, task %v", file, task)
	}
}
