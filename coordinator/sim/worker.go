package sim

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/espalier-ml/espalier/search"

	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// Times of a simulated worker.
const (
	heartbeat    = 5 * time.Second
	replyTimeout = 4 * time.Second
	idleWait     = 500 * time.Millisecond
	baselineTime = 20 * time.Second
	measureTime  = time.Second
)

// deviceName is the one device of a simulation.
const deviceName = "sim"

// worker is a process with one slot. Whatever is planned for it carries its life, and is void once that has ended.
type worker struct {
	s    *sim
	info *v1.WorkerInfo
	life int
	// request is the claim that is on its way, "" while there is none.
	request  string
	requests int
	// lease is what it works on, report what it has to say of it, nil while it works.
	lease  *v1.Lease
	report *v1.ReportRequest
	began  time.Time
	asleep bool
}

// plan runs f later unless the worker has died by then.
func (w *worker) plan(d time.Duration, f func()) {
	life := w.life
	w.s.after(d, func() {
		if w.life == life {
			f()
		}
	})
}

// start begins a life.
func (w *worker) start() {
	w.life++
	w.info.Session = fmt.Sprintf("%s-%d", w.info.GetName(), w.life)
	w.request, w.lease, w.report, w.asleep = "", nil, nil, false
	w.claim()
}

// die ends a life; another begins later.
func (w *worker) die() {
	w.s.counts.Kills++
	w.s.idle(w)
	w.life++
	w.request, w.lease, w.report = "", nil, nil
	w.s.after(w.s.between(time.Second, time.Minute), w.start)
}

// claim asks for a task under a new request id.
func (w *worker) claim() {
	w.requests++
	w.request = fmt.Sprintf("%s-%d", w.info.GetSession(), w.requests)
	w.ask()
}

// ask sends the claim that is on its way, again and again until there is an answer.
func (w *worker) ask() {
	id, life := w.request, w.life
	info := w.infoNow()
	w.s.request(
		func() any { return w.s.claim(&v1.ClaimRequest{RequestId: id, Worker: info}) },
		func(reply any) {
			if w.life == life && w.request == id {
				w.answered(reply)
			}
		})
	w.plan(replyTimeout, func() {
		if w.request == id {
			w.ask()
		}
	})
}

func (w *worker) infoNow() *v1.WorkerInfo {
	i := w.info
	return &v1.WorkerInfo{Name: i.GetName(), Session: i.GetSession(), Slots: 1, Fingerprint: i.GetFingerprint(), Device: i.GetDevice()}
}

func (w *worker) answered(reply any) {
	r, ok := reply.(*v1.ClaimReply)
	if !ok || r.GetError() != nil {
		w.plan(w.s.between(idleWait, 2*idleWait), w.ask0(w.request))
		return
	}
	w.request = ""
	if r.GetLease() == nil {
		w.plan(idleWait, w.claim)
		return
	}
	w.begin(r.GetLease())
}

// ask0 sends the claim again if it is still on its way.
func (w *worker) ask0(id string) func() {
	return func() {
		if w.request == id {
			w.ask()
		}
	}
}

// begin works on a lease: heartbeats, the end of the work, and what may come between.
func (w *worker) begin(l *v1.Lease) {
	w.lease, w.report = l, nil
	w.s.busy(w)
	d := measureTime
	switch l.GetTask().GetKind() {
	case v1.TaskKind_TASK_KIND_BASELINE:
		d = baselineTime
	case v1.TaskKind_TASK_KIND_TRIAL:
		d = w.s.between(w.s.cfg.TrialTime/2, 3*w.s.cfg.TrialTime/2)
	}
	if w.s.chance(w.s.cfg.Kill) {
		w.plan(w.s.between(0, d), w.die)
		d *= 2 // never reached
	}
	if w.s.chance(w.s.cfg.Sleep) {
		w.s.counts.Sleeps++
		nap := w.s.between(40*time.Second, 2*time.Minute)
		w.asleep = true
		w.plan(nap, func() { w.asleep = false })
		d += nap
	}
	w.plan(d, w.whileOn(l, w.finish))
	w.plan(heartbeat, w.whileOn(l, w.beat))
}

// whileOn runs f only while the worker is still on this lease.
func (w *worker) whileOn(l *v1.Lease, f func()) func() {
	return func() {
		if w.lease == l {
			f()
		}
	}
}

func (w *worker) beat() {
	l, t := w.lease, w.lease.GetTask()
	w.plan(heartbeat, w.whileOn(l, w.beat))
	if w.asleep {
		return
	}
	req := &v1.HeartbeatRequest{Worker: w.info.GetName(), Session: w.info.GetSession(),
		Beats: []*v1.Beat{{Task: t.GetId(), Attempt: t.GetAttempt(), Progress: &v1.Progress{Stage: "train"}}}}
	life := w.life
	w.s.request(func() any { return w.s.disp.Heartbeat(req) }, func(reply any) {
		r, ok := reply.(*v1.HeartbeatReply)
		if ok && w.life == life && w.lease == l && !w.asleep && len(r.GetBeats()) == 1 && r.GetBeats()[0].GetVerdict() == v1.BeatReply_VERDICT_LOST {
			w.done()
		}
	})
}

