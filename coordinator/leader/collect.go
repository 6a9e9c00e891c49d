package leader

import (
	"context"
	"errors"
	"math"

	"github.com/espalier-ml/espalier/coordinator/clock"
	"github.com/espalier-ml/espalier/coordinator/files"
	"github.com/espalier-ml/espalier/coordinator/store"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// defaultCheckpointBytes is what a job's checkpoints may take, beyond the pinned ones, unless the job says otherwise.
const defaultCheckpointBytes = 2_000_000_000

// Collect drops checkpoints of the job until those that are not pinned fit its limit, the farthest from the front first.
// Pinned are the checkpoints of baselines, of members of fronts, and of parents of unfinished trials, of all jobs.
func (l *Leader) Collect(ctx context.Context, id string) error {
	hashes, err := l.garbage(id)
	if err != nil || len(hashes) == 0 {
		return err
	}
	results, err := l.cfg.Store.Apply(ctx, &v1.Command{TimeMs: clock.Milli(l.cfg.Clock.Now()), Op: &v1.Command_DropFiles{
		DropFiles: &v1.DropFiles{Hashes: hashes, Reason: "checkpoints of job " + id}}})
	if err != nil {
		return err
	}
	l.cfg.Log.Info().Str("job", id).Int("files", len(hashes)).Msg("checkpoints dropped")
	return results[0].Err
}

// garbage returns the checkpoints to drop.
func (l *Leader) garbage(id string) (out []string, err error) {
	j := l.job(id)
	j.mu.Lock()
	defer j.mu.Unlock()
	err = l.cfg.Store.View(func(v *store.View) error {
		if err := j.read(v, &l.cfg); err != nil {
			return err
		}
		if j.record.GetBaseline() == nil || j.problem != nil {
			return nil
		}
		limit := j.record.GetSpec().GetSearch().GetCheckpointBytes()
		if limit == 0 {
			limit = defaultCheckpointBytes
		}
		out = files.Drop(j.checkpoints(v), limit)
		return nil
	})
	if !store.Live(j.record.GetState()) {
		l.forget(id)
	}
	return out, err
}

// checkpoints lists the job's checkpoints that are still there.
func (j *job) checkpoints(v *store.View) []files.Checkpoint {
	pinned := map[string]bool{}
	for _, other := range v.Jobs() {
		pinned[other.GetBaseline().GetCheckpoint().GetHash()] = true
		for _, d := range other.GetDevices() {
			for _, n := range v.Front(other.GetId(), d) {
				pinned[v.Trial(other.GetId(), n).GetResult().GetCheckpoint().GetHash()] = true
			}
		}
	}
	front := map[int32]bool{}
	for _, d := range j.record.GetDevices() {
		for _, n := range v.Front(j.id, d) {
			front[n] = true
		}
	}
	trials := v.Trials(j.id, 0, 0)
	parents := map[int32]bool{}
	for _, t := range trials {
		if t.GetState() == v1.TrialState_TRIAL_STATE_RUNNING {
			parents[t.GetConfig().GetParent()] = true
		}
	}
	var out []files.Checkpoint
	for _, t := range trials {
		f := t.GetResult().GetCheckpoint()
		if rec := v.File(f.GetHash()); rec == nil || rec.GetDroppedMs() > 0 || rec.GetLostMs() > 0 {
			continue
		}
		out = append(out, files.Checkpoint{Hash: f.GetHash(), SizeBytes: f.GetSizeBytes(), Trial: t.GetNumber(),
			Pinned: pinned[f.GetHash()] || parents[t.GetNumber()], Distance: j.distance(t.GetNumber(), front)})
	}
	return out
}

// distance is how much all objectives of a trial would have to improve for it to reach the nearest member of a front: 0
// for members, infinite for trials without objectives.
func (j *job) distance(number int32, front map[int32]bool) float64 {
	if front[number] {
		return 0
	}
	i, ok := j.at[number]
	if !ok || len(j.history[i].Objectives) == 0 {
		return math.Inf(1)
	}
	least := math.Inf(1)
	for n := range front {
		k, ok := j.at[n]
		if !ok || len(j.history[k].Objectives) == 0 {
			continue
		}
		worst := 0.0
		for m, value := range j.history[i].Objectives {
			worst = max(worst, value-j.history[k].Objectives[m])
		}
		least = min(least, worst)
	}
	return least
}

// collectAll collects the jobs named, and returns those for which it failed.
func (l *Leader) collectAll(ctx context.Context, jobs map[string]bool) (again map[string]bool, err error) {
	again = map[string]bool{}
	for id := range jobs {
		if failed := l.Collect(ctx, id); failed != nil {
			again[id] = true
			err = errors.Join(err, failed)
		}
	}
	return again, err
}
