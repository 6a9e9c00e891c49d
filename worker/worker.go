package worker

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/espalier-ml/espalier/client"
	"github.com/espalier-ml/espalier/model/train"
	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/worker/cache"
	"github.com/espalier-ml/espalier/worker/link"
	"github.com/espalier-ml/espalier/worker/lock"
	"github.com/espalier-ml/espalier/worker/task"
	"github.com/espalier-ml/espalier/worker/trainer"
)

// reportGrace is how long reports may go on after DrainTimeout.
const reportGrace = 5 * time.Second

// Worker claims and runs tasks.
type Worker struct {
	cfg    Config
	log    zerolog.Logger
	info   *espalierv1.WorkerInfo
	api    *client.Client
	link   *link.Link
	cache  *cache.Cache
	host   *lock.Lock
	gate   *Gate
	runner runner
	leases *leases
	health health
}

// New checks the configuration; errors wrap ErrConfig, client.ErrAddress or
// client.ErrInsecure. Nothing is started or locked.
func New(cfg Config) (*Worker, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.Server.Logger = cfg.Logger
	api, err := client.New(cfg.Server)
	if err != nil {
		return nil, err
	}
	return &Worker{
		cfg: cfg.withDefaults(), log: cfg.Logger, api: api, gate: &Gate{}, leases: newLeases(),
	}, nil
}

// Run works until ctx ends, then drains: tasks that end within DrainTimeout are
// reported, the others handed back. It returns nil after that, and otherwise an
// error that wraps ErrHostLock, cache.ErrInUse or ErrRefused. A Worker runs once.
func (w *Worker) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, w.close()) }()
	if err := w.open(); err != nil {
		return err
	}
	w.link = link.New(link.Config{API: w.api, Server: w.cfg.Server, Name: "espalier worker", Retry: w.cfg.waits.retry,
		Refresh: w.cfg.waits.refresh, Logger: w.log})
	if err := w.link.Connect(ctx); err != nil {
		return nil // asked to end before there was a server
	}
	defer w.link.Close()
	w.log.Info().Int32("slots", w.info.GetSlots()).Str("device", w.info.GetDevice()).
		Str("cpu", w.info.GetFingerprint().GetCpu()).Str("variant", w.info.GetFingerprint().GetVariant()).Msg("worker started")
	return w.serve(ctx)
}

// serve runs the slots, the heartbeats and the end.
func (w *Worker) serve(ctx context.Context) error {
	claimCtx, stopClaims := context.WithCancelCause(ctx)
	defer stopClaims(nil)
	// Work outlives claims, reports outlive work, heartbeats outlive both.
	workCtx, stopWork := context.WithCancelCause(context.WithoutCancel(ctx))
	lastCtx, stopReports := context.WithCancelCause(context.WithoutCancel(ctx))
	beatCtx, stopBeats := context.WithCancel(context.WithoutCancel(ctx))

	var slots, others sync.WaitGroup
	for range w.cfg.Slots {
		slots.Go(func() { w.slot(claimCtx, workCtx, lastCtx, stopClaims) })
	}
	others.Go(func() { w.beat(beatCtx) })
	others.Go(func() { w.link.Keep(beatCtx) })
	if w.cfg.NoMeasure {
		others.Go(func() { newHostQuiet(w.cfg.HostLock).heed(beatCtx, w.gate, w.log) })
	}
	done := make(chan struct{})
	others.Go(func() { w.drain(claimCtx, done, stopWork, stopReports) })

	slots.Wait()
	close(done)
	stopBeats()
	others.Wait()
	stopWork(nil)
	stopReports(nil)
	if err := context.Cause(claimCtx); errors.Is(err, ErrRefused) {
		return err
	}
	return nil
}

// slot does one task after the other until claimCtx ends.
func (w *Worker) slot(claimCtx, workCtx, lastCtx context.Context, stop context.CancelCauseFunc) {
	for claimCtx.Err() == nil {
		if w.health.wait(claimCtx); claimCtx.Err() != nil {
			return
		}
		lease, err := w.claim(claimCtx, lastCtx)
		if err != nil {
			stop(err)
			return
		}
		if lease == nil {
			continue
		}
		w.work(workCtx, lastCtx, lease)
		if w.cfg.Once {
			stop(errOnce)
		}
	}
}

var errOnce = errors.New("one task was asked for")

