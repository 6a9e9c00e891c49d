package leader

import (
	"slices"

	"github.com/espalier-ml/espalier/coordinator/store"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// Lost says what is to be recorded of files that no replica has any more: a command for each task that made some of them and
// is to make them again, and one for all the rest. Made again are files of baselines, of members of fronts, of trials that are
// still to be measured, and of parents of unfinished trials, unless the job failed or was cancelled.
func Lost(v *store.View, hashes []string) []*v1.LoseFiles {
	lost, left := map[string]bool{}, map[string]bool{} // left: that nobody makes again
	for _, h := range hashes {
		lost[h], left[h] = true, true
	}
	var out []*v1.LoseFiles
	again := func(task string, files ...*v1.FileRef) {
		var mine []string
		for _, f := range files {
			if h := f.GetHash(); lost[h] && !slices.Contains(mine, h) {
				mine = append(mine, h)
				left[h] = false
			}
		}
		if len(mine) > 0 {
			out = append(out, &v1.LoseFiles{Task: task, Hashes: mine})
		}
	}
	for _, j := range v.Jobs() {
		if j.GetBaseline() == nil || !store.Live(j.GetState()) && j.GetState() != v1.JobState_JOB_STATE_DONE {
			continue
		}
		again(store.TaskID(j.GetId(), v1.TaskKind_TASK_KIND_BASELINE, 0, ""), filesOf(j.GetBaseline())...)
		trials := v.Trials(j.GetId(), 0, 0)
		wanted := wantedTrials(v, j, trials)
		for _, t := range trials {
			if wanted[t.GetNumber()] && t.GetResult() != nil {
				again(store.TaskID(j.GetId(), v1.TaskKind_TASK_KIND_TRIAL, t.GetNumber(), ""), filesOf(t.GetResult())...)
			}
		}
	}
	if rest := slices.DeleteFunc(slices.Clone(hashes), func(h string) bool { return !left[h] }); len(rest) > 0 {
		out = append(out, &v1.LoseFiles{Hashes: rest})
	}
	return out
}

// filesOf lists the files of a baseline or a trial.
func filesOf(r interface {
	GetCheckpoint() *v1.FileRef
	GetArtifacts() []*v1.FileRef
}) []*v1.FileRef {
	return append([]*v1.FileRef{r.GetCheckpoint()}, r.GetArtifacts()...)
}

// wantedTrials are the trials of a job whose files somebody is going to ask for.
func wantedTrials(v *store.View, j *v1.Job, trials []*v1.Trial) map[int32]bool {
	wanted := map[int32]bool{}
	for _, d := range j.GetDevices() {
		for _, n := range v.Front(j.GetId(), d) {
			wanted[n] = true
		}
		for _, t := range v.PendingOf(j.GetId(), v1.TaskKind_TASK_KIND_MEASURE, d, 0) {
			wanted[t.GetTrial()] = true
		}
	}
	for _, t := range v.Leased() {
		if t.GetJob() == j.GetId() && t.GetKind() == v1.TaskKind_TASK_KIND_MEASURE {
			wanted[t.GetTrial()] = true
		}
	}
	for _, t := range trials {
		if t.GetState() == v1.TrialState_TRIAL_STATE_RUNNING {
			wanted[t.GetConfig().GetParent()] = true
		}
	}
	return wanted
}
