package files

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/iotest"
	"time"
)

// node is a replica in this process: a store, its replicator, and itself as a peer.
type node struct {
	id    string
	store *Store
	rep   *Replicator

	mu sync.Mutex
	// down: it does not answer. short: transfers from it break off.
	down, short bool
	all         *cluster
}

// cluster is the nodes that there are: peers still read it in the background while a test adds one.
type cluster struct {
	mu    sync.Mutex
	nodes map[string]*node
}

func (c *cluster) add(n *node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n.all = c
	c.nodes[n.id] = n
}

func (c *cluster) get(id string) *node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nodes[id]
}

var errDown = errors.New("replica is down")

func newNodes(t *testing.T, n int) []*node {
	t.Helper()
	all := &cluster{nodes: map[string]*node{}}
	var out []*node
	for i := range n {
		x := &node{id: string(rune('a' + i)), store: open(t)}
		all.add(x)
		out = append(out, x)
	}
	for _, x := range out {
		rep, err := NewReplicator(ReplicatorConfig{Store: x.store, Self: x.id, Peers: x.peers, Unused: time.Nanosecond})
		if err != nil {
			t.Fatal(err)
		}
		x.rep = rep
		t.Cleanup(rep.Close)
	}
	return out
}

func (n *node) peers() (out []Peer) {
	for _, id := range []string{"a", "b", "c", "d", "e"} {
		if p := n.all.get(id); p != nil && p != n {
			out = append(out, p)
		}
	}
	return out
}

func (n *node) ID() string { return n.id }

func (n *node) set(down, short bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down, n.short = down, short
}

func (n *node) state() (down, short bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.down, n.short
}

func (n *node) Hold(ctx context.Context, refs []Ref, from string) ([]string, error) {
	if down, _ := n.state(); down {
		return nil, errDown
	}
	missing, _ := n.rep.Hold(ctx, refs, n.all.get(from))
	return missing, nil
}

func (n *node) Fetch(_ context.Context, hash string, offset int64) (io.ReadCloser, error) {
	down, short := n.state()
	if down {
		return nil, errDown
	}
	f, err := n.store.Open(hash)
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return nil, err
	}
	if short {
		cut := io.MultiReader(io.LimitReader(f, 10), iotest.ErrReader(errDown))
		return struct {
			io.Reader
			io.Closer
		}{cut, f}, nil
	}
	return f, nil
}

func holders(nodes []*node, hash string) (out []string) {
	for _, n := range nodes {
		if n.store.Has(hash) {
			out = append(out, n.id)
		}
	}
	return out
}

func TestMajority(t *testing.T) {
	data := content(1, 100)
	ref := refOf(data)
	nowhere := refOf(content(2, 50))
	cases := []struct {
		name    string
		nodes   int
		at      int // who has the file at first; -1: nobody
		down    []int
		short   []int
		refs    []Ref
		missing []string
		err     error
		atLeast int // holders afterwards
	}{
		{"alone", 1, 0, nil, nil, []Ref{ref}, nil, nil, 1},
		{"three", 3, 0, nil, nil, []Ref{ref}, nil, nil, 2},
		{"one down", 3, 0, []int{1}, nil, []Ref{ref}, nil, nil, 2},
		{"two of three down", 3, 0, []int{1, 2}, nil, []Ref{ref}, nil, ErrNoMajority, 1},
		{"two of five down", 5, 0, []int{1, 2}, nil, []Ref{ref}, nil, nil, 3},
		{"not here, but there", 3, 2, nil, nil, []Ref{ref}, nil, nil, 2},
		{"nowhere", 3, -1, nil, nil, []Ref{ref}, []string{ref.Hash}, nil, 0},
		{"one of two nowhere", 3, 0, nil, nil, []Ref{nowhere, ref}, []string{nowhere.Hash}, nil, 2},
		{"transfers break off", 3, 0, nil, []int{0}, []Ref{ref}, []string{ref.Hash}, nil, 1},
		{"no hash", 3, 0, nil, nil, []Ref{{Hash: "x"}}, nil, ErrHash, 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			nodes := newNodes(t, c.nodes)
			if c.at >= 0 {
				put(t, nodes[c.at].store, data)
			}
			for _, i := range c.down {
				nodes[i].set(true, false)
			}
			for _, i := range c.short {
				nodes[i].set(false, true)
			}
			missing, err := nodes[0].rep.Majority(t.Context(), c.refs)
			if !errors.Is(err, c.err) || !slices.Equal(missing, c.missing) {
				t.Fatalf("missing %v, %v; want %v, %v", missing, err, c.missing, c.err)
			}
			if h := holders(nodes, ref.Hash); len(h) < c.atLeast {
				t.Errorf("held by %v, want at least %d", h, c.atLeast)
			}
		})
	}
}

