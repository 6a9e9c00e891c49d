package store

import (
	"sync"
	"testing"

	"github.com/hashicorp/raft"
)

// TestRedial: a replica that has restarted is reached at the first try, though the connections to it that wait are dead.
func TestRedial(t *testing.T) {
	c := newCluster(t, 3, nil)
	l := c.index(c.leader())
	from, at := c.up[(l+1)%3].trans, (l+2)%3
	id, to := raft.ServerID(c.up[at].ID()), raft.ServerAddress(c.up[at].Address())
	header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}
	// Of a term long past: refused, without consequences.
	pre := func() error {
		return from.(network).RequestPreVote(id, to, &raft.RequestPreVoteRequest{RPCHeader: header}, &raft.RequestPreVoteResponse{})
	}
	for what, ask := range map[string]func() error{
		"would it vote": pre,
		"its vote": func() error {
			return from.RequestVote(id, to, &raft.RequestVoteRequest{RPCHeader: header}, &raft.RequestVoteResponse{})
		},
		"to take over": func() error {
			return from.TimeoutNow(id, to, &raft.TimeoutNowRequest{RPCHeader: header}, &raft.TimeoutNowResponse{})
		},
	} {
		var filling sync.WaitGroup // with connections
		for range transportPool {
			filling.Go(func() {
				if err := pre(); err != nil {
					t.Errorf("before the restart: %v", err)
				}
			})
		}
		filling.Wait()
		c.stop(at)
		c.start(at)
		if err := ask(); err != nil {
			t.Errorf("%s, after its restart: %v", what, err)
		}
		c.same()
	}
}
