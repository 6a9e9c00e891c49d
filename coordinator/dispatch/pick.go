package dispatch

import (
	"cmp"
	"slices"

	"github.com/rs/zerolog"

	"github.com/espalier-ml/espalier/coordinator/clock"
	"github.com/espalier-ml/espalier/coordinator/store"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// order is the order in which kinds of task are handed out.
var order = []v1.TaskKind{
	v1.TaskKind_TASK_KIND_MEASURE,
	v1.TaskKind_TASK_KIND_BASELINE,
	v1.TaskKind_TASK_KIND_PROFILE,
	v1.TaskKind_TASK_KIND_TRIAL,
}

// candidate is a job as a round of handing out sees it: leased counts those given in the round.
type candidate struct {
	job    *v1.Job
	entry  *jobEntry
	leased int
	// ready holds proposals that nobody took yet, once the sampler was asked.
	ready []*v1.NewTrial
	asked bool
}

// place is where a pending task waits.
type place struct {
	job string
	queueKey
	trial int32
}

// picking is one round of handing out.
type picking struct {
	proposer Proposer
	log      zerolog.Logger
	jobs     []*candidate
	taken    map[place]bool
	nowMs    int64
	// wanted is how many proposals may be needed, so that a batch of claims asks a sampler once.
	wanted int
}

// pick chooses a task for each claim: measure before baseline before profile before trial, then the job with the fewest
// leases, then the older job. Pending tasks come before new trials. Nothing is committed.
func (d *Dispatcher) pick(claims []*waiter) (cmds []*v1.Command, takers, left []*waiter) {
	p := &picking{proposer: d.cfg.Proposer, log: d.cfg.Log, taken: map[place]bool{}, nowMs: clock.Milli(d.cfg.Clock.Now())}
	take := func(w *waiter, c *candidate, cmd *v1.Command) {
		c.leased++
		cmds, takers = append(cmds, cmd), append(takers, w)
	}
	var later []*waiter
	d.mu.Lock()
	for _, e := range d.cache.jobs {
		if e.job.GetState() != v1.JobState_JOB_STATE_PAUSED && e.job.GetState() != v1.JobState_JOB_STATE_UNSPECIFIED {
			p.jobs = append(p.jobs, &candidate{job: e.job, entry: e, leased: e.leased})
		}
	}
	for _, w := range claims {
		p.sort()
		if c, t, ok := p.pending(w.req); ok {
			p.taken[t] = true
			take(w, c, leaseOf(w.req, store.TaskID(t.job, t.kind, t.trial, t.device), nil))
			continue
		}
		later = append(later, w)
	}
	d.mu.Unlock()
	for i, w := range later {
		p.wanted = len(later) - i
		p.sort()
		if c, t := p.propose(w.req); t != nil {
			take(w, c, leaseOf(w.req, "", t))
			continue
		}
		left = append(left, w)
	}
	return cmds, takers, left
}

func leaseOf(r *v1.ClaimRequest, task string, trial *v1.NewTrial) *v1.Command {
	return &v1.Command{Op: &v1.Command_LeaseTask{LeaseTask: &v1.LeaseTask{
		Task: task, RequestId: r.GetRequestId(), Worker: r.GetWorker().GetName(), Session: r.GetWorker().GetSession(), Trial: trial,
	}}}
}

// sort puts the job with the fewest leases first, then the older one.
func (p *picking) sort() {
	slices.SortFunc(p.jobs, func(a, b *candidate) int {
		return cmp.Or(
			cmp.Compare(a.leased, b.leased),
			cmp.Compare(a.job.GetCreatedMs(), b.job.GetCreatedMs()),
			cmp.Compare(a.job.GetId(), b.job.GetId()),
		)
	})
}

// pending returns the first pending task that the claiming worker can do. The caller holds the dispatcher's mu.
func (p *picking) pending(r *v1.ClaimRequest) (*candidate, place, bool) {
	for _, kind := range order {
		if !wants(r, kind) {
			continue
		}
		key := queueKey{kind: kind}
		if kind == v1.TaskKind_TASK_KIND_MEASURE {
			key.device = r.GetWorker().GetDevice()
		}
		again := queueKey{kind: kind, variant: r.GetWorker().GetFingerprint().GetVariant()}
		for _, c := range p.jobs {
			if kind == v1.TaskKind_TASK_KIND_TRIAL && (c.job.GetBaselineLost() || !canTrain(c.job, r.GetWorker())) {
				continue
			}
			if at, found := p.first(c, key); found {
				return c, at, true
			}
			if at, found := p.first(c, again); found && again != key {
				return c, at, true
			}
		}
	}
	return nil, place{}, false
}

// first returns the first task of a queue that may be done now.
func (p *picking) first(c *candidate, key queueKey) (place, bool) {
	for _, w := range c.entry.pending[key] {
		at := place{c.job.GetId(), key, w.trial}
		if !p.taken[at] && p.due(w) && hasFile(c.job, key.kind, w.trial) {
			return at, true
		}
	}
	return place{}, false
}

// due reports whether a task's delay is over. One that lies further ahead than any delay was written by a leader whose clock
// was ahead of this one's: nobody waits for that.
func (p *picking) due(w waiting) bool {
	left := w.notBeforeMs - p.nowMs
	return left <= 0 || left > store.DelayMS(w.failures)
}

// propose returns a new trial of the first job that has one for the claiming worker.
func (p *picking) propose(r *v1.ClaimRequest) (*candidate, *v1.NewTrial) {
	if !wants(r, v1.TaskKind_TASK_KIND_TRIAL) {
		return nil, nil
	}
	for _, c := range p.jobs {
		if c.job.GetState() != v1.JobState_JOB_STATE_SEARCHING || c.job.GetStopping() || c.job.GetBaselineLost() || !canTrain(c.job, r.GetWorker()) {
			continue
		}
		if !c.asked {
			trials, err := p.proposer.Propose(c.job.GetId(), p.wanted)
			if err != nil {
				p.log.Error().Err(err).Str("job", c.job.GetId()).Msg("no trial proposed")
			}
			c.ready, c.asked = trials, true
		}
		if len(c.ready) > 0 {
			t := c.ready[0]
			c.ready = c.ready[1:]
			return c, t
		}
	}
	return nil, nil
}

// wants reports whether the worker takes tasks of a kind now. Without a list it takes all that it can do; a measure needs
// a device.
func wants(r *v1.ClaimRequest, kind v1.TaskKind) bool {
	if kind == v1.TaskKind_TASK_KIND_MEASURE && r.GetWorker().GetDevice() == "" {
		return false
	}
	for _, kinds := range [][]v1.TaskKind{r.GetKinds(), r.GetWorker().GetKinds()} {
		if len(kinds) > 0 && !slices.Contains(kinds, kind) {
			return false
		}
	}
	return true
}

// canTrain reports whether the worker may run the job's trials: for a deterministic job only with the kernel variant that
// trained the baseline.
func canTrain(j *v1.Job, w *v1.WorkerInfo) bool {
	return !j.GetSpec().GetSearch().GetDeterministic() || w.GetFingerprint().GetVariant() == j.GetBaseline().GetVariant()
}

// hasFile reports whether the file that a task measures is there, as far as is known: one that is made again is waited for.
func hasFile(j *v1.Job, kind v1.TaskKind, trial int32) bool {
	return kind != v1.TaskKind_TASK_KIND_MEASURE || j.GetRemaking() == 0 || !slices.Contains(j.GetRemakes(), trial)
}
