package dispatch

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"

	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/proto/subject"
)

const (
	// commitTimeout bounds one commit.
	commitTimeout = 10 * time.Second
	// drainTimeout bounds the wait for subscriptions to end.
	drainTimeout = 2 * time.Second
	// maxReports is how many reports are worked on at once; further ones wait in the connection.
	maxReports = 512
)

// Lead enables the dispatcher for a term, answers requests on nc until ctx ends, then stops listening, answers what has
// arrived with "not leader", and waits for all that it started. It returns nil after ctx ended.
func (d *Dispatcher) Lead(ctx context.Context, nc *nats.Conn, term uint64) error {
	if err := d.Enable(term); err != nil {
		return fmt.Errorf("enable dispatch: %w", err)
	}
	var work sync.WaitGroup
	defer work.Wait()
	defer d.Disable()
	slots := make(chan struct{}, maxReports)
	subs, err := subscribe(nc, map[string]nats.MsgHandler{
		subject.Claim:     d.onClaim,
		subject.Heartbeat: d.onHeartbeat,
		subject.Report: func(m *nats.Msg) {
			slots <- struct{}{}
			work.Go(func() {
				defer func() { <-slots }()
				d.onReport(ctx, m)
			})
		},
	})
	defer func() {
		d.Disable()
		drain(subs)
	}()
	if err != nil {
		return err
	}
	d.Loop(ctx)
	return nil
}

// Loop answers waiting claims and ends expired leases until ctx ends.
func (d *Dispatcher) Loop(ctx context.Context) {
	tick := time.NewTicker(min(time.Second, d.cfg.Lease/10))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			once(ctx, func(ctx context.Context) {
				if err := d.Expire(ctx); err != nil {
					d.cfg.Log.Warn().Err(err).Msg("expired leases not ended, trying again")
				}
			})
		case <-d.wake:
		}
		once(ctx, d.answer)
	}
}

// once runs f with a bound on its commit.
func once(ctx context.Context, f func(context.Context)) {
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	f(ctx)
}

func subscribe(nc *nats.Conn, handlers map[string]nats.MsgHandler) (subs []*nats.Subscription, err error) {
	for name, handle := range handlers {
		sub, err := nc.Subscribe(name, handle)
		if err != nil {
			return subs, fmt.Errorf("subscribe %s: %w", name, err)
		}
		subs = append(subs, sub)
	}
	// The server knows of the subscriptions before anybody is told that this replica leads.
	if err := nc.FlushTimeout(drainTimeout); err != nil {
		return subs, fmt.Errorf("subscribe: %w", err)
	}
	if err := nc.Publish(subject.Lead, nil); err != nil {
		return subs, fmt.Errorf("tell of the lead: %w", err)
	}
	return subs, nil
}

// drain ends subscriptions after their last messages were handled, without waiting for ever.
func drain(subs []*nats.Subscription) {
	timeout := time.After(drainTimeout)
	for _, s := range subs {
		closed := s.StatusChanged(nats.SubscriptionClosed)
		if err := s.Drain(); err != nil {
			continue // the connection is closed already
		}
		select {
		case <-closed:
		case <-timeout:
			return
		}
	}
}

func (d *Dispatcher) onClaim(m *nats.Msg) {
	req := new(v1.ClaimRequest)
	if err := proto.Unmarshal(m.Data, req); err != nil {
		d.respond(m, refusal(v1.DispatchError_CODE_INVALID, err.Error()))
		return
	}
	d.Claim(req, func(r *v1.ClaimReply) { d.respond(m, r) })
}

func (d *Dispatcher) onHeartbeat(m *nats.Msg) {
	req := new(v1.HeartbeatRequest)
	if err := proto.Unmarshal(m.Data, req); err != nil {
		d.respond(m, &v1.HeartbeatReply{Error: &v1.DispatchError{Code: v1.DispatchError_CODE_INVALID, Message: err.Error()}})
		return
	}
	d.respond(m, d.Heartbeat(req))
}

func (d *Dispatcher) onReport(ctx context.Context, m *nats.Msg) {
	req := new(v1.ReportRequest)
	if err := proto.Unmarshal(m.Data, req); err != nil {
		d.respond(m, &v1.ReportReply{Error: &v1.DispatchError{Code: v1.DispatchError_CODE_INVALID, Message: err.Error()}})
		return
	}
	once(ctx, func(ctx context.Context) { d.respond(m, d.Report(ctx, req)) })
}

// respond sends a reply. A reply that is lost is asked for again by the worker.
func (d *Dispatcher) respond(m *nats.Msg, reply proto.Message) {
	data, err := proto.Marshal(reply)
	if err == nil {
		err = m.Respond(data)
	}
	if err != nil {
		d.cfg.Log.Debug().Err(err).Str("subject", m.Subject).Msg("reply not sent")
	}
}
