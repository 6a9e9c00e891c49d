package worker

import (
	"context"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"google.golang.org/protobuf/proto"

	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/proto/subject"
)

// hold is one lease that this worker has, with the work on it. It is what a task
// sees of the worker: it implements task.Control.
type hold struct {
	lease  *espalierv1.Lease
	log    zerolog.Logger
	cancel context.CancelCauseFunc
	halted chan struct{}

	mu        sync.Mutex
	progress  *espalierv1.Progress
	haltOnce  sync.Once
	reporting bool // the work is done: a lost lease is the report's to find out
}

// Progress says where the work stands; the next heartbeat carries it.
func (h *hold) Progress(p *espalierv1.Progress) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.progress = p
}

// Halted is closed when the work shall end early and report what there is.
func (h *hold) Halted() <-chan struct{} { return h.halted }

func (h *hold) beat() *espalierv1.Beat {
	h.mu.Lock()
	defer h.mu.Unlock()
	b := &espalierv1.Beat{Task: h.lease.GetTask().GetId(), Attempt: h.lease.GetTask().GetAttempt()}
	if h.progress != nil {
		b.Progress = proto.CloneOf(h.progress)
	}
	return b
}

// verdict acts on the leader's answer to a heartbeat.
func (h *hold) verdict(v espalierv1.BeatReply_Verdict) {
	switch v {
	case espalierv1.BeatReply_VERDICT_HALT:
		h.haltOnce.Do(func() {
			h.log.Info().Msg("halting the task")
			close(h.halted)
		})
	case espalierv1.BeatReply_VERDICT_LOST:
		h.mu.Lock()
		defer h.mu.Unlock()
		if !h.reporting {
			h.cancel(errLost)
		}
	}
}

// report marks the work as done; from now on only the report's answer counts.
func (h *hold) report() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reporting = true
}

// leaseKey names one attempt.
type leaseKey struct {
	task    string
	attempt int32
}

func keyOf(l *espalierv1.Lease) leaseKey {
	return leaseKey{l.GetTask().GetId(), l.GetTask().GetAttempt()}
}

// leases are all that this worker holds.
type leases struct {
	mu   sync.Mutex
	held map[leaseKey]*hold
	// added has room for one: a new lease may want quicker heartbeats.
	added chan struct{}
}

func newLeases() *leases {
	return &leases{held: map[leaseKey]*hold{}, added: make(chan struct{}, 1)}
}

func (l *leases) add(h *hold) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held[keyOf(h.lease)] = h
	select {
	case l.added <- struct{}{}:
	default:
	}
}

func (l *leases) remove(h *hold) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.held, keyOf(h.lease))
}

func (l *leases) get(task string, attempt int32) *hold {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held[leaseKey{task, attempt}]
}

func (l *leases) beats() []*espalierv1.Beat {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []*espalierv1.Beat
	for _, h := range l.held {
		out = append(out, h.beat())
	}
	return out
}

// interval is the time between heartbeats that the leases ask for, no longer than
// most if that is set.
func (l *leases) interval(most time.Duration) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := defaultHeartbeat
	for _, h := range l.held {
		if ms := h.lease.GetHeartbeatMs(); ms > 0 {
			d = min(d, time.Duration(ms)*time.Millisecond)
		}
	}
	if most > 0 {
		d = min(d, most)
	}
	return d
}

const defaultHeartbeat = 5 * time.Second

// beat sends heartbeats for all leases until ctx ends. One that finds no leader
// is sent again soon; the work goes on meanwhile.
func (w *Worker) beat(ctx context.Context) {
	next := time.Now().Add(w.leases.interval(w.cfg.Heartbeat))
	timer := time.NewTimer(time.Until(next))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.leases.added:
			if sooner := time.Now().Add(w.leases.interval(w.cfg.Heartbeat)); sooner.Before(next) {
				next = sooner
			}
		case <-timer.C:
			every := w.leases.interval(w.cfg.Heartbeat)
			if !w.beatOnce(ctx, every) {
				every /= 5
			}
			next = time.Now().Add(every)
		}
		timer.Reset(time.Until(next))
	}
}

// beatOnce sends one heartbeat and acts on the reply; false if there was none.
func (w *Worker) beatOnce(ctx context.Context, timeout time.Duration) bool {
	beats := w.leases.beats()
	if len(beats) == 0 {
		return true
	}
	req := &espalierv1.HeartbeatRequest{Worker: w.info.GetName(), Session: w.info.GetSession(), Beats: beats}
	var reply espalierv1.HeartbeatReply
	if err := w.link.Request(ctx, subject.Heartbeat, req, &reply, timeout); err != nil {
		w.log.Debug().Err(err).Msg("heartbeat not answered")
		return false
	}
	notLeader := reply.GetError().GetCode() == espalierv1.DispatchError_CODE_NOT_LEADER
	w.link.Heard(notLeader)
	if reply.GetError() != nil {
		w.log.Debug().Str("reason", reply.GetError().GetMessage()).Msg("heartbeat refused")
		return false
	}
	for _, b := range reply.GetBeats() {
		if h := w.leases.get(b.GetTask(), b.GetAttempt()); h != nil {
			h.verdict(b.GetVerdict())
		}
	}
	return true
}
