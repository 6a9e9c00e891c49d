package worker

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/proto/trace"
	"github.com/espalier-ml/espalier/worker/task"
)

// runner runs the task of a lease. What its error wraps of task.ErrPermanent is
// not tried again.
type runner interface {
	Run(ctx context.Context, lease *espalierv1.Lease, c task.Control) (*task.Outcome, error)
}

// maxReason bounds the reason of a failure.
const maxReason = 1000

// work runs the task of a lease to its end: with a report that the leader has
// answered, or without when the lease is lost. lastCtx bounds the reporting.
func (w *Worker) work(ctx, lastCtx context.Context, lease *espalierv1.Lease) {
	t := lease.GetTask()
	log := w.log.With().Str("job", t.GetJob()).Str("task", t.GetId()).Int32("attempt", t.GetAttempt()).
		Str("request", lease.GetRequestId()).Logger()
	// What is fetched and uploaded for the task says so to the servers.
	ids := trace.IDs{Request: lease.GetRequestId(), Task: t.GetId(), Attempt: t.GetAttempt()}
	ctx, lastCtx = trace.With(ctx, ids), trace.With(lastCtx, ids)
	workCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	h := &hold{lease: lease, log: log, cancel: cancel, halted: make(chan struct{})}
	w.leases.add(h)
	defer w.leases.remove(h)

	log.Info().Msg("task begun")
	outcome, err := w.run(workCtx, lease, h)
	if outcome != nil {
		defer outcome.Release()
		h.Progress(&espalierv1.Progress{Stage: "upload", Fraction: 1})
		if err == nil {
			err = w.upload(workCtx, outcome.Files)
		}
	}
	req := &espalierv1.ReportRequest{
		Worker: w.info.GetName(), Session: w.info.GetSession(), Task: t.GetId(), Attempt: t.GetAttempt(),
	}
	switch cause := context.Cause(workCtx); {
	case errors.Is(cause, errLost):
		log.Warn().Msg("lease lost; work dropped")
		return
	case err == nil:
		w.health.well()
		setOutcome(req, outcome)
	case cause != nil:
		log.Info().Msg("handing the task back")
		req.Outcome = &espalierv1.ReportRequest_HandBack{HandBack: &espalierv1.HandBack{Reason: cause.Error()}}
	case errors.Is(err, task.ErrPermanent):
		log.Warn().Err(err).Msg("task failed for good")
		setFailure(req, err)
	default:
		log.Warn().Err(err).Dur("pause", w.health.failed(w.cfg.waits.sick)).Msg("task failed")
		setFailure(req, err)
	}
	h.report()
	w.conclude(lastCtx, h, req, outcome)
}

// run calls the runner and turns a panic into an error.
func (w *Worker) run(ctx context.Context, lease *espalierv1.Lease, h *hold) (outcome *task.Outcome, err error) {
	defer func() {
		if p := recover(); p != nil {
			h.log.Error().Bytes("stack", debug.Stack()).Msgf("task panicked: %v", p)
			outcome, err = nil, fmt.Errorf("task panicked: %v", p)
		}
	}()
	return w.runner.Run(ctx, lease, h)
}

// conclude reports, and when the leader will not have the report, reports that as
// a failure.
func (w *Worker) conclude(ctx context.Context, h *hold, req *espalierv1.ReportRequest, outcome *task.Outcome) {
	o := &task.Outcome{}
	if outcome != nil {
		o = outcome
	}
	status, err := w.report(ctx, req, o.Files)
	if err != nil && ctx.Err() == nil && req.GetFailure() == nil {
		h.log.Error().Err(err).Msg("result refused")
		setFailure(req, err)
		status, err = w.report(ctx, req, nil)
	}
	log := h.log.With().Str("outcome", outcomeName(req)).Logger()
	switch {
	case err != nil:
		log.Error().Err(err).Msg("report given up")
	case status == espalierv1.ReportReply_STATUS_STALE:
		log.Warn().Msg("report came too late: the lease was another's")
	default:
		log.Info().Msg("task reported")
	}
}

// outcomeName names what a report reports, for logs.
func outcomeName(req *espalierv1.ReportRequest) string {
	switch req.GetOutcome().(type) {
	case *espalierv1.ReportRequest_Baseline:
		return "baseline"
	case *espalierv1.ReportRequest_Trial:
		return "trial"
	case *espalierv1.ReportRequest_Measurement:
		return "measurement"
	case *espalierv1.ReportRequest_HandBack:
		return "hand-back"
	default:
		return "failure"
	}
}

func setOutcome(req *espalierv1.ReportRequest, o *task.Outcome) {
	switch {
	case o.Baseline != nil:
		req.Outcome = &espalierv1.ReportRequest_Baseline{Baseline: o.Baseline}
	case o.Trial != nil:
		req.Outcome = &espalierv1.ReportRequest_Trial{Trial: o.Trial}
	case o.Measurement != nil:
		o.Measurement.Worker = req.GetWorker()
		req.Outcome = &espalierv1.ReportRequest_Measurement{Measurement: o.Measurement}
	default:
		setFailure(req, errors.New("task made no result"))
	}
}

func setFailure(req *espalierv1.ReportRequest, err error) {
	reason := err.Error()
	if len(reason) > maxReason {
		reason = reason[:maxReason]
	}
	req.Outcome = &espalierv1.ReportRequest_Failure{Failure: &espalierv1.Failure{
		Reason: reason, Permanent: errors.Is(err, task.ErrPermanent),
	}}
}
