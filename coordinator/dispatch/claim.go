package dispatch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/espalier-ml/espalier/coordinator/store"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// waiter is a claim that has no answer yet.
type waiter struct {
	req      *v1.ClaimRequest
	deadline time.Time
	order    uint64
	reply    func(*v1.ClaimReply)
}

const (
	// maxName bounds the names and ids in a claim.
	maxName = 200
	// maxWorkerBytes bounds what a worker says of itself: it is recorded.
	maxWorkerBytes = 16 << 10
)

// checkClaim reports what is wrong with a claim, or "".
func checkClaim(r *v1.ClaimRequest) string {
	w := r.GetWorker()
	for field, value := range map[string]string{"request_id": r.GetRequestId(), "worker.name": w.GetName(), "worker.session": w.GetSession()} {
		if value == "" || len(value) > maxName {
			return fmt.Sprintf("%s has %d bytes, it must have 1 to %d", field, len(value), maxName)
		}
	}
	if n := proto.Size(w); n > maxWorkerBytes {
		return fmt.Sprintf("worker has %d bytes, at most %d are allowed: give fewer labels", n, maxWorkerBytes)
	}
	if len(w.GetDevice()) > maxName || strings.Contains(w.GetDevice(), "/") {
		return fmt.Sprintf("worker.device %.40q must have no slash and at most %d bytes", w.GetDevice(), maxName)
	}
	return ""
}

// ClaimNow answers a claim at once: with a lease, an error, or nothing to do.
func (d *Dispatcher) ClaimNow(ctx context.Context, req *v1.ClaimRequest) *v1.ClaimReply {
	var out *v1.ClaimReply
	w := &waiter{req: req, reply: func(r *v1.ClaimReply) { out = r }}
	if !d.early(w) {
		d.assign(ctx, []*waiter{w})
	}
	if out == nil {
		out = &v1.ClaimReply{Term: d.currentTerm()}
	}
	return out
}

// Claim queues a claim: reply is called once, from any goroutine, with a lease or an error, or with nothing when the wait
// is over. The loop of Run answers it.
func (d *Dispatcher) Claim(req *v1.ClaimRequest, reply func(*v1.ClaimReply)) {
	wait := min(max(time.Duration(req.GetWaitMs())*time.Millisecond, 0), d.cfg.MaxWait)
	w := &waiter{req: req, deadline: d.cfg.Clock.Now().Add(wait), reply: reply}
	if d.early(w) {
		return
	}
	d.mu.Lock()
	if !d.on {
		d.mu.Unlock()
		w.reply(&v1.ClaimReply{Error: errNotLeader})
		return
	}
	older := d.waiting[req.GetRequestId()]
	d.arrivals++
	w.order = d.arrivals
	d.waiting[req.GetRequestId()] = w
	d.mu.Unlock()
	if older != nil {
		older.reply(&v1.ClaimReply{}) // nobody listens to it any more: the same claim was sent again
	}
	d.nudge()
}

func (d *Dispatcher) currentTerm() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.term
}

// early answers a claim that needs no look at the tasks: malformed, not for this replica.
func (d *Dispatcher) early(w *waiter) bool {
	if problem := checkClaim(w.req); problem != "" {
		w.reply(&v1.ClaimReply{Error: &v1.DispatchError{Code: v1.DispatchError_CODE_INVALID, Message: problem}})
		return true
	}
	return false
}

// answer looks at all waiting claims, and lets go of those whose wait is over.
func (d *Dispatcher) answer(ctx context.Context) {
	d.mu.Lock()
	waiting := make([]*waiter, 0, len(d.waiting))
	for _, w := range d.waiting {
		waiting = append(waiting, w)
	}
	d.mu.Unlock()
	if len(waiting) == 0 {
		return
	}
	slices.SortFunc(waiting, func(a, b *waiter) int { return cmp.Compare(a.order, b.order) })
	left := d.assign(ctx, waiting)

	now := d.cfg.Clock.Now()
	kept := make(map[*waiter]bool, len(left))
	for _, w := range left {
		if now.Before(w.deadline) {
			kept[w] = true
		}
	}
	var over []*waiter
	d.mu.Lock()
	term := d.term
	for _, w := range waiting {
		if d.waiting[w.req.GetRequestId()] == w && !kept[w] {
			delete(d.waiting, w.req.GetRequestId())
		}
	}
	for _, w := range left {
		if !kept[w] {
			over = append(over, w)
		}
	}
	d.mu.Unlock()
	for _, w := range over {
		w.reply(&v1.ClaimReply{Term: term})
	}
}

