package dispatch

import (
	"strings"
	"sync/atomic"

	"github.com/rs/zerolog"

	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// Outcomes are the words for what a report brings, Statuses for what became of it.
var (
	Outcomes = []string{"baseline", "trial", "measurement", "failure", "hand_back"}
	Statuses = []string{"accepted", "repeated", "stale"}
)

// Stats is what a dispatcher has counted since its process began, and what it holds now.
type Stats struct {
	// Leased and Expired count leases, Waiting the claims that wait for something to do.
	Leased, Expired uint64
	Leases, Waiting int
	// Reports counts reports by outcome and status, as Outcomes and Statuses list them.
	Reports [5][3]uint64
}

// counters are written without a lock.
type counters struct {
	leased, expired atomic.Uint64
	reports         [5][3]atomic.Uint64
}

// Stats reads the counters.
func (d *Dispatcher) Stats() Stats {
	out := Stats{Leased: d.counts.leased.Load(), Expired: d.counts.expired.Load()}
	for i := range out.Reports {
		for k := range out.Reports[i] {
			out.Reports[i][k] = d.counts.reports[i][k].Load()
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	out.Leases, out.Waiting = len(d.cache.leases), len(d.waiting)
	return out
}

// outcomeOf is the index of a report's outcome in Outcomes.
func outcomeOf(r *v1.ReportRequest) int {
	switch r.GetOutcome().(type) {
	case *v1.ReportRequest_Baseline:
		return 0
	case *v1.ReportRequest_Trial:
		return 1
	case *v1.ReportRequest_Measurement:
		return 2
	case *v1.ReportRequest_Failure:
		return 3
	default:
		return 4
	}
}

// reported counts and logs a report that the store has answered.
func (d *Dispatcher) reported(req *v1.ReportRequest, status v1.ReportReply_Status) {
	outcome, k := outcomeOf(req), int(status-v1.ReportReply_STATUS_ACCEPTED)
	if k < 0 || k >= len(Statuses) {
		return
	}
	d.counts.reports[outcome][k].Add(1)
	job, _, _ := strings.Cut(req.GetTask(), "/")
	e := d.cfg.Log.Info().Str("job", job).Str("task", req.GetTask()).Int32("attempt", req.GetAttempt()).Str("worker", req.GetWorker()).
		Str("request", d.requestOf(job)).Str("outcome", Outcomes[outcome]).Str("status", Statuses[k])
	if f := req.GetFailure(); f != nil {
		e = e.Str("reason", f.GetReason())
	}
	e.Msg("task reported")
}

// leased counts and logs the leases among replies to claims.
func (d *Dispatcher) leased(replies []*v1.ClaimReply) {
	for _, r := range replies {
		if l := r.GetLease(); l != nil {
			d.counts.leased.Add(1)
			about(d.cfg.Log.Info(), l.GetTask()).Str("request", l.GetRequestId()).Msg("task leased")
		}
	}
}

// requestOf is the id of the request that submitted a job.
func (d *Dispatcher) requestOf(job string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if e := d.cache.jobs[job]; e != nil {
		return e.job.GetRequestId()
	}
	return ""
}

// about names a leased task in a log line.
func about(e *zerolog.Event, t *v1.Task) *zerolog.Event {
	return e.Str("job", t.GetJob()).Str("task", t.GetId()).Int32("attempt", t.GetAttempt()).Str("worker", t.GetWorker())
}
