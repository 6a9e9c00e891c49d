package e2e

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/espalier-ml/espalier/client"
	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// TestPartition: the leader is cut off from the two others while a worker is connected to its broker. The others elect a
// leader, the worker finds it, and what it was working on counts or is taken from it as the rules say; the former leader gives
// nothing that must be fresh.
func TestPartition(t *testing.T) {
	var between [3][]*proxy // in front of each replica, for the other replicas alone
	c := newReplicas(t, false, func(i int, r *serverRole) {
		raft, routes, api := newProxy(t, r.Raft), newProxy(t, r.Routes), newProxy(t, r.Listen)
		between[i] = []*proxy{raft, routes, api}
		r.RaftAdvertise, r.RoutesAdvertise, r.Advertise = raft.address(), routes.address(), api.address()
		if i > 0 {
			r.Join = []string{between[0][2].address()}
		}
	})
	c.crew()
	c.trials = 30 // not over when the two others have found each other
	c.submit()
	c.until("two trials", func() bool { return c.status().GetJob().GetCompleted() >= 2 })
	at := -1
	c.until("a worker's broker", func() bool { at = c.brokerOf("x"); return at >= 0 })
	c.lead(at)
	// From here on the test asks the two others.
	alone, err := client.New(client.Config{Addresses: []string{c.roles[at].Listen}, Patience: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer alone.Close()
	rest, err := client.New(client.Config{Addresses: []string{c.roles[(at+1)%3].Listen, c.roles[(at+2)%3].Listen}, Patience: 30 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(rest.Close)
	c.client = rest
	isolated := c.servers[at].cmd.Process.Pid
	for i, proxies := range between {
		for _, p := range proxies {
			p.isolate(func(conn net.Conn) bool { return i == at || dialledBy(isolated, conn) })
		}
	}
	start := time.Now()
	done := c.status().GetJob().GetCompleted()
	c.until("another leader", func() bool { return c.leader() != at })
	c.until("the worker to find it", func() bool { b := c.brokerOf("x"); return b >= 0 && b != at })
	moved := time.Since(start)
	c.until("results after that", func() bool { return c.status().GetJob().GetCompleted() > done })
	c.did("%s, which led, was cut off; its worker was elsewhere after %s", c.roles[at].ID, moved.Round(100*time.Millisecond))
	if _, err := alone.Jobs.Fit(t.Context(), &espalierv1.FitRequest{Job: c.job, Device: device}); !client.Temporary(err) {
		t.Errorf("fit, asked of the replica that is cut off: %v, want that it has no leader", err)
	}
	for _, proxies := range between {
		for _, p := range proxies {
			p.isolate(nil)
		}
	}
	c.until("all three together again", func() bool {
		_, err := alone.Jobs.Fit(t.Context(), &espalierv1.FitRequest{Job: c.job, Device: device})
		return err == nil || !client.Temporary(err)
	})
	c.finish()
}

// isolate breaks all connections, and from now on those that refuse names; nil refuses none.
func (p *proxy) isolate(refuse func(net.Conn) bool) {
	p.mu.Lock()
	p.refuse = refuse
	p.mu.Unlock()
	p.cut()
}

// brokerOf is the index of the replica to whose broker a worker is connected, or -1.
func (c *replicas) brokerOf(worker string) int {
	own := sockets(c.workers[worker].cmd.Process.Pid)
	for i, r := range c.roles {
		for _, s := range connections() {
			if s.remote == portOf(r.Broker) && own[s.inode] {
				return i
			}
		}
	}
	return -1
}

// dialledBy tells whether a connection that was accepted here was dialled by a process.
func dialledBy(pid int, conn net.Conn) bool {
	port, own := portOf(conn.RemoteAddr().String()), sockets(pid)
	for _, s := range connections() {
		if s.local == port && own[s.inode] {
			return true
		}
	}
	return false
}

func portOf(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

// connection is one line of /proc/net/tcp: ports and inode.
type connection struct{ local, remote, inode string }

func connections() (out []connection) {
	f, err := os.Open("/proc/net/tcp")
	if err != nil {
		return nil
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		var local, remote uint
		if len(fields) < 10 || fields[3] != "01" { // established
			continue
		}
		_, _ = fmt.Sscanf(fields[1][strings.Index(fields[1], ":")+1:], "%X", &local)
		_, _ = fmt.Sscanf(fields[2][strings.Index(fields[2], ":")+1:], "%X", &remote)
		out = append(out, connection{fmt.Sprint(local), fmt.Sprint(remote), fields[9]})
	}
	return out
}

// sockets are the inodes of a process's sockets.
func sockets(pid int) map[string]bool {
	out := map[string]bool{}
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, _ := os.ReadDir(dir) // it may have ended
	for _, e := range entries {
		if to, err := os.Readlink(dir + "/" + e.Name()); err == nil && strings.HasPrefix(to, "socket:[") {
			out[strings.TrimSuffix(strings.TrimPrefix(to, "socket:["), "]")] = true
		}
	}
	return out
}
