package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"
)

// snapshotStore is Raft's file store of snapshots. That has a checksum of the state alone
// and syncs the files' content and their folder's final name; this adds a checksum of the
// rest, who the members are among it, and syncs the names of the files too.
type snapshotStore struct {
	*raft.FileSnapshotStore
	dir    string
	noSync bool
}

var _ raft.SnapshotStore = (*snapshotStore)(nil)

// headFile stands in a snapshot's folder. Snapshots of older builds have none.
const headFile = "head.crc32c"

// openSnapshots opens the folder of snapshots, and sees to it that its name lasts.
func (s *Store) openSnapshots() (*snapshotStore, error) {
	snaps, err := raft.NewFileSnapshotStoreWithLogger(s.cfg.Dir, keepSnapshots, newRaftLog(s.log).Named("snapshot"))
	if err == nil && !s.cfg.NoSync {
		err = errors.Join(syncDir(s.cfg.Dir), syncDir(filepath.Dir(s.cfg.Dir)))
	}
	return &snapshotStore{snaps, filepath.Join(s.cfg.Dir, "snapshots"), s.cfg.NoSync}, err
}

// List implements raft.SnapshotStore with the newest one alone. Where that cannot be restored, as on a full disk, Raft would take
// an older one, from which the log need not go on, and panic at the first entry that is missing.
func (s *snapshotStore) List() ([]*raft.SnapshotMeta, error) {
	all, err := s.FileSnapshotStore.List()
	return all[:min(1, len(all))], err
}

// Create implements raft.SnapshotStore.
func (s *snapshotStore) Create(version raft.SnapshotVersion, index, term uint64, conf raft.Configuration, confIndex uint64, trans raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.FileSnapshotStore.Create(version, index, term, conf, confIndex, trans)
	if err != nil {
		return nil, err
	}
	head := &raft.SnapshotMeta{Version: version, ID: sink.ID(), Index: index, Term: term, Configuration: conf, ConfigurationIndex: confIndex}
	if err := s.seal(filepath.Join(s.dir, sink.ID()+".tmp"), head); err != nil {
		return nil, errors.Join(err, sink.Cancel())
	}
	return sink, nil
}

// seal writes the checksum of a snapshot's head. Raft has made its two files by now.
func (s *snapshotStore) seal(dir string, head *raft.SnapshotMeta) error {
	f, err := os.OpenFile(filepath.Join(dir, headFile), os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(headSum(head))
	if err == nil && !s.noSync {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil || s.noSync {
		return err
	}
	return syncDir(dir)
}

// Open implements raft.SnapshotStore; its errors wrap ErrCorrupt.
func (s *snapshotStore) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	m, r, err := s.FileSnapshotStore.Open(id)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	switch want, err := os.ReadFile(filepath.Join(s.dir, id, headFile)); {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return nil, nil, errors.Join(fmt.Errorf("%w: %w", ErrCorrupt, err), r.Close())
	case string(want) != headSum(m):
		return nil, nil, errors.Join(fmt.Errorf("%w: its metadata has a wrong checksum", ErrCorrupt), r.Close())
	}
	return m, r, nil
}

// headSum is a checksum of what is not the state.
func headSum(m *raft.SnapshotMeta) string {
	b, err := json.Marshal(raft.SnapshotMeta{
		Version: m.Version, ID: m.ID, Index: m.Index, Term: m.Term, Configuration: m.Configuration, ConfigurationIndex: m.ConfigurationIndex,
	})
	if err != nil {
		panic(err) // numbers and strings
	}
	return fmt.Sprintf("%08x", crc32.Checksum(b, castagnoli))
}
