package store

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
)

// keepSnapshots is how many snapshots stay on disk.
const keepSnapshots = 2

// logCacheEntries are kept in memory for replicas that follow closely.
const logCacheEntries = 512

// transport is a Raft transport that can be closed.
type transport interface {
	raft.Transport
	Close() error
}

func (s *Store) raftConfig() *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(s.id)
	c.HeartbeatTimeout, c.ElectionTimeout = s.cfg.Election, s.cfg.Election
	// As long as the others wait: reads verify leadership, they do not trust the lease.
	c.LeaderLeaseTimeout = s.cfg.Election
	c.CommitTimeout = min(50*time.Millisecond, s.cfg.Election/4)
	c.MaxAppendEntries = 256
	c.SnapshotThreshold, c.SnapshotInterval = s.cfg.SnapshotEvery, s.cfg.SnapshotInterval
	c.TrailingLogs = s.cfg.TrailingLogs
	c.NotifyCh = s.turns.in
	c.Logger = newRaftLog(s.log)
	c.NoLegacyTelemetry = true
	// A removed replica stays up and says so; stopping it is its owner's business.
	c.ShutdownOnRemove = false
	return c
}

// startRaft starts Raft on the open files. kept: the state file holds all that the
// snapshots do, so that only the log is replayed on it.
func (s *Store) startRaft(kept bool) error {
	snaps, err := s.openSnapshots()
	if err != nil {
		return fmt.Errorf("open snapshots: %w", diskError(err))
	}
	cfg := s.raftConfig()
	if cfg.NoSnapshotRestoreOnStart, err = s.checkHistory(snaps, kept); err != nil {
		return err
	}
	if s.identity, err = openIdentity(s.logs, snaps, s.id, s.cfg.Bootstrap); err != nil {
		return err
	}
	if s.cfg.Admit != nil && s.Fresh() {
		if err := s.cfg.Admit(s.id); err != nil {
			return err
		}
	}
	if s.trans, err = s.openTransport(); err != nil {
		return err
	}
	cache, err := raft.NewLogCache(logCacheEntries, s.logs)
	if err != nil {
		return errors.Join(err, s.trans.Close())
	}
	// From here on a failed write stops the store; see fail.
	s.logs.onFail, s.fsm.onFail = s.fail, s.fail
	if s.cfg.Bootstrap {
		if err := s.bootstrap(cfg, snaps); err != nil {
			close(s.started)
			return errors.Join(err, s.trans.Close())
		}
	}
	s.raft, err = raft.NewRaft(cfg, s.fsm, cache, s.logs, snaps, s.trans)
	close(s.started)
	if err != nil {
		if s.fsm.unrestored != nil { // which Raft only logs
			err = fmt.Errorf("%w: %w", err, s.fsm.unrestored)
		}
		return errors.Join(fmt.Errorf("start raft: %w", err), s.trans.Close())
	}
	s.turns.start(s.raft.CurrentTerm, func() { s.spawn(s.onLead) })
	return nil
}

// checkHistory compares log, snapshots and a kept state file: together they must hold
// every entry. skip tells that the kept state is at least as new as the snapshot.
func (s *Store) checkHistory(snaps raft.SnapshotStore, kept bool) (skip bool, err error) {
	metas, err := snaps.List()
	if err != nil {
		return false, fmt.Errorf("list snapshots: %w", err)
	}
	first, last := s.logs.first, s.logs.last
	var covered uint64 // by the newest snapshot
	if len(metas) > 0 {
		covered = metas[0].Index
		_, r, err := snaps.Open(metas[0].ID)
		if err != nil {
			return false, fmt.Errorf("open snapshot %s: %w", filepath.Join(s.cfg.Dir, "snapshots", metas[0].ID), err)
		}
		applied, _, err := readHead(r, crc32.New(castagnoli))
		if err = errors.Join(err, r.Close()); err != nil {
			return false, fmt.Errorf("read snapshot %s: %w", metas[0].ID, err)
		}
		skip = kept && s.fsm.applied.get() >= applied
	} else {
		skip = kept
	}
	if first > covered+1 {
		return false, fmt.Errorf("%w: %s: the log begins at entry %d, the newest snapshot ends at %d", ErrCorrupt, s.cfg.Dir, first, covered)
	}
	if at := s.fsm.applied.get(); at > max(last, covered) {
		return false, fmt.Errorf("%w: %s: the state has applied entry %d, the log ends at %d", ErrCorrupt, s.cfg.Dir, at, last)
	}
	return skip, nil
}

