// Package task runs tasks: each kind is a short list of stages over the rooms of
// model. It knows nothing of leases, heartbeats and reports.
package task

import (
	"context"
	"errors"
	"fmt"

	"github.com/espalier-ml/espalier/model/bench"
	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/worker/cache"
	"github.com/espalier-ml/espalier/worker/trainer"
)

// Errors of this package.
var (
	// ErrPermanent says that a task would fail again anywhere.
	ErrPermanent = errors.New("permanent failure")
	// ErrConfig says that a Config cannot work.
	ErrConfig = errors.New("task configuration")
)

// Control is what a task sees of the worker that runs it.
type Control interface {
	// Progress says where the task stands.
	Progress(*espalierv1.Progress)
	// Halted is closed when the task shall end early and return what there is.
	Halted() <-chan struct{}
}

// Outcome is what a task made: one of the results, and the files that it names,
// which are in use until Release.
type Outcome struct {
	Baseline    *espalierv1.Baseline
	Trial       *espalierv1.TrialResult
	Measurement *espalierv1.Measurement
	Files       []*cache.File
}

// Release ends the use of the files.
func (o *Outcome) Release() {
	for _, f := range o.Files {
		f.Release()
	}
}

// Files brings and keeps files by hash; *cache.Cache is one.
type Files interface {
	Get(ctx context.Context, ref *espalierv1.FileRef) (*cache.File, error)
	Add(ctx context.Context, data []byte, format string) (*cache.File, error)
}

var _ Files = (*cache.Cache)(nil)

// Gate keeps the process quiet while it measures.
type Gate interface {
	// Enter begins noisy work, Step is called in it where it may pause, Leave ends it.
	Enter(ctx context.Context) error
	Step(ctx context.Context) error
	Leave()
	// Quiet waits until no noisy work runs, and keeps it so until release.
	Quiet(ctx context.Context) (release func(), err error)
}

// Config is what tasks work with.
type Config struct {
	Files   Files
	Gate    Gate
	Trainer trainer.Trainer
	// Threads is how many one task may use; 0 means 1.
	Threads int
	// BaselineThreads is how many a baseline may use; 0 means Threads. Nothing else
	// of its job can run beside it.
	BaselineThreads int
	// Device is the name of the device that this process measures on.
	Device string
	// Version is recorded with every model that is made here.
	Version string
	// Bench says how long to measure; zero takes its defaults.
	Bench bench.Options
}

// Runner runs tasks. It is safe for concurrent use; data sets are decoded once
// and shared.
type Runner struct {
	cfg  Config
	sets *sets
}

// New returns a Runner; its error wraps ErrConfig.
func New(cfg Config) (*Runner, error) {
	if cfg.Files == nil || cfg.Gate == nil || cfg.Trainer == nil {
		return nil, fmt.Errorf("%w: files, gate and trainer must be set", ErrConfig)
	}
	if cfg.Threads < 0 || cfg.BaselineThreads < 0 {
		return nil, fmt.Errorf("%w: Threads is %d and BaselineThreads %d; want 1 or more", ErrConfig, cfg.Threads, cfg.BaselineThreads)
	}
	cfg.Threads = max(cfg.Threads, 1)
	cfg.BaselineThreads = max(cfg.BaselineThreads, cfg.Threads)
	return &Runner{cfg: cfg, sets: newSets()}, nil
}

// Run runs the task of a lease. Its error wraps ErrPermanent when the same task
// would fail again anywhere, and the context's when that ended it.
func (r *Runner) Run(ctx context.Context, lease *espalierv1.Lease, c Control) (*Outcome, error) {
	j := &job{Runner: r, ctx: ctx, lease: lease, control: c, threads: r.cfg.Threads}
	if lease.GetTask().GetKind() == espalierv1.TaskKind_TASK_KIND_BASELINE {
		j.threads = r.cfg.BaselineThreads
	}
	o, err := j.run()
	if err == nil {
		return o, nil
	}
	o.Release()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if permanent(err) {
		return nil, fmt.Errorf("%w: %w", ErrPermanent, err)
	}
	return nil, err
}

// job is one task under way.
type job struct {
	*Runner
	ctx     context.Context
	lease   *espalierv1.Lease
	control Control
	held    []*cache.File // inputs in use
	threads int
	stage   stage
	started string // hash of the checkpoint that a trial starts from
}

func (j *job) run() (o *Outcome, err error) {
	o = &Outcome{}
	defer func() {
		for _, f := range j.held {
			f.Release()
		}
	}()
	switch kind := j.lease.GetTask().GetKind(); kind {
	case espalierv1.TaskKind_TASK_KIND_BASELINE:
		return o, j.baseline(o)
	case espalierv1.TaskKind_TASK_KIND_TRIAL:
		return o, j.trial(o)
	case espalierv1.TaskKind_TASK_KIND_MEASURE:
		return o, j.measure(o)
	default:
		return o, fmt.Errorf("%w: this worker does not know tasks of kind %v", ErrPermanent, kind)
	}
}

// noisily runs f as noisy work: not while somebody measures.
func (j *job) noisily(f func() error) error {
	if err := j.cfg.Gate.Enter(j.ctx); err != nil {
		return err
	}
	defer j.cfg.Gate.Leave()
	return f()
}

// fetch brings a file, in use until the task ends.
func (j *job) fetch(ref *espalierv1.FileRef, what string) (*cache.File, error) {
	if ref.GetHash() == "" {
		return nil, fmt.Errorf("%w: the lease names no %s", ErrPermanent, what)
	}
	f, err := j.cfg.Files.Get(j.ctx, ref)
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", what, err)
	}
	j.held = append(j.held, f)
	return f, nil
}

// stage is the part of a task that runs now, as progress shows it.
type stage struct {
	name     string
	from, to float64 // fractions of the task
	loss     float64
	accuracy float64
}

// begin starts a stage that takes the task's progress from one fraction to
// another.
func (j *job) begin(name string, from, to float64) {
	j.stage.name, j.stage.from, j.stage.to = name, from, to
	j.at(0)
}

// at says that a fraction of the stage is done.
func (j *job) at(fraction float64) {
	s := &j.stage
	j.control.Progress(&espalierv1.Progress{
		Stage: s.name, Fraction: s.from + (s.to-s.from)*fraction, Loss: s.loss, Accuracy: s.accuracy,
	})
}
