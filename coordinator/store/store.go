package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"github.com/rs/zerolog"

	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// Store is one replica. Its methods may be called concurrently.
type Store struct {
	cfg   Config
	id    string
	log   zerolog.Logger
	logs  *logStore
	fsm   *fsm
	trans transport
	layer *streams // of a network transport, else nil
	// identity says which cluster this replica is of.
	identity *identity
	raft     *raft.Raft
	turns    *transitions
	commits  *committer
	timings  *timings

	// verified is the term in which this replica led and had applied all that was
	// committed before it.
	verifiedMu sync.Mutex
	verified   uint64

	failOnce sync.Once
	failMu   sync.Mutex
	failed   error
	failedCh chan struct{}

	// started is closed when raft is set, or cannot be.
	started     chan struct{}
	silenceOnce sync.Once
	silenceErr  error

	// raftStopped is the future of the one Shutdown that can be waited for, the first. raftEnded is closed when Raft has
	// ended: it answers nothing any more.
	raftOnce, raftEndedOnce sync.Once
	raftStopped             raft.Future
	raftEnded               chan struct{}

	closeOnce sync.Once
	closeErr  error
	done      chan struct{}

	spawnMu sync.Mutex
	closing bool
	wg      sync.WaitGroup

	handovers handovers
	confirmed confirmations
}

// Open opens the replica in cfg.Dir, rebuilding its state if need be, and starts to
// take part. It returns before there is a leader; see Barrier. Errors: ErrConfig,
// ErrInUse, ErrCorrupt, ErrFull, or the cause.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	cfg = cfg.withDefaults()
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open store: %w", diskError(err))
	}
	s := &Store{
		cfg: cfg, log: cfg.Logger, turns: newTransitions(), timings: newTimings(),
		failedCh: make(chan struct{}), started: make(chan struct{}), done: make(chan struct{}), raftEnded: make(chan struct{}),
	}
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	return s, nil
}

func (s *Store) open() (err error) {
	if s.logs, err = openLogStore(filepath.Join(s.cfg.Dir, "raft.db"), s.cfg.NoSync, s.cfg.MaxLogBytes); err != nil {
		return err
	}
	if s.id, err = s.logs.replicaID(s.cfg.ID); err != nil {
		return errors.Join(err, s.logs.close())
	}
	if err := removeTemporary(s.cfg.Dir); err != nil {
		return errors.Join(err, s.logs.close())
	}
	state := filepath.Join(s.cfg.Dir, "state.db")
	db, kept, _, err := openState(state)
	if err != nil {
		return errors.Join(err, s.logs.close())
	}
	if s.fsm, err = newFSM(state, db, s.cfg.SnapshotBytes); err != nil {
		return errors.Join(err, db.Close(), s.logs.close())
	}
	s.logs.wrote = func(d time.Duration) { s.timings.logWrite.Observe(d.Seconds()) }
	s.fsm.restored = s.timings.restores.Inc
	s.fsm.persisted = func(d time.Duration) {
		s.timings.snapshots.Inc()
		s.timings.snapshotSeconds.Observe(d.Seconds())
	}
	if err := s.startRaft(kept); err != nil {
		return errors.Join(err, s.fsm.close(), s.logs.close())
	}
	s.commits = newCommitter(s.raft, s.raftEnded, s.Err, s.late, s.timings)
	s.spawn(s.keepShort)
	return nil
}

// removeTemporary removes what a crash left of half-made snapshots and files.
func removeTemporary(dir string) error {
	for _, pattern := range []string{"raft-*.new", "snapshot-*.tmp", filepath.Join("snapshots", "*.tmp")} {
		names, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return err
		}
		for _, n := range names {
			if err := os.RemoveAll(n); err != nil {
				return err
			}
		}
	}
	return nil
}

// fail stops the store after a failed write: nothing leaves this replica any more,
// calls on their way end with ErrUncertain. Close is still to be called.
func (s *Store) fail(err error) {
	s.failOnce.Do(func() {
		s.failMu.Lock()
		s.failed = err
		s.failMu.Unlock()
		s.log.Error().Err(err).Msg("store stops: a write failed")
		close(s.failedCh)
		s.spawn(s.halt)
	})
}

// halt closes the transport before it lets go of a pending vote (see logStore.Set),
// and then stops Raft.
func (s *Store) halt() {
	s.silence()
	<-s.started
	if s.raft != nil {
		s.endRaft()
	}
}

// stopRaft tells Raft to stop.
func (s *Store) stopRaft() {
	s.raftOnce.Do(func() { s.raftStopped = s.raft.Shutdown() })
}

// endRaft stops Raft and waits for its end.
func (s *Store) endRaft() {
	s.stopRaft()
	_ = s.raftStopped.Error() // only waits
	s.raftEndedOnce.Do(func() { close(s.raftEnded) })
}