// drain waits for the end of claims, and then gives work and reports their time.
func (w *Worker) drain(claimCtx context.Context, done <-chan struct{}, stopWork, stopReports context.CancelCauseFunc) {
	select {
	case <-claimCtx.Done():
	case <-done:
		return
	}
	w.log.Info().Dur("timeout", w.cfg.DrainTimeout).Msg("draining")
	for _, phase := range []struct {
		length time.Duration
		end    context.CancelCauseFunc
	}{{w.cfg.DrainTimeout, stopWork}, {reportGrace, stopReports}} {
		t := time.NewTimer(phase.length)
		select {
		case <-t.C:
			phase.end(errDrain)
		case <-done:
			t.Stop()
			return
		}
	}
}

// open takes the locks and says who this worker is.
func (w *Worker) open() (err error) {
	if !w.cfg.NoMeasure {
		w.host, err = lock.Acquire(w.cfg.HostLock, fmt.Sprintf("process %d", os.Getpid()))
		if errors.Is(err, lock.ErrHeld) {
			return fmt.Errorf("%w: %w; only one may measure: start this one with --no-measure", ErrHostLock, err)
		}
		if err != nil {
			return err
		}
	}
	if err := w.openCache(); err != nil {
		return err
	}
	if w.cfg.Name == "" {
		w.cfg.Name = fmt.Sprintf("%s-%04x", hostName(), crc32.ChecksumIEEE([]byte(w.cfg.CacheDir))&0xffff)
	}
	host, _ := os.Hostname()
	w.info = &espalierv1.WorkerInfo{
		Name: w.cfg.Name, Session: client.NewRequestID(), Host: host, Slots: int32(w.cfg.Slots), Version: w.cfg.Version,
		Fingerprint: Fingerprint(), Device: w.cfg.Device, Labels: w.cfg.Labels, Kinds: w.cfg.kinds(),
	}
	w.log = w.log.With().Str("worker", w.cfg.Name).Logger()
	if w.runner == nil {
		w.runner, err = task.New(task.Config{
			Files: w.cache, Gate: hostGate{w.gate, newHostQuiet(w.cfg.HostLock)}, Trainer: trainer.Native{}, Threads: w.cfg.Threads,
			BaselineThreads: min(w.cfg.Slots*w.cfg.Threads, train.IdleThreads()), Device: w.cfg.Device,
			Version: w.cfg.Version, Bench: w.cfg.Bench,
		})
	}
	return err
}

// kinds are the tasks that this worker does.
func (c Config) kinds() []espalierv1.TaskKind {
	var kinds []espalierv1.TaskKind
	if !c.NoMeasure {
		kinds = append(kinds, espalierv1.TaskKind_TASK_KIND_MEASURE)
	}
	if !c.MeasureOnly {
		kinds = append(kinds, espalierv1.TaskKind_TASK_KIND_BASELINE, espalierv1.TaskKind_TASK_KIND_TRIAL)
	}
	return kinds
}

// maxCaches bounds the folders tried for a worker that was given none.
const maxCaches = 16

// openCache opens the folder given, or the first default one that is free.
func (w *Worker) openCache() error {
	open := func(dir string) (err error) {
		w.cfg.CacheDir = dir
		w.cache, err = cache.Open(cache.Config{Dir: dir, MaxBytes: w.cfg.CacheBytes, Fetch: w.api.Download})
		return err
	}
	if w.cfg.CacheDir != "" {
		dir, err := filepath.Abs(w.cfg.CacheDir)
		if err != nil {
			return fmt.Errorf("cache folder: %w", err)
		}
		return open(dir)
	}
	base, err := os.UserCacheDir()
	if err != nil {
		return fmt.Errorf("%w: CacheDir is empty and there is no default: %w", ErrConfig, err)
	}
	base = filepath.Join(base, "espalier", "worker")
	err = open(base)
	for i := 2; errors.Is(err, cache.ErrInUse) && i <= maxCaches; i++ {
		err = open(fmt.Sprintf("%s-%d", base, i))
	}
	return err
}

// close gives everything back.
func (w *Worker) close() error {
	var errs []error
	if w.cache != nil {
		errs = append(errs, w.cache.Close())
	}
	if w.host != nil {
		errs = append(errs, w.host.Release())
	}
	w.api.Close()
	return errors.Join(errs...)
}
