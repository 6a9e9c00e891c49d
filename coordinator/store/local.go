package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// Local is the state machine alone, without Raft: what is applied is there at once, and nowhere else. It is for
// simulations and tests, which need the real rules but no replicas. Its methods may be called concurrently.
type Local struct {
	fsm *fsm

	mu    sync.Mutex
	index uint64
}

// OpenLocal begins an empty state in dir.
func OpenLocal(dir string) (*Local, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open local state: %w", diskError(err))
	}
	path := filepath.Join(dir, "state.db")
	db, _, applied, err := openState(path)
	if err != nil {
		return nil, err
	}
	f, err := newFSM(path, db, defaultSnapshotBytes)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &Local{fsm: f, index: applied}, nil
}

// Apply applies the commands as one entry and returns a result for each.
func (l *Local) Apply(ctx context.Context, cmds ...*v1.Command) ([]Result, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	// Through the encoding, as a log entry goes: no record is shared with the caller.
	data, err := proto.Marshal(&v1.Command{Op: &v1.Command_Batch{Batch: &v1.Batch{Commands: cmds}}})
	if err != nil {
		return nil, fmt.Errorf("%w: encode commands: %w", ErrInvalid, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.index++
	r := l.fsm.Apply(&raft.Log{Index: l.index, Type: raft.LogCommand, Data: data}).(*reply)
	return r.results, r.err
}

// View runs f on the state.
func (l *Local) View(f func(*View) error) error {
	return l.fsm.view(func(t *txn) error { return f(&View{t}) })
}

// Subscribe tells of changes until cancel is called; what a slow reader misses is merged.
func (l *Local) Subscribe() (changes <-chan Change, cancel func()) { return l.fsm.hub.subscribe() }

// Close closes the state file.
func (l *Local) Close() error {
	l.fsm.hub.close()
	return l.fsm.close()
}
