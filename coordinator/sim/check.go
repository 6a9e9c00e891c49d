package sim

import (
	"fmt"
	"slices"

	"github.com/espalier-ml/espalier/coordinator/dispatch"
	"github.com/espalier-ml/espalier/coordinator/leader"
	"github.com/espalier-ml/espalier/coordinator/store"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// leaderState is the present leader.
type leaderState struct {
	lead    *leader.Leader
	disp    *dispatch.Dispatcher
	leading bool
}

// point is a measured trial as the front compares it.
type point struct {
	trial int32
	err   float64
	bytes int64
	p50   int64
}

// keepsOff reports whether p keeps q off the front: nowhere worse and somewhere better.
func (p point) keepsOff(q point) bool {
	if p.err > q.err || p.bytes > q.bytes || p.p50 > q.p50 {
		return false
	}
	return p.err < q.err || p.bytes < q.bytes || p.p50 < q.p50
}

// ledger is what the simulation knows happened, from the commands that were committed and the answers that were given.
type ledger struct {
	// finished trials, with the attempt that counted; 0 for those that failed.
	finished map[int32]int32
	failed   int
	measured []point
	// acknowledged are the reports that a worker was told of: task to attempt.
	acknowledged map[string]int32
	created      int32
	measuresLeft int
	ended        bool
	// dirty: something was committed since the last check.
	dirty, frontDirty bool
}

func newLedger() ledger {
	return ledger{finished: map[int32]int32{}, acknowledged: map[string]int32{}}
}

// committed writes down what commands did.
func (s *sim) committed(cmds []*v1.Command, results []store.Result) {
	l := &s.ledger
	for i, r := range results {
		if r.Err != nil {
			continue
		}
		l.dirty = true
		if j := r.Job; j != nil && !store.Live(j.GetState()) {
			l.ended = true
		}
		for _, t := range r.Created {
			if t.GetKind() == v1.TaskKind_TASK_KIND_MEASURE {
				l.measuresLeft++
			}
		}
		switch op := cmds[i].GetOp().(type) {
		case *v1.Command_LeaseTask:
			if n := op.LeaseTask.GetTrial(); n != nil && r.Task.GetTrial() == n.GetNumber() && r.Task.GetAttempt() == 1 {
				l.created = max(l.created, n.GetNumber())
			}
		case *v1.Command_EndLease:
			s.counts.LostLeases++
			s.ended(r.Task)
		case *v1.Command_PutWorker:
			s.counts.LostLeases += len(r.Freed)
			for _, t := range r.Freed {
				s.ended(t)
			}
		case *v1.Command_Report:
			s.settled(op.Report, r)
		}
	}
}

// ended writes down a task that failed without a report.
func (s *sim) ended(t *v1.Task) {
	if t.GetState() != v1.TaskState_TASK_STATE_FAILED {
		return
	}
	switch t.GetKind() {
	case v1.TaskKind_TASK_KIND_TRIAL:
		s.finish(t.GetTrial(), 0)
		s.ledger.failed++
	case v1.TaskKind_TASK_KIND_MEASURE:
		s.ledger.measuresLeft--
	}
}

// finish writes down a trial's end; a second one is an error.
func (s *sim) finish(trial, attempt int32) {
	if _, twice := s.ledger.finished[trial]; twice {
		s.fail(fmt.Errorf("%w: trial %d counts twice", ErrBroken, trial))
	}
	s.ledger.finished[trial] = attempt
}

// settled writes down a report that was committed.
func (s *sim) settled(req *v1.ReportRequest, r store.Result) {
	switch r.Status {
	case v1.ReportReply_STATUS_STALE:
		s.counts.Stale++
		return
	case v1.ReportReply_STATUS_REPEATED:
		s.counts.Repeated++
		return
	}
	s.counts.Accepted++
	switch {
	case req.GetTrial() != nil:
		s.finish(r.Task.GetTrial(), req.GetAttempt())
	case req.GetMeasurement() != nil:
		s.ledger.measuresLeft--
		if n := r.Task.GetTrial(); n > 0 {
			m := req.GetMeasurement()
			s.ledger.measured = append(s.ledger.measured, point{n, 1 - r.Trial.GetResult().GetAccuracy(), m.GetSizeBytes(), m.GetP50Ns()})
			s.ledger.frontDirty = true
		}
	default:
		s.ended(r.Task)
	}
}

// acknowledged writes down that a worker was told that its report counts, now or before.
func (s *sim) acknowledged(req *v1.ReportRequest, status v1.ReportReply_Status) {
	if status == v1.ReportReply_STATUS_ACCEPTED || status == v1.ReportReply_STATUS_REPEATED {
		s.ledger.acknowledged[req.GetTask()] = req.GetAttempt()
	}
}

// broken makes an ErrBroken.
func broken(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrBroken, fmt.Sprintf(format, args...))
}

