package store

import (
	"errors"
	"fmt"
)

// ErrNotReady says why a replica cannot serve at the moment.
var ErrNotReady = errors.New("not ready")

// readyLag is how many entries behind what is committed a replica may be and still serve: what is under way.
const readyLag = memberLag

// Ready tells whether this replica can serve: it works, has a vote, knows who leads, and its state has caught up with what it
// knows to be committed; behind is how many entries it lacks. A leader is ready once it has applied all that was committed
// before its term. The error wraps ErrNotReady, or is why the store has stopped.
func (s *Store) Ready() (behind uint64, err error) {
	if err := s.Err(); err != nil {
		return 0, err
	}
	if s.fsm.restoring.Load() {
		return 0, fmt.Errorf("%w: the records are being restored from a snapshot", ErrNotReady)
	}
	members, err := s.Members()
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrNotReady, err)
	}
	voter := false
	for _, m := range members {
		voter = voter || m.ID == s.id && m.Voter
	}
	if !voter {
		return 0, fmt.Errorf("%w: not a member with a vote", ErrNotReady)
	}
	commit := s.raft.CommitIndex()
	if last := s.lastCommand(commit); last > s.AppliedIndex() {
		behind = last - s.AppliedIndex()
	}
	_, known := s.Leader()
	switch {
	case !known:
		return behind, fmt.Errorf("%w: no leader is known", ErrNotReady)
	case commit == 0:
		return behind, fmt.Errorf("%w: not yet told what is committed", ErrNotReady)
	case s.IsLeader() && !s.led(s.Term()):
		return behind, fmt.Errorf("%w: taking over the lead", ErrNotReady)
	case behind > readyLag:
		return behind, fmt.Errorf("%w: the records are %d entries behind", ErrNotReady, behind)
	}
	return behind, nil
}

// led tells whether this replica has led in term and applied all that was committed before.
func (s *Store) led(term uint64) bool {
	s.verifiedMu.Lock()
	defer s.verifiedMu.Unlock()
	return s.verified == term
}
