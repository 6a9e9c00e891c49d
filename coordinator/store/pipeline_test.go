package store

import (
	"errors"
	"io"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/goleak"
)

// TestPipelineEnds: when an answer is no success, its reader goes away, as Raft does; sends must not wait for it.
func TestPipelineEnds(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	for name, answer := range map[string]func(raft.RPC){
		"refused":      func(r raft.RPC) { r.Respond(&raft.AppendEntriesResponse{Term: 9}, nil) },
		"failed":       func(r raft.RPC) { r.Respond(&raft.AppendEntriesResponse{}, errors.New("no")) },
		"failed later": func(r raft.RPC) { r.Respond(&raft.AppendEntriesResponse{Success: true}, errors.New("no")) },
	} {
		t.Run(name, func(t *testing.T) {
			here, there := tcp(t), tcp(t)
			done := make(chan struct{})
			defer close(done)
			go func() {
				good := 3
				for {
					select {
					case rpc := <-there.Consumer():
						if good--; good >= 0 {
							rpc.Respond(&raft.AppendEntriesResponse{Success: true}, nil)
						} else {
							answer(rpc)
						}
					case <-done:
						return
					}
				}
			}()
			p, err := network{NetworkTransport: here}.AppendEntriesPipeline("there", there.LocalAddr())
			if err != nil {
				t.Fatal(err)
			}
			answers := make(chan int, 1)
			go func() {
				n := 0
				for f := range p.Consumer() {
					if n++; f.Error() != nil || !f.Response().Success {
						answers <- n
						return
					}
				}
			}()
			sent := make(chan error, 1)
			go func() {
				for range 100 {
					req := &raft.AppendEntriesRequest{Term: 1}
					if _, err := p.AppendEntries(req, new(raft.AppendEntriesResponse)); err != nil {
						sent <- err
						return
					}
				}
				sent <- nil
			}()
			select {
			case err := <-sent:
				if err == nil {
					t.Error("a hundred sends after the pipeline's end")
				}
			case <-time.After(20 * time.Second):
				t.Fatal("a send waits for ever")
			}
			if n := <-answers; n != 4 {
				t.Errorf("answer %d was the last, want the fourth", n)
			}
			if err := errors.Join(p.Close(), p.Close()); err != nil {
				t.Error(err)
			}
		})
	}
}

// tcp is a transport of Raft's own on a port of its own.
func tcp(t *testing.T) *raft.NetworkTransport {
	t.Helper()
	n, err := raft.NewTCPTransport("127.0.0.1:0", nil, 1, 10*time.Second, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	return n
}