// verify compares the records with the ledger, after every step that committed something.
func (s *sim) verify() error {
	l := &s.ledger
	if !l.dirty {
		return nil
	}
	l.dirty = false
	return s.local.View(func(v *store.View) error {
		job := v.Job(jobID)
		counts := v.Counts(jobID)
		leased := counts.Of(v1.TaskKind_TASK_KIND_TRIAL, v1.TaskState_TASK_STATE_LEASED) + counts.Of(v1.TaskKind_TASK_KIND_TRIAL, v1.TaskState_TASK_STATE_PENDING)
		switch {
		case job.GetLastTrial() != l.created:
			return broken("the job has %d trials, %d were created", job.GetLastTrial(), l.created)
		case int(job.GetCompleted()+job.GetFailed()) != len(l.finished):
			return broken("%d trials completed and %d failed, %d ended", job.GetCompleted(), job.GetFailed(), len(l.finished))
		case int(job.GetFailed()) != l.failed:
			return broken("%d trials failed, the ledger has %d", job.GetFailed(), l.failed)
		case int(l.created) != len(l.finished)+leased:
			return broken("of %d trials %d ended and %d go on: one is lost", l.created, len(l.finished), leased)
		case s.leading && len(s.disp.Running("")) > counts.Leased() && !s.uncertain():
			return broken("dispatch knows %d leases, the store %d", len(s.disp.Running("")), counts.Leased())
		}
		return s.verifyFront(v)
	})
}

// uncertain reports whether dispatch may rightly be behind the store.
func (s *sim) uncertain() bool { return s.cfg.Unclear > 0 }

// verifyFront compares the front with brute force: at every measurement while there are few, later at some.
func (s *sim) verifyFront(v *store.View) error {
	n := len(s.ledger.measured)
	if !s.ledger.frontDirty || n > 200 && n%50 != 0 {
		return nil
	}
	s.ledger.frontDirty = false
	s.counts.Checks++
	want := bruteForce(s.ledger.measured)
	if got := v.Front(jobID, deviceName); !slices.Equal(got, want) {
		return broken("the front is %v, brute force over %d measurements gives %v", got, n, want)
	}
	return nil
}

// bruteForce returns the trials that nothing keeps off the front, ascending.
func bruteForce(points []point) []int32 {
	var out []int32
	for _, p := range points {
		if !slices.ContainsFunc(points, func(q point) bool { return q.keepsOff(p) }) {
			out = append(out, p.trial)
		}
	}
	slices.Sort(out)
	return out
}

// verifyEnd goes through all records once.
func (s *sim) verifyEnd() error {
	return s.local.View(func(v *store.View) error {
		job := v.Job(jobID)
		if job.GetState() != v1.JobState_JOB_STATE_DONE {
			return broken("the job ended as %v: %s", job.GetState(), job.GetReason())
		}
		s.ledger.frontDirty = true
		if got, want := v.Front(jobID, deviceName), bruteForce(s.ledger.measured); !slices.Equal(got, want) {
			return broken("the front is %v, brute force gives %v", got, want)
		}
		trials := v.Trials(jobID, 0, 0)
		if len(trials) != int(job.GetLastTrial()) {
			return broken("%d records for %d trials", len(trials), job.GetLastTrial())
		}
		orders := map[int32]bool{}
		for i, t := range trials {
			if err := s.verifyTrial(t, int32(i)+1); err != nil {
				return err
			}
			orders[t.GetOrder()] = true
		}
		if len(orders) != len(trials) || orders[0] {
			return broken("%d places in the order of %d results", len(orders), len(trials))
		}
		for task, attempt := range s.ledger.acknowledged {
			if t := v.Task(task); t.GetAttempt() < attempt {
				return broken("task %s is at attempt %d, but attempt %d was acknowledged", task, t.GetAttempt(), attempt)
			}
		}
		return nil
	})
}

func (s *sim) verifyTrial(t *v1.Trial, number int32) error {
	attempt, ok := s.ledger.finished[number]
	done := t.GetState() == v1.TrialState_TRIAL_STATE_DONE
	switch {
	case t.GetNumber() != number:
		return broken("trial %d is recorded in the place of %d", t.GetNumber(), number)
	case !ok:
		return broken("trial %d has no end in the ledger", number)
	case done != (attempt > 0):
		return broken("trial %d is %v, its counted attempt is %d", number, t.GetState(), attempt)
	case done && t.GetResult().GetAccuracy() != 1-squash(s.values[number].objectives[0]):
		return broken("trial %d has accuracy %v, the problem says %v", number, t.GetResult().GetAccuracy(), s.values[number].objectives)
	case done && t.GetAttempt() != attempt:
		return broken("trial %d counts attempt %d, the ledger %d", number, t.GetAttempt(), attempt)
	}
	return nil
}
