package e2e

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/espalier-ml/espalier/client"
	"github.com/espalier-ml/espalier/client/clienttest"
	"github.com/espalier-ml/espalier/coordinator/certs"
	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/tlsfile"
	"github.com/rs/zerolog"
)

// replicas is a cluster of several servers.
type replicas struct {
	*cluster
	roles     []serverRole
	servers   []*process
	addresses []string
	ca, token string // token is what clients show
}

// newReplicas starts a cluster of three; adjust may change how one is started.
func newReplicas(t *testing.T, secure bool, adjust func(i int, r *serverRole)) *replicas {
	t.Helper()
	if testing.Short() {
		t.Skip("SKIPPED: processes take seconds")
	}
	c := &replicas{cluster: &cluster{t: t, dir: t.TempDir(), workers: map[string]*process{}}}
	for i := range 3 {
		r := serverRole{
			ID: string(rune('a' + i)), Dir: filepath.Join(c.dir, string(rune('a'+i))),
			Listen: clienttest.Unused(t), Broker: clienttest.Unused(t), Raft: clienttest.Unused(t), Routes: clienttest.Unused(t),
		}
		if i > 0 {
			r.Join = []string{c.roles[0].Listen}
		}
		if secure {
			if i == 0 {
				c.makeCertificates("one")
			}
			r.Cert, r.Key, r.CA, r.Tokens = filepath.Join(c.dir, "cert.pem"), filepath.Join(c.dir, "key.pem"), c.ca, []string{c.token}
		}
		if adjust != nil {
			adjust(i, &r)
		}
		c.roles = append(c.roles, r)
		address := r.Listen
		if secure {
			address = "https://" + address
		}
		c.addresses = append(c.addresses, address)
	}
	c.client = c.dial(30*time.Second, c.addresses...)
	t.Cleanup(func() { c.client.Close() })
	for i := range c.roles {
		c.servers = append(c.servers, spawn(t, "server "+c.roles[i].ID, "server", c.roles[i]))
	}
	c.until("three voters that know each other", func() bool { return len(c.members()) == 3 })
	return c
}