// finish makes the report and sends it until it is answered.
func (w *worker) finish() {
	t := w.lease.GetTask()
	w.report = &v1.ReportRequest{Worker: w.info.GetName(), Session: w.info.GetSession(), Task: t.GetId(), Attempt: t.GetAttempt()}
	w.s.outcome(w.report, w.lease)
	w.tell()
}

func (w *worker) tell() {
	l, req, life := w.lease, w.report, w.life
	w.s.request(func() any { return w.s.reported(req) }, func(reply any) {
		r, ok := reply.(*v1.ReportReply)
		if !ok || w.life != life || w.report != req {
			return
		}
		switch {
		case r.GetError().GetCode() == v1.DispatchError_CODE_FILES_MISSING:
			for _, f := range r.GetError().GetFiles() {
				w.s.present[f] = true
			}
			w.tell()
		case r.GetError() == nil:
			w.s.acknowledged(req, r.GetStatus())
			w.done()
		}
	})
	w.plan(replyTimeout, func() {
		if w.lease == l && w.report == req {
			w.tell()
		}
	})
}

// done lets go of the lease and claims again.
func (w *worker) done() {
	w.s.idle(w)
	w.lease, w.report = nil, nil
	w.claim()
}

// outcome fills a report: the same task has the same result, whoever does it.
func (s *sim) outcome(r *v1.ReportRequest, l *v1.Lease) {
	if s.chance(s.cfg.Fail) && l.GetTask().GetKind() != v1.TaskKind_TASK_KIND_BASELINE {
		s.counts.Failures++
		r.Outcome = &v1.ReportRequest_Failure{Failure: &v1.Failure{Reason: "simulated"}}
		return
	}
	switch l.GetTask().GetKind() {
	case v1.TaskKind_TASK_KIND_BASELINE:
		f := fileOf(0, 1<<40)
		r.Outcome = &v1.ReportRequest_Baseline{Baseline: &v1.Baseline{Accuracy: 0.5, Variant: variant, Checkpoint: f, Artifacts: []*v1.FileRef{f},
			Groups: []*v1.Group{{Name: "problem", Weights: 1}}, Strategies: []string{"problem"}}}
	case v1.TaskKind_TASK_KIND_TRIAL:
		s.trialOutcome(r, l)
	case v1.TaskKind_TASK_KIND_MEASURE:
		p50 := int64(1 << 40)
		if n := l.GetTask().GetTrial(); n > 0 {
			p50 = scaled(last(s.values[n].objectives, 2))
		}
		r.Outcome = &v1.ReportRequest_Measurement{Measurement: &v1.Measurement{Device: deviceName, Format: "esp", Artifact: l.GetArtifact().GetHash(),
			SizeBytes: l.GetArtifact().GetSizeBytes(), P50Ns: p50, P95Ns: p50 + p50/10, Runs: 1}}
	}
}

// trialOutcome evaluates the problem. The store's records hold the objectives squashed, in the same order.
func (s *sim) trialOutcome(r *v1.ReportRequest, l *v1.Lease) {
	n := l.GetTask().GetTrial()
	v, known := s.values[n]
	if !known {
		v.objectives, v.err = s.cfg.Problem.Evaluate(search.Config(l.GetConfig().GetPoint()))
		if v.err == nil && len(v.objectives) != len(s.cfg.Problem.Reference()) {
			v.err = fmt.Errorf("%w: %d objectives, the reference has %d", ErrProblem, len(v.objectives), len(s.cfg.Problem.Reference()))
		}
		s.values[n] = v
	}
	if v.err != nil {
		if !errors.Is(v.err, ErrTrial) {
			s.fail(v.err)
		}
		r.Outcome = &v1.ReportRequest_Failure{Failure: &v1.Failure{Reason: v.err.Error(), Permanent: true}}
		return
	}
	f := fileOf(n, scaled(last(v.objectives, 1)))
	r.Outcome = &v1.ReportRequest_Trial{Trial: &v1.TrialResult{Accuracy: 1 - squash(v.objectives[0]), Artifacts: []*v1.FileRef{f}, Checkpoint: f}}
}

// last returns objective i, or the last one there is.
func last(objectives []float64, i int) float64 { return objectives[min(i, len(objectives)-1)] }

// squash maps numbers to (0, 1) and keeps their order.
func squash(v float64) float64 { return 0.5 + math.Atan(v/10)/math.Pi }

// scaled maps numbers to positive whole ones and keeps their order, up to ties.
func scaled(v float64) int64 { return 1 + int64(squash(v)*(1<<40)) }

func fileOf(trial int32, size int64) *v1.FileRef {
	sum := sha256.Sum256([]byte(fmt.Sprint("trial ", trial)))
	return &v1.FileRef{Hash: hex.EncodeToString(sum[:]), SizeBytes: size, Format: "esp"}
}
