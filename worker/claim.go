package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/espalier-ml/espalier/client"
	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/proto/subject"
	"github.com/espalier-ml/espalier/worker/link"
)

// settleTimeout bounds asking, while draining, what became of a claim.
const settleTimeout = time.Second

// claim asks for a task until there is one. It repeats an unanswered request with
// the same id, so that a lease whose reply was lost is not lost too. When ctx ends
// it returns nil, and hands back what the open claim may have got. Its error wraps
// ErrRefused.
func (w *Worker) claim(ctx, lastCtx context.Context) (*espalierv1.Lease, error) {
	wait := link.NewBackoff(w.cfg.waits.retry)
	id, open := client.NewRequestID(), false
	for ctx.Err() == nil {
		turn := w.link.Turn()
		reply, err := w.claimOnce(ctx, id, w.cfg.waits.claim, nil)
		if err != nil {
			// The request may have arrived: only ErrNoLeader says that it did not.
			open = open || !errors.Is(err, link.ErrNoLeader)
			w.log.Debug().Err(err).Msg("claim not answered")
			w.link.Pause(ctx, wait, turn)
			continue
		}
		switch e := reply.GetError(); {
		case e == nil && reply.GetLease() != nil:
			return reply.GetLease(), nil
		case e == nil:
			id, open = client.NewRequestID(), false
			wait.Reset()
		case e.GetCode() == espalierv1.DispatchError_CODE_DEVICE_MISMATCH, e.GetCode() == espalierv1.DispatchError_CODE_INVALID:
			return nil, fmt.Errorf("%w: %s", ErrRefused, e.GetMessage())
		default:
			w.log.Debug().Str("reason", e.GetMessage()).Msg("claim refused for now")
			w.link.Pause(ctx, wait, turn)
		}
	}
	if open {
		w.settle(lastCtx, id)
	}
	return nil, nil
}

// claimOnce sends one claim. kinds narrows what is wanted; nil is all that this
// worker does.
func (w *Worker) claimOnce(ctx context.Context, id string, wait time.Duration, kinds []espalierv1.TaskKind) (*espalierv1.ClaimReply, error) {
	if kinds == nil {
		kinds = w.info.GetKinds()
	}
	req := &espalierv1.ClaimRequest{RequestId: id, Worker: w.info, WaitMs: wait.Milliseconds(), Kinds: kinds}
	var reply espalierv1.ClaimReply
	if err := w.link.Request(ctx, subject.Claim, req, &reply, wait+w.cfg.waits.reply); err != nil {
		return nil, err
	}
	w.link.Heard(reply.GetError().GetCode() == espalierv1.DispatchError_CODE_NOT_LEADER)
	return &reply, nil
}

// settle asks what became of a claim that was given up unanswered, wanting nothing
// new, and hands back the lease that it got.
func (w *Worker) settle(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	none := []espalierv1.TaskKind{espalierv1.TaskKind_TASK_KIND_UNSPECIFIED}
	reply, err := w.claimOnce(ctx, id, 0, none)
	if err != nil || reply.GetLease() == nil {
		return
	}
	t := reply.GetLease().GetTask()
	req := &espalierv1.ReportRequest{
		Worker: w.info.GetName(), Session: w.info.GetSession(), Task: t.GetId(), Attempt: t.GetAttempt(),
		Outcome: &espalierv1.ReportRequest_HandBack{HandBack: &espalierv1.HandBack{Reason: errDrain.Error()}},
	}
	_, _ = w.report(ctx, req, nil) // a lease that could not be handed back runs out
}
