package store

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// verifyLeader returns nil when a majority of the voters took this replica for the leader of term at some moment after the
// call began: then no other one led before the call, and what is committed here is all there is. ErrNotLeader, ErrClosed or
// ctx's error.
//
// Raft's own question, which makes it send heartbeats at once, is not enough: it counts every answer that comes in after it,
// also to what was sent before. A leader that was stopped for a while, and replaced, would believe answers that have waited
// in its sockets. So it is repeated until there are answers to messages that were sent after the call.
func (s *Store) verifyLeader(ctx context.Context, term uint64) error {
	round := s.confirmed.begin()
	for {
		if err := s.await(ctx, s.raft.VerifyLeader()); err != nil {
			return err
		}
		if s.raft.CurrentTerm() != term {
			return ErrNotLeader
		}
		members, err := s.Members()
		if err != nil {
			return err
		}
		if s.confirmed.majority(members, s.id, term, round) {
			return nil
		}
	}
}

// confirmations is which replicas have taken this one for the leader, and how lately. Time goes in rounds: one begins with
// each question, and an answer counts for the round in which its message was sent.
type confirmations struct {
	round atomic.Uint64

	mu sync.Mutex
	by map[string]confirmation
}

// confirmation is the latest one of a replica.
type confirmation struct{ term, round uint64 }

// begin starts a round and returns it.
func (c *confirmations) begin() uint64 { return c.round.Add(1) }

// note keeps that a replica took this one for the leader of term when it got a message that was sent in round.
func (c *confirmations) note(id string, term, round uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by == nil {
		c.by = map[string]confirmation{}
	}
	if was := c.by[id]; was.term > term || was.term == term && was.round >= round {
		return
	}
	c.by[id] = confirmation{term: term, round: round}
}

// majority tells whether self and those who have confirmed term in round or later are most of the voters.
func (c *confirmations) majority(members []Member, self string, term, round uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	voters, agree := 0, 0
	for _, m := range members {
		if !m.Voter {
			continue
		}
		voters++
		if got := c.by[m.ID]; m.ID == self || got.term == term && got.round >= round {
			agree++
		}
	}
	return agree > voters/2
}

// AppendEntries sends a heartbeat, or entries outside a pipeline, and keeps whether the other replica takes this one for the
// leader. Answers in a pipeline are left out: a question is always followed by a heartbeat.
func (n network) AppendEntries(id raft.ServerID, to raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	round := n.confirmed.round.Load()
	if err := n.NetworkTransport.AppendEntries(id, to, req, resp); err != nil {
		return err
	}
	if resp.Success {
		n.confirmed.note(string(id), req.Term, round)
	}
	return nil
}
