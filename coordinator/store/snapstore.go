package store

import (
	"errors"
	"path/filepath"

	"github.com/hashicorp/raft"
)

// snapshotStore is Raft's file store of snapshots, which syncs a snapshot's files and its
// final name; this also syncs the names of the files in it, before the final one.
type snapshotStore struct {
	*raft.FileSnapshotStore
	dir string
}

var _ raft.SnapshotStore = (*snapshotStore)(nil)

// openSnapshots opens the folder of snapshots, and sees to it that its name lasts.
func (s *Store) openSnapshots() (raft.SnapshotStore, error) {
	snaps, err := raft.NewFileSnapshotStoreWithLogger(s.cfg.Dir, keepSnapshots, newRaftLog(s.log).Named("snapshot"))
	if err != nil || s.cfg.NoSync {
		return snaps, err
	}
	if err := errors.Join(syncDir(s.cfg.Dir), syncDir(filepath.Dir(s.cfg.Dir))); err != nil {
		return nil, err
	}
	return &snapshotStore{snaps, filepath.Join(s.cfg.Dir, "snapshots")}, nil
}

// Create implements raft.SnapshotStore.
func (s *snapshotStore) Create(version raft.SnapshotVersion, index, term uint64, conf raft.Configuration, confIndex uint64, trans raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.FileSnapshotStore.Create(version, index, term, conf, confIndex, trans)
	if err != nil {
		return nil, err
	}
	// It has made its two files by now.
	if err := syncDir(filepath.Join(s.dir, sink.ID()+".tmp")); err != nil {
		return nil, errors.Join(err, sink.Cancel())
	}
	return sink, nil
}
