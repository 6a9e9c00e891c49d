package dispatch

import (
	"context"
	"sync"
	"time"

	"github.com/espalier-ml/espalier/coordinator/clock"
	"github.com/espalier-ml/espalier/coordinator/store"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// Dispatcher hands out tasks and takes reports while it is enabled. It is safe for concurrent use.
type Dispatcher struct {
	cfg    Config
	counts counters

	// assigning serialises what leases tasks: proposals are numbered, so only one may be on its way to the store. It is
	// taken before mu.
	assigning sync.Mutex

	mu    sync.Mutex
	on    bool
	term  uint64
	cache cache
	// waiting holds the claims to answer, by request id.
	waiting  map[string]*waiter
	arrivals uint64
	// wake tells the loop that waiting claims should be looked at again. One token.
	wake chan struct{}
}

// New returns a Dispatcher that is not enabled.
func New(cfg Config) (*Dispatcher, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Dispatcher{cfg: cfg.withDefaults(), waiting: map[string]*waiter{}, wake: make(chan struct{}, 1)}, nil
}

// Enable builds the cache from the store, gives each lease found there one full term, and starts answering. The caller
// has made sure that the store has applied everything committed before term began.
func (d *Dispatcher) Enable(term uint64) error {
	d.assigning.Lock()
	defer d.assigning.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cache = newCache()
	d.cache.stale = true
	if err := d.refresh(); err != nil {
		return err
	}
	d.on, d.term = true, term
	d.cfg.Log.Info().Uint64("term", term).Int("leases", len(d.cache.leases)).Msg("dispatch enabled")
	return nil
}

// Disable stops answering, refuses the claims that wait, and drops the cache.
func (d *Dispatcher) Disable() {
	d.mu.Lock()
	d.on = false
	d.cache = newCache()
	waiting := d.waiting
	d.waiting = map[string]*waiter{}
	term := d.term
	d.mu.Unlock()
	for _, w := range waiting {
		w.reply(&v1.ClaimReply{Term: term, Error: errNotLeader})
	}
}

// errNotLeader answers what only the leader may answer.
var errNotLeader = &v1.DispatchError{
	Code:    v1.DispatchError_CODE_NOT_LEADER,
	Message: "this replica does not lead: ask again, elsewhere if it lasts",
}

// Changed tells that somebody else's command changed a job: submitted, paused, cancelled it. The cache is brought up to
// date before the next claim is answered.
func (d *Dispatcher) Changed(job string) {
	d.mu.Lock()
	if d.on {
		d.cache.staleTasks[job] = true
	}
	d.mu.Unlock()
	d.nudge()
}

// Late tells that a command was applied whose caller, in whatever part of the replica, no longer waited for its result: so
// what it changed is not known here. Everything is read again before the next claim is answered.
func (d *Dispatcher) Late() {
	d.reread()
	d.nudge()
}

// reread has everything read again before the next claim is answered.
func (d *Dispatcher) reread() {
	d.mu.Lock()
	d.cache.stale = true
	d.mu.Unlock()
}

// nudge wakes the loop.
func (d *Dispatcher) nudge() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// fresh brings the cache up to date. It reports false while dispatch is not enabled.
func (d *Dispatcher) fresh() (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.on {
		return false, nil
	}
	return true, d.refresh()
}

// refresh reads what is stale from the store. The caller holds mu.
func (d *Dispatcher) refresh() error {
	return d.cfg.Store.View(func(v *store.View) error {
		d.cache.refresh(v, d.cfg.Clock.Now().Add(d.cfg.Lease))
		return nil
	})
}

// apply commits commands and brings the cache up to date with their results. After an error whose outcome is unknown
// the cache is read again.
func (d *Dispatcher) apply(ctx context.Context, cmds ...*v1.Command) ([]store.Result, error) {
	now := d.cfg.Clock.Now()
	for _, c := range cmds {
		c.TimeMs = clock.Milli(now)
	}
	results, err := d.cfg.Store.Apply(ctx, cmds...)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		d.cache.stale = true
		return nil, err
	}
	if d.on {
		deadline := d.cfg.Clock.Now().Add(d.cfg.Lease)
		for i := range results {
			d.cache.note(&results[i], deadline)
			if t := results[i].Trial; results[i].Err == nil && len(t.GetMeasurements()) > 0 {
				d.cfg.Proposer.Measured(t)
			}
		}
	}
	return results, nil
}

// Running returns what the job's leases are doing, or those of all jobs for "".
func (d *Dispatcher) Running(job string) []*v1.RunningTask {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []*v1.RunningTask
	for _, l := range d.cache.leases {
		if job == "" || l.task.GetJob() == job {
			out = append(out, &v1.RunningTask{Task: l.task, Progress: l.progress})
		}
	}
	sortRunning(out)
	return out
}

// Seen returns when each worker last claimed or sent a heartbeat to this leader.
func (d *Dispatcher) Seen() map[string]time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make(map[string]time.Time, len(d.cache.seen))
	for name, at := range d.cache.seen {
		out[name] = at
	}
	return out
}
