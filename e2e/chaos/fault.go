//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// breakIt carries out a period's faults, each at its moment and for its time, and returns when all are over or ctx ends.
func (c *cluster) breakIt(ctx context.Context, p Period) {
	ctx, cancel := context.WithTimeout(ctx, p.Length)
	defer cancel()
	var work sync.WaitGroup
	for _, f := range p.Faults {
		work.Go(func() {
			if !sleep(ctx, f.At) {
				return
			}
			victim := c.victim(ctx, f.Victim)
			c.ledger.note("%s%s", strings.TrimSpace(f.String()), called(f.Victim, victim))
			c.mu.Lock()
			c.counts[f.Kind]++
			c.mu.Unlock()
			undo, err := c.inject(ctx, f, victim)
			if err != nil {
				c.ledger.note("not injected: %v", err)
			}
			sleep(ctx, f.For)
			if undo != nil {
				undo()
			}
		})
	}
	work.Wait()
	sleep(ctx, p.Length) // to the period's end
}

// called names who was meant.
func called(meant string, p *process) string {
	if p == nil || p.name == meant {
		return ""
	}
	return " (" + p.name + ")"
}

// victim is the process that a fault means now.
func (c *cluster) victim(ctx context.Context, name string) *process {
	if p := c.byName[name]; p != nil || name == "" {
		return p
	}
	leader, _ := c.leader(ctx)
	if leader == nil {
		leader = c.all[0]
	}
	if name == followerVictim {
		return c.all[(slices.Index(c.all, leader)+1)%servers]
	}
	return leader
}

// inject begins a fault; undo ends it.
func (c *cluster) inject(ctx context.Context, f Fault, p *process) (undo func(), err error) {
	again := func(p *process) func() { return func() { c.try(p.start()) } }
	switch f.Kind {
	case KillServer, KillWorker:
		p.kill()
		return again(p), nil
	case KillAll:
		for _, s := range c.all[:servers] {
			s.kill()
		}
		return func() {
			for _, s := range c.all[:servers] {
				again(s)()
			}
		}, nil
	case RestartServer, RestartWorker:
		if err := p.terminate(30 * time.Second); err != nil && !c.wasFilled(p) {
			c.ledger.violation("%v", err)
		}
		return again(p), nil
	case PauseServer, PauseWorker:
		p.pause()
		return p.resume, nil
	case CutServer:
		return p.hear, c.cut(p.name)
	case CutHalf:
		side := append([]string{p.name}, f.With...)
		return func() {
			for _, name := range side {
				c.byName[name].hear()
			}
		}, c.cut(side...)
	case CutOneWay:
		return p.hear, p.host.deafen(c.ips(f.With, p.name)...)
	case SlowServer, SlowWorker:
		return func() { _ = p.host.fast() }, p.host.slow(int(f.Amount))
	case FullServer, FullWorker:
		c.mu.Lock()
		c.filled[p.name] = true
		c.mu.Unlock()
		return func() { c.try(p.disk.free()) }, p.disk.fill()
	case Duplicate:
		return c.duplicate(ctx)
	case ClockJump:
		return nil, os.WriteFile(c.clock(p.name), fmt.Append(nil, f.Amount), 0o644) // it stays wrong until the period's end
	case TransferLead:
		c.transfer(ctx)
		return nil, nil
	}
	return nil, fmt.Errorf("no such fault: %s", f.Kind)
}

// hear mends a process's network.
func (p *process) hear() { _ = p.host.hear() }

func (c *cluster) try(err error) {
	if err != nil {
		c.ledger.note("not mended yet: %v", err)
	}
}

func (c *cluster) wasFilled(p *process) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.filled[p.name]
}

// cut separates some processes from all others: none of them hears what is not of its side.
func (c *cluster) cut(side ...string) error {
	for _, name := range side {
		if err := c.byName[name].host.deafen(c.others(side...)...); err != nil {
			return err
		}
	}
	return nil
}

func (c *cluster) ips(names []string, but string) (out []string) {
	for _, n := range names {
		if n != but {
			out = append(out, c.byName[n].host.ip)
		}
	}
	return out
}

// transfer asks for another leader; whether there is one is up to the cluster.
func (c *cluster) transfer(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	var err error
	for _, api := range c.clients {
		if _, err = api.Cluster.TransferLead(ctx, &v1.TransferLeadRequest{}); err == nil {
			break
		}
	}
	c.ledger.counted("transfer", err == nil)
}

// heal mends everything.
func (c *cluster) heal() {
	for _, p := range c.all {
		p.resume()
		p.hear()
		_ = p.host.fast() // there may be no limit
		c.try(p.disk.free())
		c.try(os.WriteFile(c.clock(p.name), []byte("0"), 0o644))
	}
	for _, p := range c.all {
		c.try(p.start())
	}
}

// mended forgets which disks were full, once all processes run well.
func (c *cluster) mended() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.filled)
}