// TestTransferResumes: one that breaks off again and again still arrives.
func TestTransferResumes(t *testing.T) {
	nodes := newNodes(t, 2)
	data := content(3, 95)
	ref := put(t, nodes[0].store, data)
	nodes[0].set(false, true) // ten bytes at a time
	tries := 0
	for !nodes[1].store.Has(ref.Hash) && tries < 20 {
		tries++
		_ = nodes[1].rep.Fetch(t.Context(), ref) // breaks off
	}
	if tries != 10 {
		t.Errorf("%d transfers for 95 bytes, want 10", tries)
	}
	if got := read(t, nodes[1].store, ref.Hash); !bytes.Equal(got, data) {
		t.Error("other content arrived")
	}
}

// TestMajorityIsRemembered: a hash that a majority holds costs no further question, until
// the cluster changes.
func TestMajorityIsRemembered(t *testing.T) {
	nodes := newNodes(t, 3)
	ref := put(t, nodes[0].store, content(1, 10))
	ask := func() error {
		_, err := nodes[0].rep.Majority(t.Context(), []Ref{ref})
		return err
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	nodes[1].set(true, false)
	nodes[2].set(true, false)
	if err := ask(); err != nil {
		t.Errorf("asked again: %v", err)
	}
	fourth := &node{id: "d", store: open(t), down: true}
	nodes[0].all.add(fourth)
	if err := ask(); !errors.Is(err, ErrNoMajority) {
		t.Errorf("with a voter more: %v, want ErrNoMajority", err)
	}
}

// TestRepair: a damaged file is found, set aside and fetched again; what was dropped goes;
// what is nowhere is named.
func TestRepair(t *testing.T) {
	nodes := newNodes(t, 3)
	good, old := content(1, 500), content(2, 500)
	for _, n := range nodes[:2] {
		put(t, n.store, good)
		put(t, n.store, old)
	}
	path, err := nodes[0].store.Path(refOf(good).Hash)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, good[:499], 0o600); err != nil {
		t.Fatal(err)
	}
	found, err := nodes[0].store.Scrub(t.Context(), 0)
	if err != nil || !slices.Equal(found.Damaged, []string{refOf(good).Hash}) {
		t.Fatalf("%+v, %v", found, err)
	}
	nowhere := refOf(content(9, 9))
	got, err := nodes[0].rep.Sync(t.Context(), []Ref{refOf(good), nowhere}, []string{refOf(old).Hash, nowhere.Hash})
	if err != nil || !slices.Equal(got.Fetched, []string{refOf(good).Hash}) || !slices.Equal(got.Lost, []string{nowhere.Hash}) || !slices.Equal(got.Removed, []string{refOf(old).Hash}) {
		t.Fatalf("%+v, %v", got, err)
	}
	if err := nodes[0].store.Verify(t.Context(), refOf(good).Hash); err != nil {
		t.Error(err)
	}
	f, err := nodes[2].rep.Open(t.Context(), refOf(old))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Size() != 500 {
		t.Errorf("a file of another replica has %d bytes", f.Size())
	}
}

// TestWrongPeer: a peer that sends other bytes is not believed.
func TestWrongPeer(t *testing.T) {
	nodes := newNodes(t, 3)
	data := content(1, 300)
	ref := refOf(data)
	put(t, nodes[1].store, data)
	path, err := nodes[1].store.Path(ref.Hash)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content(2, 300), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := nodes[0].rep.Fetch(t.Context(), ref); !errors.Is(err, ErrHashMismatch) {
		t.Fatalf("%v, want ErrHashMismatch", err)
	}
	put(t, nodes[2].store, data)
	if err := nodes[0].rep.Fetch(t.Context(), ref); err != nil {
		t.Fatalf("with a good peer besides: %v", err)
	}
	if got := read(t, nodes[0].store, ref.Hash); !bytes.Equal(got, data) {
		t.Error("other content arrived")
	}
}

func TestReplicatorConfig(t *testing.T) {
	for _, c := range []ReplicatorConfig{{}, {Store: open(t)}, {Store: open(t), Peers: func() []Peer { return nil }, Timeout: -1}} {
		if _, err := NewReplicator(c); !errors.Is(err, ErrConfig) {
			t.Errorf("%+v: %v, want ErrConfig", c, err)
		}
	}
}

func TestReplicatorClosed(t *testing.T) {
	nodes := newNodes(t, 3)
	ref := put(t, nodes[0].store, content(1, 10))
	nodes[0].rep.Close()
	if _, err := nodes[0].rep.Majority(t.Context(), []Ref{ref}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want canceled", err)
	}
}
