package store

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// TestOldAnswers: a leader that hears nothing for a while, is replaced, and then finds answers from before in its sockets does
// not take them for a confirmation that it leads: a read through it would miss what its successor has acknowledged. The network
// stands still around it, since a part of a process cannot be stopped.
func TestOldAnswers(t *testing.T) {
	wires := &wires{}
	c := newCluster(t, 3, func(cfg *Config) {
		cfg.Election = time.Second // for as long the old leader believes that it leads
		from := cfg.ID
		cfg.dialled = func(to string, conn net.Conn) net.Conn { return wires.between(from, to, conn) }
	})
	t.Cleanup(wires.heal)
	must(t, c, submit(1, "before", "local"))
	for range 20 {
		if c.oldAnswers(wires) {
			return
		}
		wires.heal()
		c.same()
	}
	t.Fatal("in no try was the leader replaced before it knew")
}

// oldAnswers is one try; false if the leader had given up before it could be asked.
func (c *cluster) oldAnswers(w *wires) bool {
	t := c.t
	old := c.leader()
	at := c.index(old)
	next, third := c.up[(at+1)%3], c.up[(at+2)%3]
	w.hold(old.ID())
	// A heartbeat to each of the others and a message in a pipeline to each.
	eventually(t, "four answers to wait", func() bool { return w.waiting() >= 4 || !old.IsLeader() })
	w.cut(old.ID(), old.Address())
	elect := raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}}
	if err := third.trans.TimeoutNow(raft.ServerID(next.ID()), raft.ServerAddress(next.Address()), &elect, &raft.TimeoutNowResponse{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a successor", func() bool { return next.IsLeader() && next.Barrier(t.Context()) == nil || !old.IsLeader() })
	if _, err := next.Apply(t.Context(), submit(2, "after", "local")); err != nil || !old.IsLeader() {
		return false
	}
	reads := make(chan error)
	for range 4 {
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			reads <- old.Linearizable(ctx)
		}()
	}
	w.release(20 * time.Millisecond)
	for range 4 {
		switch err := <-reads; {
		case err == nil:
			t.Errorf("the replaced leader confirmed that it leads, in term %d; its successor leads term %d and has acknowledged a job", old.Term(), next.Term())
		case !errors.Is(err, ErrNotLeader):
			t.Errorf("read through the replaced leader: %v, want ErrNotLeader", err)
		}
	}
	w.heal()
	c.same()
	return true
}

// wires is the network between replicas: it can hold back all answers to one of them, and lose what one sends and is sent.
type wires struct {
	mu    sync.Mutex
	all   []*wire
	held  string // replica whose answers wait
	alone string // replica that sends nothing
	at    string // its address: nothing is sent there
}

// wire is one connection.
type wire struct {
	net.Conn
	*wires
	from, to string
	gate     chan struct{} // set while an answer waits
}

func (w *wires) between(from, to string, c net.Conn) net.Conn {
	w.mu.Lock()
	defer w.mu.Unlock()
	wire := &wire{Conn: c, wires: w, from: from, to: to}
	w.all = append(w.all, wire)
	return wire
}

// Read gives an answer, which may have to wait.
func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if err != nil {
		return n, err
	}
	w.mu.Lock()
	var gate chan struct{}
	if w.held == w.from {
		gate = make(chan struct{})
		w.gate = gate
	}
	w.mu.Unlock()
	if gate != nil {
		<-gate
	}
	return n, nil
}

// Write sends, or loses.
func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	lost := w.alone != "" && (w.from == w.alone || w.to == w.at)
	w.mu.Unlock()
	if lost {
		return len(p), nil
	}
	return w.Conn.Write(p)
}

// hold lets all further answers to a replica wait.
func (w *wires) hold(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.held = id
}

// waiting counts the connections on which an answer waits.
func (w *wires) waiting() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, wire := range w.all {
		if wire.gate != nil {
			n++
		}
	}
	return n
}