// silence sees to it that nothing leaves this replica any more.
func (s *Store) silence() {
	s.silenceOnce.Do(func() {
		s.silenceErr = s.trans.Close()
		close(s.logs.halted)
	})
}

// spawn runs f in a goroutine that Close waits for; false after Close.
func (s *Store) spawn(f func()) bool {
	s.spawnMu.Lock()
	defer s.spawnMu.Unlock()
	if s.closing {
		return false
	}
	s.wg.Go(f)
	return true
}

// Err is why the store has stopped by itself: ErrFailed, with ErrFull when the disk is
// full. Nil while it works.
func (s *Store) Err() error {
	s.failMu.Lock()
	defer s.failMu.Unlock()
	return s.failed
}

// Failed is closed when the store has stopped by itself; see Err.
func (s *Store) Failed() <-chan struct{} { return s.failedCh }

// ID is the replica's id.
func (s *Store) ID() string { return s.id }

// Close stops taking part, ends calls on their way, and closes the files. Safe to call
// more than once.
func (s *Store) Close() error {
	s.closeOnce.Do(func() { s.closeErr = s.shutdown() })
	return s.closeErr
}

// shutdown hands leadership on, if there is somebody to take it, and stops the parts in
// this order: Raft, so that nothing new is applied; the
// commits that wait for it; the streams to consumers; the files.
func (s *Store) shutdown() error {
	s.HandOver()
	s.spawnMu.Lock()
	s.closing = true
	s.spawnMu.Unlock()
	close(s.done)
	s.stopRaft()
	s.silence()
	s.endRaft()
	s.wg.Wait()
	s.commits.stop()
	s.turns.stop()
	s.fsm.hub.close()
	err := s.silenceErr
	applied := s.fsm.applied.get()
	err = errors.Join(err, s.fsm.close())
	if s.fsm.failure() == nil {
		if err := sealState(s.fsm.path, applied); err != nil {
			s.log.Warn().Err(err).Msg("state not sealed, it is rebuilt at the next start")
		}
	}
	err = errors.Join(err, s.logs.close())
	if err != nil {
		return fmt.Errorf("close store: %w", err)
	}
	return nil
}

// HandOver gives leadership to another voter, if this replica has it and there is one, so that a restart in good
// order costs no election timeout. Close does it too.
func (s *Store) HandOver() {
	members, err := s.Members()
	if err != nil || len(members) < 2 || !s.IsLeader() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 4*s.cfg.Election)
	defer cancel()
	if err := s.Transfer(ctx, ""); err != nil {
		s.log.Warn().Err(err).Msg("leadership not handed over")
	}
}

// Apply commits commands and returns each one's result once this replica has applied
// them. Concurrent calls share log entries; one call's commands stay together and in
// order. A refused command has Result.Err set and changed nothing.
//
// Errors: ErrNotLeader, ErrClosed or ErrOlder (nothing was committed), ctx's error alone
// (nothing was committed), ErrUncertain, with the cause (it may have been).
func (s *Store) Apply(ctx context.Context, cmds ...*v1.Command) ([]Result, error) {
	if len(cmds) == 0 {
		return nil, nil
	}
	if !s.IsLeader() {
		if err := s.Err(); err != nil {
			return nil, fmt.Errorf("apply: %w: %w", ErrNotLeader, err)
		}
		return nil, fmt.Errorf("apply: %w", ErrNotLeader)
	}
	if err := s.mayCommit(cmds); err != nil {
		return nil, fmt.Errorf("apply: %w", err)
	}
	results, err := s.commits.apply(ctx, cmds)
	if err != nil {
		return nil, fmt.Errorf("apply: %w", err)
	}
	return results, nil
}

// Subscribe tells of changes as this replica applies them. Changes that are not
// received at once are merged, none is lost, and nothing is ever blocked. The channel
// closes on cancel and when the store closes.
func (s *Store) Subscribe() (<-chan Change, func()) { return s.fsm.hub.subscribe() }

// AppliedIndex is the last log index this replica has applied.
func (s *Store) AppliedIndex() uint64 { return s.fsm.applied.get() }

// View runs fn on one consistent state of this replica, as of the last entry it has
// applied: stale by itself, fresh after Barrier or Linearizable. Keep fn short, and
// keep nothing of the View after it. Records are the caller's own. ErrCorrupt if a
// record cannot be read, ErrClosed after Close.
func (s *Store) View(fn func(*View) error) error {
	return s.fsm.view(func(t *txn) error { return fn(&View{t}) })
}

// Snapshot takes a snapshot now and cuts the log; by itself that happens as
// Config.SnapshotEvery says.
func (s *Store) Snapshot() error {
	if err := answerOf(s.raft.Snapshot(), s.raftEnded); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
		return fmt.Errorf("take snapshot: %w", s.raftError(err))
	}
	return nil
}

// late tells Config.Late.
func (s *Store) late() {
	if s.cfg.Late != nil {
		s.cfg.Late()
	}
}
