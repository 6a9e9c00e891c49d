package leader

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/espalier-ml/espalier/coordinator/clock"
	"github.com/espalier-ml/espalier/coordinator/store"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/search"
	"github.com/espalier-ml/espalier/search/sampler"
)

// ErrConfig marks a configuration that cannot work.
var ErrConfig = errors.New("invalid leader configuration")

// Store is what the leader needs of the replicated store.
type Store interface {
	// Apply commits the commands as one entry and returns a result for each.
	Apply(ctx context.Context, cmds ...*v1.Command) ([]store.Result, error)
	// View runs f on one consistent local snapshot.
	View(f func(*store.View) error) error
}

// Clock tells the time.
type Clock interface{ Now() time.Time }

type systemClock struct{}

func (systemClock) Now() time.Time { return time.Now() }

// Config says how a Leader works.
type Config struct {
	Store Store
	// Sampler finds a search algorithm by name; nil means those of package sampler.
	Sampler func(name string) (search.Sampler, error)
	// Planner makes the plans of jobs; nil means Pruning.
	Planner Planner
	// Clock defaults to the machine's.
	Clock Clock
	Log   zerolog.Logger
}

// Leader proposes trials and stops jobs. It is safe for concurrent use.
type Leader struct {
	cfg  Config
	mu   sync.Mutex
	jobs map[string]*job
}

// New returns a Leader that knows no job yet. The error is an ErrConfig.
func New(cfg Config) (*Leader, error) {
	if cfg.Store == nil {
		return nil, fmt.Errorf("%w: store must be set", ErrConfig)
	}
	if cfg.Sampler == nil {
		cfg.Sampler = sampler.New
	}
	if cfg.Planner == nil {
		cfg.Planner = Pruning
	}
	if cfg.Clock == nil {
		cfg.Clock = systemClock{}
	}
	return &Leader{cfg: cfg, jobs: map[string]*job{}}, nil
}

// Reset drops everything that was read: for a new term, and after losing the lead.
func (l *Leader) Reset() {
	l.mu.Lock()
	l.jobs = map[string]*job{}
	l.mu.Unlock()
}

func (l *Leader) job(id string) *job {
	l.mu.Lock()
	defer l.mu.Unlock()
	j := l.jobs[id]
	if j == nil {
		j = &job{id: id}
		l.jobs[id] = j
	}
	return j
}

func (l *Leader) forget(id string) {
	l.mu.Lock()
	delete(l.jobs, id)
	l.mu.Unlock()
}

// Propose returns up to n new trials of the job, numbered from its last + 1, and none when it should have none now: it does
// not search, a stop rule holds, or in deterministic mode earlier results are missing. It changes nothing.
func (l *Leader) Propose(id string, n int) ([]*v1.NewTrial, error) {
	j := l.job(id)
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := l.read(j); err != nil {
		return nil, err
	}
	if j.problem != nil || j.record.GetState() != v1.JobState_JOB_STATE_SEARCHING || j.record.GetStopping() {
		return nil, nil
	}
	if j.reason(l.cfg.Clock.Now()) != "" {
		return nil, nil // Check stops it
	}
	return j.propose(n)
}

// Measured tells of a trial that was measured on a further device.
func (l *Leader) Measured(t *v1.Trial) {
	j := l.job(t.GetJob())
	j.mu.Lock()
	defer j.mu.Unlock()
	j.measured(t)
}

// Check stops the job if a stop rule holds, and fails it if it cannot be searched. It returns the first error of a commit.
func (l *Leader) Check(ctx context.Context, id string) error {
	cmd, err := l.verdict(id)
	if err != nil || cmd == nil {
		return err
	}
	cmd.TimeMs = clock.Milli(l.cfg.Clock.Now())
	results, err := l.cfg.Store.Apply(ctx, cmd)
	if err != nil {
		return err
	}
	if err := results[0].Err; err != nil && !errors.Is(err, store.ErrState) {
		return err
	}
	return nil
}

// verdict returns the command that ends the job, nil if it goes on.
func (l *Leader) verdict(id string) (*v1.Command, error) {
	j := l.job(id)
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := l.read(j); err != nil {
		return nil, err
	}
	log := l.cfg.Log.With().Str("job", id).Str("request", j.record.GetRequestId()).Logger()
	if !store.Live(j.record.GetState()) {
		if j.live {
			log.Info().Stringer("state", j.record.GetState()).Str("reason", j.record.GetReason()).
				Int32("completed", j.record.GetCompleted()).Int32("failed", j.record.GetFailed()).Msg("job ended")
		}
		l.forget(id)
		return nil, nil
	}
	j.live = true
	if j.record.GetStopping() || j.record.GetState() != v1.JobState_JOB_STATE_SEARCHING {
		return nil, nil
	}
	if j.problem != nil {
		log.Warn().Err(j.problem).Msg("job cannot be searched")
		return &v1.Command{Op: &v1.Command_SetJobState{SetJobState: &v1.SetJobState{
			Job: id, State: v1.JobState_JOB_STATE_FAILED, Reason: j.problem.Error(),
		}}}, nil
	}
	reason := j.reason(l.cfg.Clock.Now())
	if reason == "" {
		return nil, nil
	}
	log.Info().Str("reason", reason).Msg("stop rule holds")
	return &v1.Command{Op: &v1.Command_StopJob{StopJob: &v1.StopJob{Job: id, Reason: reason}}}, nil
}

// read brings the job up to date with the store.
func (l *Leader) read(j *job) error {
	return l.cfg.Store.View(func(v *store.View) error { return j.read(v, &l.cfg) })
}

// CheckAll checks every live job.
func (l *Leader) CheckAll(ctx context.Context) error {
	var ids []string
	err := l.cfg.Store.View(func(v *store.View) error {
		for _, j := range v.Jobs() {
			if store.Live(j.GetState()) {
				ids = append(ids, j.GetId())
			}
		}
		return nil
	})
	for _, id := range ids {
		err = errors.Join(err, l.Check(ctx, id))
	}
	return err
}

// Times of Run's work.
const (
	// checkInterval is the least time between two checks, so that a busy job is not checked for each of its results.
	checkInterval = 50 * time.Millisecond
	// collectInterval is the time between two rounds of garbage collection.
	collectInterval = 10 * time.Second
)

// Run checks jobs when they change, and all once a second for the rules of time, and drops checkpoints of those that
// changed, until ctx ends.
func (l *Leader) Run(ctx context.Context, changes <-chan store.Change) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	collect := time.NewTicker(collectInterval)
	defer collect.Stop()
	changed := map[string]bool{}
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			err = l.CheckAll(ctx)
		case <-collect.C:
			changed, err = l.collectAll(ctx, changed)
		case c, open := <-changes:
			if !open {
				return // the store is closed
			}
			for _, id := range c.Jobs {
				changed[id] = true
				err = errors.Join(err, l.Check(ctx, id))
			}
		}
		if err != nil && ctx.Err() == nil {
			l.cfg.Log.Warn().Err(err).Msg("jobs not checked, trying again")
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(checkInterval):
		}
	}
}
