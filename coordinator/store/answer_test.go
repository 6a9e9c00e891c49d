package store

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// silentFuture is one that Raft has forgotten.
type silentFuture struct{ answer chan error }

func (f silentFuture) Error() error { return <-f.answer }

// TestAForgottenFuture: Raft forgets the futures that wait for its FSM's goroutine when it ends. Nobody may wait for them for
// ever: a replica with a full disk hung so instead of ending.
func TestAForgottenFuture(t *testing.T) {
	ended := make(chan struct{})
	f := silentFuture{make(chan error)}
	defer close(f.answer)
	got := make(chan error, 1)
	go func() { got <- answerOf(f, ended) }()
	select {
	case err := <-got:
		t.Fatalf("answered before Raft ended: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	close(ended)
	if err := <-got; !errors.Is(err, raft.ErrRaftShutdown) {
		t.Errorf("got %v", err)
	}
	// An answer that is there counts, also after the end.
	known := silentFuture{make(chan error, 1)}
	known.answer <- nil
	if err := answerOf(known, ended); err != nil {
		t.Errorf("got %v", err)
	}
}

// TestCloseWithForgottenEntries closes a store whose state lags behind: of the entries that are committed and wait for it
// Raft forgets some when it stops, and never answers those who wait for them.
func TestCloseWithForgottenEntries(t *testing.T) {
	s := open(t, testConfig(t.TempDir()))
	tx, err := s.fsm.db.Begin(true) // keeps the state from applying anything
	if err != nil {
		t.Fatal(err)
	}
	const waiting = 40
	before := s.raft.LastIndex()
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := s.Apply(t.Context(), submit(1, "job", "local")); err != nil && !errors.Is(err, ErrUncertain) {
			t.Errorf("apply: %v, want a result or ErrUncertain", err)
		}
	})
	for range waiting {
		wg.Go(func() {
			if err := s.Barrier(t.Context()); err != nil && !errors.Is(err, ErrClosed) && !errors.Is(err, ErrNotLeader) {
				t.Errorf("barrier: %v, want nil, ErrClosed or ErrNotLeader", err)
			}
		})
	}
	eventually(t, "all are committed", func() bool { return s.raft.CommitIndex() >= before+waiting+1 })
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	eventually(t, "raft stops", func() bool { return s.raft.State() == raft.Shutdown })
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("Close hangs")
	}
	wg.Wait()
}

// TestCommitErrorNamesCause: a store that a failed write has stopped says so whatever Raft makes of it.
func TestCommitErrorNamesCause(t *testing.T) {
	c := &committer{cause: func() error { return ErrFull }}
	for _, raftsOwn := range []error{raft.ErrNotLeader, raft.ErrLeadershipLost, raft.ErrRaftShutdown} {
		if err := c.commitError(raftsOwn); !errors.Is(err, ErrFull) || errors.Is(err, ErrNotLeader) != errors.Is(raftsOwn, raft.ErrNotLeader) {
			t.Errorf("%v became %v", raftsOwn, err)
		}
	}
}
