package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"
	"github.com/rs/zerolog"

	"github.com/espalier-ml/espalier/coordinator/ctxio"
)

// Restore makes, in an absent or empty folder, a replica that begins a new cluster with the records of a backup, under
// a new cluster id: replicas of the cluster that wrote the backup will not mix with it. Open it with Bootstrap. id
// names the replica; empty is a random name. The backup is verified first. It returns the replica's id. Errors: ErrExists when
// the folder holds something, ErrCorrupt, ErrFull, or ctx's error.
func Restore(ctx context.Context, dir, id string, backup io.Reader) (replica string, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("restore backup: %w", err)
		}
	}()
	if id != "" {
		if err := checkID("ID", id); err != nil {
			return "", fmt.Errorf("%w: %w", ErrConfig, err)
		}
	}
	if names, err := os.ReadDir(dir); err == nil && len(names) > 0 {
		return "", fmt.Errorf("%w: folder %s is not empty, it holds %s", ErrExists, dir, names[0].Name())
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", diskError(err)
	}
	state := filepath.Join(dir, "snapshot-restore.tmp")
	defer func() { err = errors.Join(err, removeIfThere(state)) }()
	if err := receiveState(ctxio.Reader(ctx, backup), state); err != nil {
		return "", err
	}
	return newReplica(dir, id, state)
}

// newReplica writes the log file and the first snapshot of a replica that holds a state.
func newReplica(dir, id, state string) (replica string, err error) {
	logs, err := openLogStore(filepath.Join(dir, "raft.db"), false, 0)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, logs.close()) }()
	if id, err = logs.replicaID(id); err != nil {
		return "", err
	}
	if err := logs.put(keyCluster, []byte(newID())); err != nil {
		return "", err
	}
	applied, err := stateIndex(state)
	if err != nil {
		return "", err
	}
	snaps, err := (&Store{cfg: Config{Dir: dir}, log: zerolog.Nop()}).openSnapshots()
	if err != nil {
		return "", diskError(err)
	}
	f, err := os.Open(state)
	if err != nil {
		return "", err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", err
	}
	// An index of 0 is none to Raft.
	sink, err := snaps.Create(raft.SnapshotVersionMax, max(applied, 1), 1, alone(id), 1, lonely())
	if err != nil {
		return "", diskError(err)
	}
	if err := sendState(sink, f, applied, st.Size()); err != nil {
		return "", errors.Join(diskError(err), sink.Cancel())
	}
	return id, diskError(sink.Close())
}

// alone is the configuration of a cluster of one, which tells its address when it leads.
func alone(id string) raft.Configuration {
	return raft.Configuration{Servers: []raft.Server{{ID: raft.ServerID(id), Address: localAddress, Suffrage: raft.Voter}}}
}

// lonely is a transport that reaches nobody.
func lonely() raft.Transport {
	_, t := raft.NewInmemTransport(localAddress)
	return t
}

// Recovered says what Recover found.
type Recovered struct {
	ID string
	// Was are the members before, this one among them.
	Was []Member
	// Applied is the last entry of the records.
	Applied uint64
}

// Recover makes the replica in a folder, which no server has open, the only member of a new cluster, with all records it
// has: for a cluster whose majority is lost for good. What the lost ones acknowledged and this one never got is lost; what this
// one got and no majority acknowledged is kept. The cluster's id is new, so that the lost ones, should they come back, do not
// mix with it. Errors: ErrNotFound when the folder holds no replica, ErrInUse, ErrCorrupt, ErrFull.
func Recover(cfg Config) (r Recovered, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("recover replica: %w", err)
		}
	}()
	path := filepath.Join(cfg.Dir, "raft.db")
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return r, fmt.Errorf("%w: folder %s holds no replica", ErrNotFound, cfg.Dir)
	}
	s := &Store{cfg: cfg.withDefaults(), log: cfg.Logger, turns: newTransitions()}
	if s.logs, err = openLogStore(path, false, 0); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, s.logs.close()) }()
	if s.id, err = s.logs.replicaID(""); err != nil {
		return r, err
	}
	if err := removeTemporary(cfg.Dir); err != nil {
		return r, err
	}
	snaps, err := s.openSnapshots()
	if err != nil {
		return r, diskError(err)
	}
	if s.fsm, err = emptyState(cfg.Dir); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, s.fsm.close()) }()
	if _, err := s.checkHistory(snaps, false); err != nil {
		return r, err
	}
	return s.recover(snaps)
}

// emptyState begins the state anew: it is rebuilt from snapshot and log.
func emptyState(dir string) (*fsm, error) {
	path := filepath.Join(dir, "state.db")
	if err := removeIfThere(sealPath(path)); err != nil {
		return nil, err
	}
	db, _, _, err := openState(path)
	if err != nil {
		return nil, err
	}
	f, err := newFSM(path, db, defaultSnapshotBytes)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return f, nil
}

// recover lets Raft replay all there is and write it as a snapshot with one member. The new cluster id comes first: after
// a crash in between nothing worse remains than a replica that nobody of the old cluster talks to.
func (s *Store) recover(snaps raft.SnapshotStore) (r Recovered, err error) {
	r.ID = s.id
	cfg := s.raftConfig()
	// Raft closes nothing of these, and changes nothing.
	was, err := raft.GetConfiguration(s.raftConfig(), s.fsm, s.logs, s.logs, snaps, lonely())
	if err != nil {
		return r, fmt.Errorf("read the members: %w", err)
	}
	for _, m := range was.Servers {
		r.Was = append(r.Was, Member{ID: string(m.ID), Address: string(m.Address), Voter: m.Suffrage == raft.Voter})
	}
	if err := s.logs.put(keyCluster, []byte(newID())); err != nil {
		return r, err
	}
	if err := raft.RecoverCluster(cfg, s.fsm, s.logs, s.logs, snaps, lonely(), alone(s.id)); err != nil {
		return r, errors.Join(err, s.logs.failure(), s.fsm.failure())
	}
	if err := errors.Join(s.logs.failure(), s.fsm.failure()); err != nil {
		return r, err
	}
	r.Applied = s.fsm.applied.get()
	return r, nil
}

// Backup is the records of a backup, open for reading.
type Backup struct {
	fsm  *fsm
	path string
}

// OpenBackup verifies a backup's records and opens them; path is a temporary file to unpack them to, which Close removes.
// Errors: ErrCorrupt, ErrFull.
func OpenBackup(r io.Reader, path string) (*Backup, error) {
	if err := receiveState(r, path); err != nil {
		return nil, errors.Join(fmt.Errorf("open backup: %w", err), removeIfThere(path))
	}
	db, err := openBolt(path, boltOptions{noSync: true})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open backup: %w", err), removeIfThere(path))
	}
	f, err := newFSM(path, db, defaultSnapshotBytes)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open backup: %w", err), db.Close(), removeIfThere(path))
	}
	return &Backup{f, path}, nil
}

// View runs fn on the records.
func (b *Backup) View(fn func(*View) error) error {
	return b.fsm.view(func(t *txn) error { return fn(&View{t}) })
}

// Close closes the records and removes the temporary file.
func (b *Backup) Close() error {
	return errors.Join(b.fsm.close(), removeIfThere(b.path))
}
