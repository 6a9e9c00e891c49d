package store

import (
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// network is Raft's network transport with pipelines that end by themselves, votes that are asked for again, and a memory of who
// was heard of.
type network struct {
	*raft.NetworkTransport
	// elect counts how often another replica was told to take over.
	elect *atomic.Uint64
	// confirmed is who takes this replica for the leader.
	confirmed *confirmations
}

// AppendEntriesPipeline opens a pipeline to a replica.
func (n network) AppendEntriesPipeline(id raft.ServerID, to raft.ServerAddress) (raft.AppendPipeline, error) {
	inner, err := n.NetworkTransport.AppendEntriesPipeline(id, to)
	if err != nil {
		return nil, err
	}
	p := &pipeline{AppendPipeline: inner, answers: make(chan raft.AppendFuture), closed: make(chan struct{})}
	go p.pass()
	return p, nil
}

// pipeline ends with the first answer that is not a success. Raft receives no more after such an
// answer, but may send once more. In the library's pipeline that send waits for ever: nothing is
// replicated to that replica any more, which hears heartbeats all the same and so calls no
// election, and Raft itself does not end (https://github.com/hashicorp/raft/issues/612). A send
// into a pipeline that has ended fails at once, and Raft goes on with single requests.
type pipeline struct {
	raft.AppendPipeline
	answers chan raft.AppendFuture
	closed  chan struct{}
	once    sync.Once
}

// Consumer is where answers come out.
func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.answers }

// Close ends the pipeline and its connection.
func (p *pipeline) Close() error {
	p.once.Do(func() { close(p.closed) })
	return p.AppendPipeline.Close()
}

// pass hands answers on until Close.
func (p *pipeline) pass() {
	for {
		select {
		case f := <-p.AppendPipeline.Consumer():
			// It has been answered: Error does not wait.
			if f.Error() != nil || !f.Response().Success {
				_ = p.AppendPipeline.Close() // only releases the connection
			}
			select {
			case p.answers <- f:
			case <-p.closed:
				return
			}
		case <-p.closed:
			return
		}
	}
}
