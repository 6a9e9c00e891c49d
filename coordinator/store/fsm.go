package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"google.golang.org/protobuf/proto"

	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// reply is what the FSM hands back for one entry. err is set when the state file
// failed: the entry is committed, and is applied when the store is opened again.
type reply struct {
	results []Result
	err     error
}

// fsm is raft's view of the state: three thin methods around the applier.
type fsm struct {
	path string
	hub  *hub
	// onFail is told of the first failure of the state file.
	onFail func(error)
	// restored and persisted are told of snapshots read and written.
	restored  func()
	persisted func(time.Duration)

	// mu lets Restore exchange the state file under readers.
	mu sync.RWMutex
	db *bolt.DB

	applied *mark
	growth  *growth
	// restoring: a snapshot is replacing the state. unrestored is why the last one did not; it is Raft's goroutine's.
	restoring  atomic.Bool
	unrestored error

	failMu sync.Mutex
	failed error
}

var (
	_ raft.FSM         = (*fsm)(nil)
	_ raft.BatchingFSM = (*fsm)(nil)
)

func newFSM(path string, db *bolt.DB, snapshotBytes int64) (*fsm, error) {
	f := &fsm{path: path, db: db, hub: newHub(), applied: newMark(), growth: newGrowth(snapshotBytes), onFail: func(error) {},
		restored: func() {}, persisted: func(time.Duration) {}}
	err := db.View(func(tx *bolt.Tx) (err error) {
		defer catch(&err)
		f.applied.advance((&txn{tx: tx}).applied())
		return nil
	})
	return f, err
}

// Apply applies one committed entry.
func (f *fsm) Apply(l *raft.Log) any {
	return f.ApplyBatch([]*raft.Log{l})[0]
}

// ApplyBatch applies committed entries in one transaction, with the applied index
// in it. Entries at or below the applied index are passed over.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	replies := make([]*reply, len(logs))
	changed, err := f.applyAll(logs, replies)
	if err != nil {
		f.fail(err)
	}
	out := make([]any, len(logs))
	for i, r := range replies {
		if r == nil || err != nil {
			r = &reply{err: err}
		}
		out[i] = r
	}
	if err == nil && changed.Index > 0 {
		f.applied.advance(changed.Index)
		f.hub.publish(changed)
	}
	return out
}

func (f *fsm) applyAll(logs []*raft.Log, replies []*reply) (done Change, err error) {
	if err := f.failure(); err != nil {
		return done, err
	}
	err = f.db.Update(func(tx *bolt.Tx) (err error) {
		t := &txn{tx: tx, held: map[string]*heldJob{}}
		var at uint64
		defer func() {
			if err != nil {
				err = fmt.Errorf("apply entry %d: %w", at, err)
			}
		}()
		defer catch(&err)
		applied := t.applied()
		for i, l := range logs {
			if l.Type != raft.LogCommand || l.Index <= applied {
				continue
			}
			at = l.Index
			cmd := new(v1.Command)
			if err := proto.Unmarshal(l.Data, cmd); err != nil {
				// Every replica has these bytes: going on would make them differ.
				panic(fmt.Sprintf("store: committed log entry %d cannot be decoded: %v", l.Index, err))
			}
			replies[i] = &reply{results: applyEntry(t, cmd)}
			applied = l.Index
			done.Index = l.Index
		}
		if done.Index > 0 {
			t.flush()
			t.setApplied(done.Index)
		}
		done.Jobs, done.Cluster = t.touched(), t.other
		f.growth.add(logs, tx.Size())
		return nil
	})
	if err != nil {
		return Change{}, fmt.Errorf("%w: state %s: %w", ErrFailed, f.path, diskError(err))
	}
	return done, nil
}

func (f *fsm) failure() error {
	f.failMu.Lock()
	defer f.failMu.Unlock()
	return f.failed
}

func (f *fsm) fail(err error) {
	f.failMu.Lock()
	first := f.failed == nil
	if first {
		f.failed = err
	}
	f.failMu.Unlock()
	if first {
		f.onFail(err)
	}
}

// Snapshot takes a read transaction: the state as of now, without I/O.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	if err := f.failure(); err != nil {
		return nil, err
	}
	snap, err := f.snapshot()
	if err != nil {
		return nil, err
	}
	snap.persisted = f.persisted
	return snap, nil
}

func (f *fsm) snapshot() (*snapshot, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	tx, err := f.db.Begin(false)
	if errors.Is(err, berrors.ErrDatabaseNotOpen) {
		return nil, ErrClosed
	}
	if err != nil {
		return nil, fmt.Errorf("begin snapshot: %w", err)
	}
	return &snapshot{tx: tx, dir: filepath.Dir(f.path)}, nil
}

// size is how much of the state file is in use.
func (f *fsm) size() int64 { return boltSize(f.view0) }

func (f *fsm) view0(fn func(*bolt.Tx) error) error {
	return f.view(func(t *txn) error { return fn(t.tx) })
}

// Restore replaces the state by a snapshot's.
func (f *fsm) Restore(r io.ReadCloser) (err error) {
	defer r.Close()
	defer func() { f.unrestored = err }()
	f.restoring.Store(true)
	defer f.restoring.Store(false)
	next := f.path + ".new"
	if err := receiveState(r, next); err != nil {
		_ = os.Remove(next) // a full disk needs the room; it may not be there
		return fmt.Errorf("restore state: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.db.Close(); err != nil {
		return fmt.Errorf("restore state: close the old one: %w", err)
	}
	db, err := exchangeState(f.path, next)
	if err != nil {
		f.fail(fmt.Errorf("%w: restore state: %w", ErrFailed, err))
		return err
	}
	f.db = db
	f.restored()
	return db.View(func(tx *bolt.Tx) (err error) {
		defer catch(&err)
		index := (&txn{tx: tx}).applied()
		f.applied.reset(index)
		f.hub.publish(Change{Index: index, All: true})
		return nil
	})
}

// view runs fn on one consistent state.
func (f *fsm) view(fn func(*txn) error) error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	err := f.db.View(func(tx *bolt.Tx) (err error) {
		defer catch(&err)
		return fn(&txn{tx: tx})
	})
	if errors.Is(err, berrors.ErrDatabaseNotOpen) {
		return ErrClosed
	}
	return err
}

func (f *fsm) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.db.Close()
}
