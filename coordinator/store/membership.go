package store

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// memberPoll is how often a joining replica is asked how far it is.
	memberPoll = 50 * time.Millisecond
	// memberLag is how many entries behind counts as caught up: what is under way.
	memberLag = 256
	// memberPatience is how long a joining replica may stand still.
	memberPatience = 30 * time.Second
	// probeTimeout bounds the question whether a replica is there.
	probeTimeout = 3 * time.Second
)

// mayAdd sees whether a replica may be added: it answers at the address, as itself, and nobody else has it. voter tells
// that it is a member with a vote already, done that it is one at this very address.
func (s *Store) mayAdd(ctx context.Context, id, address string) (voter, done bool, err error) {
	members, err := s.Members()
	if err != nil {
		return false, false, err
	}
	for _, m := range members {
		switch {
		case m.ID == id && m.Voter && m.Address == address:
			return true, true, nil
		case m.ID != id && m.Address == address:
			return false, false, fmt.Errorf("%w: replica %s has this address", ErrExists, m.ID)
		}
		voter = voter || m.ID == id && m.Voter
	}
	if !s.IsLeader() {
		return false, false, ErrNotLeader
	}
	return voter, false, s.meet(ctx, id, address)
}

// meet makes sure that the replica answers at the address before anything depends on it.
func (s *Store) meet(ctx context.Context, id, address string) error {
	if id == s.id {
		return nil
	}
	if _, err := s.probe(ctx, id, address); err != nil {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	if who := s.answered(address); who != "" && who != id {
		return fmt.Errorf("%w: replica %s answers there", ErrExists, who)
	}
	return nil
}

// answered is the id of the replica that answered last at an address; empty if it did not say.
func (s *Store) answered(address string) string {
	if s.layer == nil {
		return ""
	}
	return s.layer.answered(raft.ServerAddress(address))
}

// caughtUp waits until a replica's log ends near this one's.
func (s *Store) caughtUp(ctx context.Context, id, address string) error {
	tick := time.NewTicker(memberPoll)
	defer tick.Stop()
	var best uint64
	moved := time.Now()
	for {
		last, err := s.probe(ctx, id, address)
		if err == nil && last+memberLag >= s.raft.LastIndex() {
			return nil
		}
		if last > best {
			best, moved = last, time.Now()
		}
		if time.Since(moved) > memberPatience {
			return fmt.Errorf("%w: its log ends at %d for %s, this one at %d; it stays a member without a vote", ErrUnreachable, best, memberPatience, s.raft.LastIndex())
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w (its log ends at %d, this one at %d, %w)", ctx.Err(), best, s.raft.LastIndex(), err)
		case <-s.done:
			return ErrClosed
		}
		if !s.IsLeader() {
			return ErrNotLeader
		}
	}
}

// probe asks a replica where its log ends, by a heartbeat: its answer says so, and Raft keeps no such number where it can
// be read. It is not waited for longer than probeTimeout.
func (s *Store) probe(ctx context.Context, id, address string) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	self := raft.ServerID(s.id)
	addr := s.trans.EncodePeer(self, s.trans.LocalAddr())
	req := &raft.AppendEntriesRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(s.id), Addr: addr},
		Term:      s.raft.CurrentTerm(),
		Leader:    addr,
	}
	type answer struct {
		last uint64
		err  error
	}
	answers := make(chan answer, 1)
	if !s.spawn(func() {
		var resp raft.AppendEntriesResponse
		err := s.trans.AppendEntries(raft.ServerID(id), raft.ServerAddress(address), req, &resp)
		answers <- answer{resp.LastLog, err}
	}) {
		return 0, ErrClosed
	}
	select {
	case a := <-answers:
		return a.last, a.err
	case <-ctx.Done():
		return 0, fmt.Errorf("no answer within %s: %w", probeTimeout, ctx.Err())
	}
}

// Remove takes a member out. The last voter cannot go, and, unless force is set, none whose going would leave voters of
// which no majority answers. When the leader removes itself it steps down; the others elect another one. Leader only:
// ErrNotLeader, ErrNotFound, ErrState, ErrClosed or ctx's error.
func (s *Store) Remove(ctx context.Context, id string, force bool) error {
	members, err := s.Members()
	if err != nil {
		return err
	}
	found := false
	var rest []Member // voters
	for _, m := range members {
		switch {
		case m.ID == id:
			found = true
		case m.Voter:
			rest = append(rest, m)
		}
	}
	switch {
	case !s.IsLeader():
		return fmt.Errorf("remove member %s: %w", id, ErrNotLeader)
	case !found:
		return fmt.Errorf("remove member: %w: %q", ErrNotFound, id)
	case len(rest) == 0:
		return fmt.Errorf("remove member %s: %w: it is the last voter", id, ErrState)
	}
	if silent := s.silentOf(ctx, rest); !force && 2*(len(rest)-len(silent)) <= len(rest) {
		return fmt.Errorf("remove member %s: %w: of the %d voters that would remain, %v do not answer, and the cluster would stand still; bring them back or remove them first",
			id, ErrState, len(rest), silent)
	}
	if err := s.await(ctx, s.raft.RemoveServer(raft.ServerID(id), 0, 0)); err != nil {
		return fmt.Errorf("remove member %s: %w", id, err)
	}
	return nil
}

// silentOf asks the members at the same time and names those that do not answer.
func (s *Store) silentOf(ctx context.Context, members []Member) (silent []string) {
	quiet := make([]bool, len(members))
	var wg sync.WaitGroup
	for i, m := range members {
		if m.ID == s.id {
			continue
		}
		wg.Go(func() {
			_, err := s.probe(ctx, m.ID, m.Address)
			quiet[i] = err != nil
		})
	}
	wg.Wait()
	for i, m := range members {
		if quiet[i] {
			silent = append(silent, m.ID)
		}
	}
	return silent
}