// bootstrap writes the first configuration of a new cluster, once. It does what
// raft.BootstrapCluster does, but in one transaction: that keeps the term first, and a
// replica that crashed before the rest would have taken itself for a member of something
// and waited for ever. One that such a crash left is begun again.
func (s *Store) bootstrap(cfg *raft.Config, snaps raft.SnapshotStore) error {
	metas, err := snaps.List()
	if err != nil {
		return fmt.Errorf("list snapshots: %w", err)
	}
	fresh, err := s.logs.fresh()
	if err != nil || !fresh || len(metas) > 0 {
		return err
	}
	first := raft.Configuration{Servers: []raft.Server{{
		ID: cfg.LocalID, Address: s.trans.LocalAddr(), Suffrage: raft.Voter,
	}}}
	entry := &raft.Log{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(first)}
	if err := s.logs.begin(entry); err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	return nil
}

// IsLeader tells whether this replica leads, as far as it knows.
func (s *Store) IsLeader() bool { return s.raft.State() == raft.Leader && s.Err() == nil }

// Term is Raft's current term on this replica.
func (s *Store) Term() uint64 { return s.raft.CurrentTerm() }

// Leader is the id of the leader, as far as this replica knows.
func (s *Store) Leader() (id string, ok bool) {
	_, leader := s.raft.LeaderWithID()
	return string(leader), leader != ""
}

// Leadership tells when this replica begins and ceases to lead, in order; none is
// dropped, so that lost and regained at once is seen as both. One consumer. The
// channel closes when the store closes.
func (s *Store) Leadership() <-chan Leadership { return s.turns.out }

// Barrier commits an empty entry and waits until this replica has applied all that was
// committed before it: what a new leader does first. ErrNotLeader, ErrClosed or ctx's
// error.
func (s *Store) Barrier(ctx context.Context) error {
	term := s.raft.CurrentTerm()
	if err := s.await(ctx, s.raft.Barrier(0)); err != nil {
		return fmt.Errorf("barrier: %w", err)
	}
	// Raft's barrier is behind all entries before it, not behind their having been applied: one that could not be written
	// to the state has stopped the store by now.
	if err := s.Err(); err != nil {
		return fmt.Errorf("barrier: %w: %w", ErrNotLeader, err)
	}
	s.verifiedMu.Lock()
	s.verified = max(s.verified, term)
	s.verifiedMu.Unlock()
	return nil
}

// Linearizable returns when a View sees everything that was committed before the call.
// Leader only: it confirms with a majority that it still leads, and waits for its own
// state; it writes nothing, except once in each term. ErrNotLeader, ErrClosed or ctx's
// error.
func (s *Store) Linearizable(ctx context.Context) error {
	term := s.raft.CurrentTerm()
	if !s.led(term) {
		// Before an entry of its own term a leader does not know what is committed.
		return s.Barrier(ctx)
	}
	index := s.raft.CommitIndex()
	if err := s.verifyLeader(ctx, term); err != nil {
		return fmt.Errorf("verify leader: %w", err)
	}
	if err := s.fsm.applied.wait(ctx, s.done, s.lastCommand(index)); err != nil {
		return fmt.Errorf("wait for entry %d: %w", index, err)
	}
	return nil
}

// lastCommand is the last entry up to index that reaches the state: others, such as
// barriers, never do.
func (s *Store) lastCommand(index uint64) uint64 {
	applied := s.fsm.applied.get()
	for ; index > applied; index-- {
		var l raft.Log
		// An entry that is gone is in a snapshot, and so was applied.
		if err := s.logs.GetLog(index, &l); err != nil || l.Type == raft.LogCommand {
			break
		}
	}
	return index
}

// await waits for a future's answer, or for ctx, or for the end of Raft.
func (s *Store) await(ctx context.Context, f raft.Future) error {
	answer := make(chan error, 1)
	if !s.spawn(func() { answer <- answerOf(f, s.raftEnded) }) {
		return ErrClosed
	}
	select {
	case err := <-answer:
		return s.raftError(err)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// answerOf is a future's answer. Raft never answers the futures that still wait for its FSM's goroutine when that one ends: an
// answer that is not there when all of Raft has ended will not come.
func answerOf(f raft.Future, ended <-chan struct{}) error {
	answer := make(chan error, 1)
	go forget(f, answer)
	select {
	case err := <-answer:
		return err
	case <-ended:
	}
	select {
	case err := <-answer:
		return err
	case <-time.After(lastAnswer):
		return raft.ErrRaftShutdown
	}
}

// forget is the goroutine that stays behind with a future that Raft has forgotten: nothing can wake it, and it holds nothing but
// the future. Tests for leaks know it by name.
func forget(f raft.Future, answer chan<- error) { answer <- f.Error() }

// lastAnswer is the time for an answer that is there to be passed on.
const lastAnswer = 100 * time.Millisecond

// raftError gives Raft's errors the store's names.
func (s *Store) raftError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipLost),
		errors.Is(err, raft.ErrLeadershipTransferInProgress), errors.Is(err, raft.ErrAbortedByRestore):
		return fmt.Errorf("%w: %w", ErrNotLeader, err)
	case errors.Is(err, raft.ErrRaftShutdown):
		if cause := s.Err(); cause != nil {
			return cause
		}
		return ErrClosed
	}
	return err
}
