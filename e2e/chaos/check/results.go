package check

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// Outcomes of a report, as workers log them.
const (
	Baseline    = "baseline"
	Trial       = "trial"
	Measurement = "measurement"
)

// Ack is a report that a worker was told the end of.
type Ack struct {
	Worker, Task, Outcome string
	Attempt               int32
	// Stale: it came too late and must not count.
	Stale bool
	At    time.Time
}

// State is all that a cluster tells of its jobs.
type State struct {
	Jobs   []*v1.JobStatus
	Trials map[string][]*v1.Trial
	// Fronts by job and device.
	Fronts map[string]map[string]*v1.Front
}

func (s *State) job(id string) *v1.JobStatus {
	for _, j := range s.Jobs {
		if j.GetJob().GetId() == id {
			return j
		}
	}
	return nil
}

// Trial is a trial by number, nil if there is none.
func (s *State) Trial(job string, number int32) *v1.Trial {
	for _, t := range s.Trials[job] {
		if t.GetNumber() == number {
			return t
		}
	}
	return nil
}

// taskID takes a task's id apart.
func taskID(id string) (job string, trial int32, device string) {
	parts := strings.Split(id, "/")
	for i, p := range parts {
		switch i {
		case 0:
			job = p
		case 2:
			n, _ := strconv.ParseInt(p, 10, 32)
			trial = int32(n)
		case 3:
			device = p
		}
	}
	return job, trial, device
}

// Results holds the first promise: what was acknowledged is there, once, and what was refused is not.
func Results(s *State, acks []Ack) (bad []string) {
	counted := map[string]Ack{}
	for _, a := range acks {
		if a.Outcome != Baseline && a.Outcome != Trial && a.Outcome != Measurement {
			continue
		}
		if a.Stale {
			// Only a trial's record tells its attempt: another one of the same worker may have given the rest.
			if a.Outcome == Trial && counts(s, a) {
				bad = append(bad, fmt.Sprintf("%s attempt %d of %s was refused as stale, and counts", a.Task, a.Attempt, a.Worker))
			}
			continue
		}
		if before, twice := counted[a.Task]; twice && (before.Attempt != a.Attempt || before.Worker != a.Worker) {
			bad = append(bad, fmt.Sprintf("%s was acknowledged twice: attempt %d of %s and attempt %d of %s",
				a.Task, before.Attempt, before.Worker, a.Attempt, a.Worker))
		}
		counted[a.Task] = a
		if !counts(s, a) {
			bad = append(bad, fmt.Sprintf("%s attempt %d of %s was acknowledged at %s, and is lost",
				a.Task, a.Attempt, a.Worker, a.At.Format(time.TimeOnly)))
		}
	}
	return bad
}

// counts tells whether the records hold the result of this very attempt.
func counts(s *State, a Ack) bool {
	job, number, device := taskID(a.Task)
	j := s.job(job).GetJob()
	t := s.Trial(job, number)
	switch a.Outcome {
	case Baseline:
		return j.GetBaseline() != nil
	case Trial:
		return t.GetState() == v1.TrialState_TRIAL_STATE_DONE && t.GetAttempt() == a.Attempt && t.GetWorker() == a.Worker
	default:
		m := t.GetMeasurements()
		if number == 0 {
			m = j.GetBaseline().GetMeasurements()
		}
		return m[device].GetWorker() == a.Worker
	}
}

// Counts compares each job's numbers with its trials.
func Counts(s *State) (bad []string) {
	for _, js := range s.Jobs {
		j := js.GetJob()
		trials := s.Trials[j.GetId()]
		say := func(format string, args ...any) {
			bad = append(bad, "job "+j.GetId()+": "+fmt.Sprintf(format, args...))
		}
		if int(j.GetLastTrial()) != len(trials) {
			say("%d records for %d trials", len(trials), j.GetLastTrial())
		}
		var done, failed int32
		places := map[int32]int32{}
		for i, t := range trials {
			if t.GetNumber() != int32(i)+1 {
				say("trial %d is recorded in the place of %d", t.GetNumber(), i+1)
			}
			switch t.GetState() {
			case v1.TrialState_TRIAL_STATE_DONE:
				done++
			case v1.TrialState_TRIAL_STATE_FAILED:
				failed++
			default:
				continue
			}
			if other, taken := places[t.GetOrder()]; taken || t.GetOrder() < 1 {
				say("trials %d and %d have the same place %d in the order of results", other, t.GetNumber(), t.GetOrder())
			}
			places[t.GetOrder()] = t.GetNumber()
		}
		if done != j.GetCompleted() || failed != j.GetFailed() {
			say("it counts %d completed and %d failed trials, there are %d and %d", j.GetCompleted(), j.GetFailed(), done, failed)
		}
		if limit := j.GetSpec().GetStop().GetTrials(); limit > 0 && j.GetState() == v1.JobState_JOB_STATE_DONE && done+failed < limit {
			say("it is done after %d of %d trials", done+failed, limit)
		}
	}
	return bad
}

// Ended holds that after the end nothing waits, runs or hangs.
func Ended(s *State) (bad []string) {
	for _, js := range s.Jobs {
		id, state := js.GetJob().GetId(), js.GetJob().GetState()
		switch state {
		case v1.JobState_JOB_STATE_DONE, v1.JobState_JOB_STATE_CANCELLED, v1.JobState_JOB_STATE_FAILED:
		default:
			bad = append(bad, fmt.Sprintf("job %s hangs: it is %s: %s", id, state, js.GetJob().GetReason()))
		}
		for _, r := range js.GetRunning() {
			bad = append(bad, fmt.Sprintf("task %s is a zombie: leased to %s for %v", r.GetTask().GetId(), r.GetTask().GetWorker(),
				time.Duration(js.GetNowMs()-r.GetTask().GetLeasedMs())*time.Millisecond))
		}
		if n := js.GetPendingMeasures(); n > 0 {
			bad = append(bad, fmt.Sprintf("job %s: %d measures wait for ever", id, n))
		}
		for _, t := range s.Trials[id] {
			if t.GetState() == v1.TrialState_TRIAL_STATE_RUNNING {
				bad = append(bad, fmt.Sprintf("trial %d of job %s runs although the job is %s", t.GetNumber(), id, state))
			}
		}
	}
	return bad
}

// Known holds that every job that a client was told of is there, once for each request, and no other.
func Known(s *State, submitted map[string][]string) (bad []string) {
	for request, ids := range submitted {
		distinct := slices.Compact(slices.Sorted(slices.Values(ids)))
		if len(distinct) > 1 {
			bad = append(bad, fmt.Sprintf("request %s made %d jobs: %v", request, len(distinct), distinct))
		}
		for _, id := range distinct {
			if s.job(id) == nil {
				bad = append(bad, fmt.Sprintf("job %s was acknowledged, and is lost", id))
			}
		}
	}
	seen := map[string]string{}
	for _, js := range s.Jobs {
		name := js.GetJob().GetSpec().GetName()
		if other, twice := seen[name]; twice {
			bad = append(bad, fmt.Sprintf("jobs %s and %s are of one request", other, js.GetJob().GetId()))
		}
		seen[name] = js.GetJob().GetId()
	}
	return bad
}
