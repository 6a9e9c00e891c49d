package store

import (
	"errors"
	"io"
	"net"
	"syscall"

	"github.com/hashicorp/raft"
)

// TimeoutNow tells a replica to take over: the last step of a transfer of leadership.
func (n network) TimeoutNow(id raft.ServerID, to raft.ServerAddress, req *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	n.elect.Add(1)
	return redial(func() error { return n.NetworkTransport.TimeoutNow(id, to, req, resp) })
}

// RequestPreVote asks a replica whether it would vote for this one.
func (n network) RequestPreVote(id raft.ServerID, to raft.ServerAddress, req *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return redial(func() error { return n.NetworkTransport.RequestPreVote(id, to, req, resp) })
}

// RequestVote asks a replica for its vote.
func (n network) RequestVote(id raft.ServerID, to raft.ServerAddress, req *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return redial(func() error { return n.NetworkTransport.RequestVote(id, to, req, resp) })
}

// redial asks again where the connection turns out to be dead. Those that wait in the transport's pool die when the other
// replica restarts, and Raft, which would ask again only in its next election, loses a vote to each. What is asked in this way
// may be asked twice: a vote is given to the same candidate again.
func redial(ask func() error) (err error) {
	for range transportPool + 1 {
		if err = ask(); !dead(err) {
			return err
		}
	}
	return err
}

// dead tells whether an error says that the other side has gone.
func dead(err error) bool {
	for _, e := range []error{io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, syscall.EPIPE, syscall.ECONNRESET} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