// assign gives the claims what there is to do, in their order, with one commit, and returns those that found nothing.
func (d *Dispatcher) assign(ctx context.Context, claims []*waiter) (left []*waiter) {
	d.assigning.Lock()
	defer d.assigning.Unlock()
	on, err := d.fresh()
	if !on {
		refuse(claims, errNotLeader)
		return nil
	}
	if err != nil {
		refuse(claims, unavailable(err))
		return nil
	}
	claims, err = d.admit(ctx, claims)
	if err == nil {
		claims = d.repeated(claims)
		var cmds []*v1.Command
		var takers []*waiter
		cmds, takers, left = d.pick(claims)
		if len(cmds) == 0 {
			return left
		}
		if err = d.commitLeases(ctx, cmds, takers); err == nil {
			return left
		}
		claims = takers
	}
	refuse(claims, storeError(err))
	return left
}

// commitLeases commits and replies.
func (d *Dispatcher) commitLeases(ctx context.Context, cmds []*v1.Command, takers []*waiter) error {
	results, err := d.apply(ctx, cmds...)
	if err != nil {
		return err
	}
	replies := make([]*v1.ClaimReply, len(takers))
	term := d.currentTerm()
	err = d.cfg.Store.View(func(v *store.View) error {
		for i, r := range results {
			replies[i] = &v1.ClaimReply{Term: term}
			if r.Err != nil {
				d.cfg.Log.Warn().Err(r.Err).Str("worker", takers[i].req.GetWorker().GetName()).Msg("lease refused by the store")
				d.reread() // what is cached differs from the store
				replies[i].Error = unavailable(r.Err)
				continue
			}
			job := r.Job
			if job == nil {
				job = v.Job(r.Task.GetJob()) // the store had given this request its lease before
			}
			lease, err := d.lease(v, r.Task, job, r.Trial)
			if err != nil {
				replies[i].Error = unavailable(err)
				continue
			}
			replies[i].Lease = lease
		}
		return nil
	})
	if err != nil {
		return err
	}
	d.mu.Lock()
	for i, r := range replies {
		if r.GetLease() != nil {
			d.cache.recent.add(takers[i].req.GetRequestId())
		}
	}
	d.mu.Unlock()
	for i, w := range takers {
		w.reply(replies[i])
	}
	d.leased(replies)
	return nil
}

// repeated answers claims that took a lease before, and returns the others.
func (d *Dispatcher) repeated(claims []*waiter) []*waiter {
	type again struct {
		w    *waiter
		task *v1.Task
	}
	var found []again
	var rest []*waiter
	d.mu.Lock()
	term := d.term
	for _, w := range claims {
		id := w.req.GetRequestId()
		switch l := d.cache.leases[d.cache.requests[id]]; {
		case l != nil && l.task.GetWorker() == w.req.GetWorker().GetName() && l.task.GetSession() == w.req.GetWorker().GetSession():
			found = append(found, again{w, l.task})
		case d.cache.recent.has(id):
			found = append(found, again{w, nil})
		default:
			rest = append(rest, w)
		}
	}
	d.mu.Unlock()
	for _, a := range found {
		reply := &v1.ClaimReply{Term: term}
		if a.task != nil {
			err := d.cfg.Store.View(func(v *store.View) (err error) {
				reply.Lease, err = d.lease(v, a.task, v.Job(a.task.GetJob()), v.Trial(a.task.GetJob(), a.task.GetTrial()))
				return err
			})
			if err != nil {
				reply.Error = unavailable(err)
			}
		}
		a.w.reply(reply)
	}
	return rest
}

