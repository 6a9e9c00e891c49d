package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"
	bolt "go.etcd.io/bbolt"

	"github.com/espalier-ml/espalier/coordinator/ctxio"
)

// Backup writes this replica's whole state, as of one applied entry, which it returns.
// Call Linearizable before for all that was committed. Data sets, artifacts and
// checkpoints are files of their own and not part of it.
func (s *Store) Backup(ctx context.Context, w io.Writer) (applied uint64, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	snap, err := s.fsm.snapshot()
	if err != nil {
		return 0, fmt.Errorf("back up: %w", err)
	}
	defer snap.Release()
	applied = (&txn{tx: snap.tx}).applied()
	if err := snap.persist(ctxio.Writer(ctx, w)); err != nil {
		return 0, fmt.Errorf("back up: %w", diskError(err))
	}
	return applied, nil
}

// RestoreBackup replaces the cluster's whole state by a backup's; what is there now is
// lost, and commands on their way end with ErrUncertain. It is for a new cluster after a
// disaster. The backup is verified before anything changes. Leader only: ErrNotLeader,
// ErrCorrupt, ErrFull, ErrClosed.
func (s *Store) RestoreBackup(ctx context.Context, r io.Reader) error {
	if !s.IsLeader() {
		return fmt.Errorf("restore backup: %w", ErrNotLeader)
	}
	if err := s.restoreBackup(ctx, r); err != nil {
		return fmt.Errorf("restore backup: %w", err)
	}
	return nil
}

func (s *Store) restoreBackup(ctx context.Context, r io.Reader) (err error) {
	state := filepath.Join(s.cfg.Dir, "snapshot-restore.tmp")
	defer func() { err = errors.Join(err, removeIfThere(state)) }()
	if err := receiveState(ctxio.Reader(ctx, r), state); err != nil {
		return err
	}
	f, err := os.Open(state)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	applied, err := stateIndex(state)
	if err != nil {
		return err
	}
	pr, pw := io.Pipe()
	if !s.spawn(func() { pw.CloseWithError(sendState(pw, f, applied, st.Size())) }) {
		return ErrClosed
	}
	// The pipe's writer ends also when Raft stops reading.
	defer pr.Close()
	meta := &raft.SnapshotMeta{Version: raft.SnapshotVersionMax, Index: applied, Size: snapshotBytes(st.Size())}
	return s.raftError(s.raft.Restore(meta, pr, 0))
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// stateIndex reads the applied index of a closed state file.
func stateIndex(path string) (index uint64, err error) {
	db, err := openBolt(path, boltOptions{noSync: true})
	if err != nil {
		return 0, err
	}
	err = db.View(func(tx *bolt.Tx) (err error) {
		defer catch(&err)
		index = (&txn{tx: tx}).applied()
		return nil
	})
	return index, errors.Join(err, db.Close())
}
