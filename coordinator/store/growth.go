package store

import (
	"math/rand/v2"
	"sync"

	"github.com/hashicorp/raft"
)

// growth measures the log by its bytes: entries hold from one to hundreds of commands, so that their number says little of
// how long it takes to apply them again.
type growth struct {
	// least is how many bytes make a snapshot due while the state is small.
	least int64
	// due gets a token when a snapshot is due.
	due chan struct{}

	mu      sync.Mutex
	limit   int64 // by now
	bytes   int64 // of entries applied since the last snapshot
	entries int64
	trail   uint64 // entries that may stay behind the next snapshot
}

// statePerLog is how many times as large as the log, since the last snapshot, the state may be before a snapshot must wait:
// writing one takes as long as the state is large.
const statePerLog = 8

func newGrowth(least int64) *growth {
	return &growth{least: least, limit: least, due: make(chan struct{}, 1)}
}

// add counts entries applied to a state of some size.
func (g *growth) add(logs []*raft.Log, state int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, l := range logs {
		g.bytes += int64(len(l.Data))
	}
	g.entries += int64(len(logs))
	if g.bytes < max(g.limit, state/statePerLog) {
		return
	}
	// Not at the very moment when the other replicas do: each has its own.
	g.limit = g.least/4*3 + rand.N(g.least/2+1)
	g.trail = max(uint64(g.entries)/2, 1)
	g.bytes, g.entries = 0, 0
	select {
	case g.due <- struct{}{}:
	default:
	}
}

// trailing is how many of the newest entries come to about half of what makes a snapshot due.
func (g *growth) trailing() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.trail
}

// keepShort takes a snapshot whenever one is due by the log's bytes, and bounds what stays in the log after it likewise.
// Raft's own rule, by the number of entries, holds besides.
func (s *Store) keepShort() {
	for {
		select {
		case <-s.done:
			return
		case <-s.fsm.growth.due:
		}
		conf := s.raft.ReloadableConfig()
		conf.TrailingLogs = min(s.cfg.TrailingLogs, s.fsm.growth.trailing())
		err := s.raft.ReloadConfig(conf)
		if err == nil {
			err = s.Snapshot()
		}
		if err != nil && s.Err() == nil {
			s.log.Warn().Err(err).Msg("snapshot not taken, trying again when the log has grown")
		}
	}
}