// admit records new sessions and devices, refuses claims that may not have a task, and returns the others.
func (d *Dispatcher) admit(ctx context.Context, claims []*waiter) ([]*waiter, error) {
	var cmds []*v1.Command
	var admitted []*waiter
	sessions, devices := map[string]string{}, map[string]*v1.Device{}
	d.mu.Lock()
	now := d.cfg.Clock.Now()
	for _, w := range claims {
		info := w.req.GetWorker()
		if d.cache.replaced[info.GetSession()] {
			w.reply(refusal(v1.DispatchError_CODE_INVALID, fmt.Sprintf(
				"session %s of worker %s was replaced by a newer one: two processes use this name; give one another with --name", info.GetSession(), info.GetName())))
			continue
		}
		known := d.cache.sessions[info.GetName()]
		if s, ok := sessions[info.GetName()]; ok {
			known = s
		}
		if known != info.GetSession() {
			if known != "" {
				d.cache.replaced[known] = true
			}
			sessions[info.GetName()] = info.GetSession()
			cmds = append(cmds, &v1.Command{Op: &v1.Command_PutWorker{PutWorker: &v1.PutWorker{Worker: info}}})
		}
		if name := info.GetDevice(); name != "" {
			dev := cmp.Or(d.cache.devices[name], devices[name])
			if dev == nil {
				dev = newDevice(info)
				devices[name] = dev
				cmds = append(cmds, &v1.Command{Op: &v1.Command_PutDevice{PutDevice: &v1.PutDevice{Device: dev}}})
			}
			if !proto.Equal(dev.GetFingerprint(), info.GetFingerprint()) {
				w.reply(refusal(v1.DispatchError_CODE_DEVICE_MISMATCH, mismatch(dev, info)))
				continue
			}
		}
		d.cache.seen[info.GetName()] = now
		admitted = append(admitted, w)
	}
	d.mu.Unlock()
	if len(cmds) == 0 {
		return admitted, nil
	}
	results, err := d.apply(ctx, cmds...)
	if err != nil {
		return admitted, err
	}
	for _, r := range results {
		if r.Err != nil {
			return admitted, r.Err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, session := range sessions {
		d.cache.sessions[name] = session
	}
	for name, dev := range devices {
		d.cache.devices[name] = dev
	}
	return admitted, nil
}

// newDevice is the record that the first worker of a device makes.
func newDevice(w *v1.WorkerInfo) *v1.Device {
	return &v1.Device{Name: w.GetDevice(), Fingerprint: w.GetFingerprint(), Runtime: "native", Format: "esp"}
}

func mismatch(dev *v1.Device, w *v1.WorkerInfo) string {
	return fmt.Sprintf("device %s is recorded as %s, this worker is %s: start the worker with another --device name, or with --no-measure",
		dev.GetName(), fingerprint(dev.GetFingerprint()), fingerprint(w.GetFingerprint()))
}

func fingerprint(f *v1.Fingerprint) string {
	return fmt.Sprintf("[%s, %s, %s, runtime %s]", f.GetCpu(), f.GetVariant(), f.GetOs(), f.GetRuntimeVersion())
}

func refusal(code v1.DispatchError_Code, message string) *v1.ClaimReply {
	return &v1.ClaimReply{Error: &v1.DispatchError{Code: code, Message: message}}
}

func refuse(claims []*waiter, e *v1.DispatchError) {
	for _, w := range claims {
		w.reply(&v1.ClaimReply{Error: e})
	}
}

func unavailable(err error) *v1.DispatchError {
	return &v1.DispatchError{Code: v1.DispatchError_CODE_UNAVAILABLE, Message: err.Error()}
}

// storeError tells a worker what an error of Apply means for it.
func storeError(err error) *v1.DispatchError {
	if errors.Is(err, store.ErrNotLeader) {
		return errNotLeader
	}
	return unavailable(err)
}