// dial makes a client of some servers that shows the token.
func (c *replicas) dial(patience time.Duration, addresses ...string) *client.Client {
	c.t.Helper()
	cfg := client.Config{Addresses: addresses, Patience: patience, Token: c.token}
	if c.ca != "" {
		cfg.Authorities = c.trust(c.ca)
	}
	cl, err := client.New(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	return cl
}

func (c *replicas) trust(path string) *tlsfile.Authorities {
	c.t.Helper()
	a, err := tlsfile.OpenAuthorities(path, zerolog.Nop())
	if err != nil {
		c.t.Fatal(err)
	}
	return a
}

// makeCertificates makes an authority and puts its certificate where the servers read theirs. The token stays.
func (c *replicas) makeCertificates(authority string) {
	c.t.Helper()
	m, err := certs.Make(certs.Config{Dir: filepath.Join(c.dir, authority), Hosts: []string{"127.0.0.1"}})
	if err != nil {
		c.t.Fatal(err)
	}
	if c.ca == "" {
		c.ca = filepath.Join(c.dir, "ca.pem")
		c.copyFile(c.ca, m.Authority)
		b, err := os.ReadFile(m.Token)
		if err != nil {
			c.t.Fatal(err)
		}
		c.token = strings.TrimSpace(string(b))
	}
	c.copyFile(filepath.Join(c.dir, "cert.pem"), m.Certificate)
	c.copyFile(filepath.Join(c.dir, "key.pem"), m.Key)
}

// copyFile writes to a file the contents of others.
func (c *replicas) copyFile(to string, from ...string) {
	c.t.Helper()
	var all []byte
	for _, f := range from {
		b, err := os.ReadFile(f)
		if err != nil {
			c.t.Fatal(err)
		}
		all = append(all, b...)
	}
	if err := os.WriteFile(to, all, 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// members are the voters whose addresses are known, by id, with their versions; nil while nobody answers.
func (c *replicas) members() map[string]string {
	res, err := c.client.Cluster.Replicas(c.t.Context(), &espalierv1.ReplicasRequest{})
	if err != nil || res.GetLeader() == "" {
		return nil
	}
	out := map[string]string{}
	for _, r := range res.GetReplicas() {
		if r.GetVoter() && r.GetApiAddress() != "" {
			out[r.GetId()] = r.GetVersion()
		}
	}
	return out
}

// leader is the index of the leader's server.
func (c *replicas) leader() (index int) {
	c.t.Helper()
	c.until("a leader", func() bool {
		res, err := c.client.Cluster.Replicas(c.t.Context(), &espalierv1.ReplicasRequest{})
		if err != nil || res.GetLeader() == "" {
			return false
		}
		index = slices.IndexFunc(c.roles, func(r serverRole) bool { return r.ID == res.GetLeader() })
		return true
	})
	return index
}

// lead hands the lead to a server.
func (c *replicas) lead(i int) {
	c.t.Helper()
	c.until("the lead of "+c.roles[i].ID, func() bool {
		if c.leader() == i {
			return true
		}
		_, _ = c.client.Cluster.TransferLead(c.t.Context(), &espalierv1.TransferLeadRequest{Id: c.roles[i].ID})
		return false
	})
}

// ready tells whether a server says that it can serve.
func (c *replicas) ready(i int) bool {
	c.t.Helper()
	only := c.dial(-1, c.addresses[i])
	defer only.Close()
	r, err := only.Ready(c.t.Context())
	return err == nil && r.Ready
}

// crew starts a worker that measures and two that train, who know all servers.
func (c *replicas) crew() { c.crewOf(build{}) }

func (c *replicas) crewOf(b build) {
	for _, r := range []workerRole{measuring("m"), training("x"), training("y")} {
		r.build = b
		c.hire(r)
	}
}

// hire starts a worker that knows all servers and shows the token.
func (c *replicas) hire(r workerRole) {
	r.Server, r.CA, r.Token = strings.Join(c.addresses, ","), c.ca, c.token
	c.worker(r)
}

// TestRollingRestart: each server is asked to end and is started again as another build, the leader too, while a search runs.
func TestRollingRestart(t *testing.T) {
	c := newReplicas(t, false, nil)
	c.crew()
	c.submit()
	for round := range 2 {
		for i := range c.roles {
			c.until("a trial more", func() bool { return c.status().GetJob().GetCompleted() >= int32(3*round+i) })
			led := c.leader() == i
			start := time.Now()
			c.servers[i].terminate()
			if led {
				c.until("another leader", func() bool { return c.leader() != i })
				c.did("%s gave the lead away and ended in %s", c.roles[i].ID, time.Since(start).Round(time.Millisecond))
			}
			c.roles[i].Version = fmt.Sprint("e2e-", round+2)
			c.servers[i] = spawn(t, "server "+c.roles[i].ID, "server", c.roles[i])
			c.until("the server to be ready", func() bool { return c.ready(i) })
		}
	}
	c.did("three servers rolled twice")
	c.finish()
	c.until("all versions to be told", func() bool {
		m := c.members()
		return len(m) == 3 && len(slices.Compact(slices.Sorted(maps.Values(m)))) == 1 && m["a"] == "e2e-3"
	})
}

// TestMoveAndRemove: replicas come back at other addresses, one after the other, while a search runs; the one that is
// removed says so and ends.
func TestMoveAndRemove(t *testing.T) {
	c := newReplicas(t, false, nil)
	c.crew()
	c.submit()
	for _, i := range []int{1, 2} {
		c.servers[i].terminate()
		c.roles[i].Raft, c.roles[i].Routes, c.roles[i].Broker = clienttest.Unused(t), clienttest.Unused(t), clienttest.Unused(t)
		c.roles[i].Join = nil // it finds the others by its records
		if i == 2 {
			c.roles[i].Join = []string{c.roles[1].Listen}
		}
		c.servers[i] = spawn(t, "server "+c.roles[i].ID, "server", c.roles[i])
		c.until("the server to be ready at its new address", func() bool { return c.ready(i) })
		c.did("%s moved", c.roles[i].ID)
	}
	l := c.leader()
	if _, err := c.client.Cluster.RemoveReplica(t.Context(), &espalierv1.RemoveReplicaRequest{Id: c.roles[l].ID}); err != nil && !client.Temporary(err) {
		t.Fatal(err)
	}
	select {
	case <-c.servers[l].done:
	case <-time.After(30 * time.Second):
		t.Errorf("%s was removed and goes on", c.roles[l].ID)
	}
	if out := c.servers[l].output(); !strings.Contains(out, "was removed from its cluster") {
		t.Errorf("the removed leader does not say so:\n%s", out)
	}
	c.did("the leader %s was removed", c.roles[l].ID)
	c.finish()
	if m := c.members(); len(m) != 2 || m[c.roles[l].ID] != "" {
		t.Errorf("members %v", m)
	}
	// Its folder does not come back; a new one under another name does.
	c.roles[l].Join = []string{c.roles[(l+1)%3].Listen}
	again := spawn(t, "removed server", "server", c.roles[l])
	select {
	case <-again.done:
	case <-time.After(30 * time.Second):
		t.Error("the removed folder is served again")
	}
	c.roles[l].ID, c.roles[l].Dir = "d", filepath.Join(c.dir, "d")
	c.servers[l] = spawn(t, "server d", "server", c.roles[l])
	c.until("three voters", func() bool { return len(c.members()) == 3 })
}
