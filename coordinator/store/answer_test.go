package store

import (
	"errors"
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
