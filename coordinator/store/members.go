package store

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// Member is one replica of the cluster.
type Member struct {
	ID      string
	Address string
	// Voter: its vote counts, and what it has is part of a majority. One that is no
	// voter yet is catching up.
	Voter  bool
	Leader bool
}

// Members lists the replicas as this one knows them, in the order they were added.
func (s *Store) Members() ([]Member, error) {
	f := s.raft.GetConfiguration()
	if err := f.Error(); err != nil {
		return nil, fmt.Errorf("list members: %w", s.raftError(err))
	}
	_, leader := s.raft.LeaderWithID()
	var out []Member
	for _, m := range f.Configuration().Servers {
		out = append(out, Member{
			ID: string(m.ID), Address: string(m.Address), Voter: m.Suffrage == raft.Voter, Leader: m.ID == leader,
		})
	}
	return out, nil
}

// Add makes a replica, which was opened without Bootstrap, a member: first without a
// vote, until it has caught up, then with one. One that does not answer is not added at all. It is
// safe to repeat: after an error the replica may be a member without a vote, and the next Add goes
// on. With another address it moves a member. Leader only: ErrNotLeader, ErrClosed, ctx's error, ErrUnreachable,
// ErrExists when another member has the address or another replica answers there, or ErrConfig when this replica
// listens nowhere.
func (s *Store) Add(ctx context.Context, id, address string) error {
	if s.cfg.Address == "" {
		return fmt.Errorf("add member %s: %w: Address is empty, this replica listens nowhere", id, ErrConfig)
	}
	if err := (Config{Dir: "-", ID: id, Address: address}).Validate(); err != nil || id == "" || address == "" {
		return fmt.Errorf("add member: %w: id %q at %q, want an id and host:port", ErrConfig, id, address)
	}
	voter, done, err := s.mayAdd(ctx, id, address)
	if err != nil {
		return fmt.Errorf("add member %s at %s: %w", id, address, err)
	}
	if done {
		return nil
	}
	if !voter {
		f := s.raft.AddNonvoter(raft.ServerID(id), raft.ServerAddress(address), 0, 0)
		if err := s.await(ctx, f); err != nil {
			return fmt.Errorf("add member %s: %w", id, err)
		}
		if err := s.caughtUp(ctx, id, address); err != nil {
			return fmt.Errorf("add member %s: wait until it has caught up: %w", id, err)
		}
		if s.cfg.BeforeVote != nil {
			if err := s.cfg.BeforeVote(ctx, id); err != nil {
				return fmt.Errorf("add member %s: prepare it for a vote: %w", id, err)
			}
		}
	}
	if err := s.await(ctx, s.raft.AddVoter(raft.ServerID(id), raft.ServerAddress(address), 0, 0)); err != nil {
		return fmt.Errorf("add member %s: %w", id, err)
	}
	return nil
}

// Transfer hands leadership to a voter, or to whichever is best prepared when id is
// empty. Leader only: ErrNotLeader, ErrNotFound, ErrState, ErrClosed or ctx's error.
func (s *Store) Transfer(ctx context.Context, id string) error {
	members, err := s.Members()
	if err != nil {
		return err
	}
	if id == "" {
		return s.transfer(ctx, id, s.raft.LeadershipTransfer)
	}
	for _, m := range members {
		switch {
		case m.ID != id:
			continue
		case id == s.id && s.IsLeader():
			return nil
		case !m.Voter:
			return fmt.Errorf("transfer leadership to %s: %w: it has no vote", id, ErrState)
		}
		return s.transfer(ctx, id, func() raft.Future {
			return s.raft.LeadershipTransferToServer(raft.ServerID(id), raft.ServerAddress(m.Address))
		})
	}
	return fmt.Errorf("transfer leadership: %w: %q", ErrNotFound, id)
}

func (s *Store) transfer(ctx context.Context, id string, begin func() raft.Future) error {
	term := s.Term()
	if wait := s.handovers.wait(id, term); wait > 0 {
		return fmt.Errorf("transfer leadership: %w: an earlier transfer still waits for a replica that does not catch up, try again in %s or name another one",
			ErrState, wait.Round(time.Second))
	}
	told, begun := s.handovers.elect.Load(), time.Now()
	if err := s.await(ctx, begin()); err != nil {
		waited := ctx.Err() != nil || time.Since(begun) >= s.cfg.Election
		if waited && s.handovers.elect.Load() == told {
			s.handovers.abandoned(id, term)
		}
		return fmt.Errorf("transfer leadership: %w", err)
	}
	return nil
}

// handovers keeps a transfer from being begun while an earlier one to the same replica still
// waits for it to catch up. Raft's second one would refuse all writes for as long, and should
// leadership be lost meanwhile, also whenever this replica leads again
// (https://github.com/hashicorp/raft/issues/696).
type handovers struct {
	// elect counts how often another replica was told to take over, for which it has caught up.
	elect atomic.Uint64

	mu   sync.Mutex
	to   string // "" may be any
	term uint64
	at   time.Time
}

// handoverPause is longer than a replica that is stuck holds up what is replicated to it.
const handoverPause = time.Minute

// wait is how long not to begin a transfer.
func (h *handovers) wait(to string, term uint64) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.term != term || to != h.to && to != "" && h.to != "" {
		return 0
	}
	return handoverPause - time.Since(h.at)
}

// abandoned remembers a transfer that ended before the replica had caught up.
func (h *handovers) abandoned(to string, term uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.to, h.term, h.at = to, term, time.Now()
}

// onLead runs when this replica begins to lead: if it listens elsewhere than the others
// were told, it tells them.
func (s *Store) onLead() {
	members, err := s.Members()
	if err != nil {
		return // closing
	}
	address := s.trans.LocalAddr()
	for _, m := range members {
		if m.ID == s.id && m.Address != string(address) {
			s.log.Info().Str("from", m.Address).Str("to", string(address)).Msg("replica has a new address")
			if err := answerOf(s.raft.AddVoter(raft.ServerID(s.id), address, 0, 0), s.raftEnded); err != nil {
				s.log.Warn().Err(err).Msg("new address not recorded, trying again with the next leadership")
			}
		}
	}
}

// Status is how a replica is, for people and metrics.
type Status struct {
	ID, Leader                string
	State                     string
	Term                      uint64
	CommitIndex, AppliedIndex uint64
	FirstLog, LastLog         uint64
	LogBytes, StateBytes      int64
	SinceLeader               time.Duration
	Members                   []Member
	Err                       error
}

// Status reads it all from memory.
func (s *Store) Status() Status {
	first, _ := s.logs.FirstIndex() // from memory, no error
	last, _ := s.logs.LastIndex()
	leader, _ := s.Leader()
	members, _ := s.Members() // none while closing
	st := Status{
		ID: s.id, Leader: leader, State: s.raft.State().String(), Term: s.Term(),
		CommitIndex: s.raft.CommitIndex(), AppliedIndex: s.AppliedIndex(),
		FirstLog: first, LastLog: last, Members: members, Err: s.Err(),
	}
	st.LogBytes, st.StateBytes = s.logs.size(), s.fsm.size()
	if at := s.raft.LastContact(); !at.IsZero() && !s.IsLeader() {
		st.SinceLeader = time.Since(at)
	}
	return st
}

// Address is where the other replicas reach this one; "local" when it listens nowhere.
func (s *Store) Address() string { return string(s.trans.LocalAddr()) }
