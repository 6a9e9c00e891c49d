package broker

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// peerSubject is where replicas tell each other of themselves.
	peerSubject = "espalier.v1.replica"
	// announceInterval is how often they do, and at once when a new one appears.
	announceInterval = time.Second
	maxPeers         = 64
)

// Peer is what a replica tells the others of itself.
type Peer struct {
	ID string `json:"id"`
	// API is the address of its API, Route where brokers connect to its broker.
	API   string `json:"api"`
	Route string `json:"route,omitempty"`
	// Raft is where the store of the other replicas connects, Version its build.
	Raft    string `json:"raft,omitempty"`
	Version string `json:"version,omitempty"`
	// Commands is the newest kind of command that its store knows.
	Commands uint32 `json:"commands,omitempty"`
	// Heard is when it last told; not told itself.
	Heard time.Time `json:"-"`
}

// Peers knows the other replicas' addresses, from what they announce over the broker. Nothing of it is stored.
type Peers struct {
	nc   *nats.Conn
	self Peer
	sub  *nats.Subscription
	stop chan struct{}
	work sync.WaitGroup

	mu    sync.Mutex
	known map[string]Peer
}

// Announce tells the others of self until Close, and listens to what they tell.
func Announce(nc *nats.Conn, self Peer) (*Peers, error) {
	p := &Peers{nc: nc, self: self, stop: make(chan struct{}), known: map[string]Peer{}}
	self.Heard = time.Now()
	p.known[self.ID] = self
	var err error
	if p.sub, err = nc.Subscribe(peerSubject, p.heard); err != nil {
		return nil, fmt.Errorf("listen to replicas: %w", err)
	}
	p.work.Go(p.announce)
	return p, nil
}

func (p *Peers) announce() {
	tick := time.NewTicker(announceInterval)
	defer tick.Stop()
	for {
		p.tell()
		select {
		case <-p.stop:
			return
		case <-tick.C:
		}
	}
}

// tell announces once. What is lost is told again a second later.
func (p *Peers) tell() {
	if data, err := json.Marshal(p.self); err == nil {
		_ = p.nc.Publish(peerSubject, data)
	}
}

func (p *Peers) heard(m *nats.Msg) {
	var peer Peer
	if json.Unmarshal(m.Data, &peer) != nil || peer.ID == "" || peer.ID == p.self.ID {
		return
	}
	peer.Heard = time.Now()
	p.mu.Lock()
	_, known := p.known[peer.ID]
	if known || len(p.known) < maxPeers {
		p.known[peer.ID] = peer
	}
	p.mu.Unlock()
	if !known {
		p.tell()
	}
}

// Get returns what a replica told; false if it was never heard.
func (p *Peers) Get(id string) (Peer, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	peer, ok := p.known[id]
	return peer, ok
}

// List returns this replica and all that were heard, by id.
func (p *Peers) List() []Peer {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]Peer, 0, len(p.known))
	for _, peer := range p.known {
		out = append(out, peer)
	}
	slices.SortFunc(out, func(a, b Peer) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// Close stops announcing and listening.
func (p *Peers) Close() error {
	close(p.stop)
	p.work.Wait()
	if err := p.sub.Unsubscribe(); err != nil {
		return fmt.Errorf("stop listening to replicas: %w", err)
	}
	return nil
}