// cut loses all that a replica sends and is sent from now on.
func (w *wires) cut(id, address string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.alone, w.at = id, address
}

// release lets the answers that wait pass, one after the other, so that each finds somebody who asks.
func (w *wires) release(every time.Duration) {
	w.mu.Lock()
	w.held = ""
	all := w.all
	w.mu.Unlock()
	for _, wire := range all {
		w.mu.Lock()
		gate := wire.gate
		wire.gate = nil
		w.mu.Unlock()
		if gate != nil {
			time.Sleep(every)
			close(gate)
		}
	}
}

// heal makes all connections work again; those on which something was lost are closed.
func (w *wires) heal() {
	w.release(0)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, wire := range w.all {
		if w.alone != "" && (wire.from == w.alone || wire.to == w.at) {
			_ = wire.Close()
		}
	}
	w.alone, w.at = "", ""
}

// TestConfirmations: only voters count, and only what they said of this term since the question.
func TestConfirmations(t *testing.T) {
	voters := func(ids ...string) (m []Member) {
		for _, id := range ids {
			m = append(m, Member{ID: id, Voter: id != "learner"})
		}
		return m
	}
	var c confirmations
	first := c.begin()
	c.note("b", 7, first)
	c.note("learner", 7, first)
	second := c.begin()
	c.note("c", 7, second)
	c.note("c", 7, first) // an answer that comes late takes nothing back
	c.note("d", 8, second)
	c.note("d", 7, second)
	for what, v := range map[string]struct {
		members     []Member
		term, round uint64
		want        bool
	}{
		"alone":                       {voters("a"), 7, second, true},
		"one of two":                  {voters("a", "b"), 7, first, true},
		"before the question":         {voters("a", "b"), 7, second, false},
		"since the question":          {voters("a", "b", "c"), 7, second, true},
		"of another term":             {voters("a", "c"), 8, second, false},
		"of a later term":             {voters("a", "d"), 7, second, false},
		"without a vote":              {voters("a", "x", "y", "learner"), 7, first, false},
		"learners need not agree":     {voters("a", "b", "x", "learner"), 7, first, true},
		"two of four":                 {voters("a", "b", "x", "y"), 7, first, false},
		"three of four":               {voters("a", "b", "c", "y"), 7, first, true},
		"nobody has said anything":    {voters("a", "x", "y"), 7, first, false},
		"this replica has no vote":    {voters("b", "x"), 7, first, false},
		"this replica is not counted": {voters("b"), 7, first, true},
	} {
		if got := c.majority(v.members, "a", v.term, v.round); got != v.want {
			t.Errorf("%s: majority is %v, want %v", what, got, v.want)
		}
	}
}

// BenchmarkLinearizable is the price of a fresh read, one exchange with a majority, and beside it that of Raft's question alone,
// which does not do: in a quiet cluster, and while commands are committed.
func BenchmarkLinearizable(b *testing.B) {
	for _, writers := range []int{0, 16} {
		for name, read := range map[string]func(context.Context, *Store) error{
			"fresh":    func(ctx context.Context, s *Store) error { return s.Linearizable(ctx) },
			"question": func(ctx context.Context, s *Store) error { return s.await(ctx, s.raft.VerifyLeader()) },
		} {
			b.Run(fmt.Sprintf("writers=%d/%s", writers, name), func(b *testing.B) {
				c := newCluster(b, 3, nil)
				l := c.leader()
				ctx, cancel := context.WithCancel(b.Context())
				var writing sync.WaitGroup
				for i := range writers {
					writing.Go(func() {
						for n := 0; ctx.Err() == nil; n++ {
							_, _ = l.Apply(ctx, submit(int64(n), fmt.Sprintf("job-%d-%d", i, n), "local"))
						}
					})
				}
				for b.Loop() {
					if err := read(ctx, l); err != nil {
						b.Fatal(err)
					}
				}
				cancel()
				writing.Wait()
			})
		}
	}
}
