//go:build linux

package main

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/espalier-ml/espalier/proto/subject"
)

// latest is how late a copy of a message may come: long after its lease.
const latest = 2 * lease

// duplicate listens to what workers ask of the leader, and asks it all again: at once, a little later, and after the
// lease is over. A copy's answer goes nowhere. It ends with undo; copies on their way still arrive.
func (c *cluster) duplicate(ctx context.Context) (undo func(), err error) {
	info, err := c.info(ctx)
	if err != nil {
		return nil, err
	}
	nc, err := nats.Connect(info, nats.MaxReconnects(-1), nats.ReconnectWait(200*time.Millisecond), nats.Timeout(time.Second))
	if err != nil {
		return nil, err
	}
	d := &duplicator{nc: nc, known: map[string]bool{}}
	var subs []*nats.Subscription
	for _, name := range []string{subject.Claim, subject.Heartbeat, subject.Report} {
		s, err := nc.Subscribe(name, d.hear)
		if err != nil {
			nc.Close()
			return nil, err
		}
		subs = append(subs, s)
	}
	return func() {
		for _, s := range subs {
			_ = s.Unsubscribe() // the connection may be down
		}
		c.copies.Go(func() {
			time.Sleep(latest)
			d.work.Wait()
			nc.Close()
		})
	}, nil
}

type duplicator struct {
	nc   *nats.Conn
	work sync.WaitGroup

	mu    sync.Mutex
	known map[string]bool
}

// hear sends copies of a message, unless it is one.
func (d *duplicator) hear(m *nats.Msg) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.known[string(m.Data)] {
		return
	}
	d.known[string(m.Data)] = true
	for _, delay := range []time.Duration{0, rand.N(time.Second), rand.N(latest)} {
		d.work.Go(func() {
			time.Sleep(delay)
			_ = d.nc.PublishRequest(m.Subject, d.nc.NewInbox(), m.Data) // one that is lost was late enough
		})
	}
}
