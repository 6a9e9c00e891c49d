package store

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	mrand "math/rand/v2"

	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// cluster is three replicas in one process, over loopback.
type cluster struct {
	t    testing.TB
	cfgs []Config
	// up holds nil where a replica is down.
	up []*Store
}

// electionInTests is short, and long enough for a busy machine.
const electionInTests = 300 * time.Millisecond

func newCluster(t testing.TB, n int, adjust func(*Config)) *cluster {
	t.Helper()
	c := &cluster{t: t}
	for i := range n {
		cfg := Config{
			Dir: t.TempDir(), ID: fmt.Sprint("r", i), Address: "127.0.0.1:0", Bootstrap: i == 0, NoSync: true,
			Election: electionInTests,
		}
		if adjust != nil {
			adjust(&cfg)
		}
		c.cfgs, c.up = append(c.cfgs, cfg), append(c.up, nil)
		c.start(i)
		c.cfgs[i].Address = c.up[i].Address() // the port stays over restarts
		if i == 0 {
			lead(t, c.up[0])
			continue
		}
		c.onLeader("add a replica", func(s *Store) error {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			return s.Add(ctx, c.cfgs[i].ID, c.cfgs[i].Address)
		})
	}
	t.Cleanup(func() {
		for i := range c.up {
			c.stop(i)
			if tt, ok := t.(*testing.T); ok {
				checkBolt(tt, filepath.Join(c.cfgs[i].Dir, "raft.db"))
				checkBolt(tt, filepath.Join(c.cfgs[i].Dir, "state.db"))
			}
		}
	})
	return c
}

func (c *cluster) start(i int) {
	c.t.Helper()
	// Something else may have the port for a moment.
	eventually(c.t, "the replica's port", func() bool {
		s, err := Open(c.t.Context(), c.cfgs[i])
		if err != nil && !errors.Is(err, syscall.EADDRINUSE) {
			c.t.Fatal(err)
		}
		c.up[i] = s
		return err == nil
	})
}

func (c *cluster) stop(i int) {
	if c.up[i] == nil {
		return
	}
	if err := c.up[i].Close(); err != nil {
		c.t.Error(err)
	}
	c.up[i] = nil
}

func (c *cluster) running() (out []*Store) {
	for _, s := range c.up {
		if s != nil {
			out = append(out, s)
		}
	}
	return out
}

// leader waits for one.
func (c *cluster) leader() (leader *Store) {
	c.t.Helper()
	eventually(c.t, "a leader", func() bool {
		for _, s := range c.running() {
			if s.IsLeader() && s.Barrier(c.t.Context()) == nil {
				leader = s
				return true
			}
		}
		return false
	})
	return leader
}

// onLeader runs f on the leader until it succeeds: leadership may move meanwhile.
func (c *cluster) onLeader(what string, f func(*Store) error) {
	c.t.Helper()
	var err error
	deadline := time.Now().Add(20 * time.Second)
	for time.Now().Before(deadline) {
		if err = f(c.leader()); err == nil {
			return
		}
	}
	c.t.Fatalf("%s: %v", what, err)
}

// Apply sends commands to whoever leads until they are acknowledged: leadership may
// move when the machine is busy, and every command of these tests may be repeated.
func (c *cluster) Apply(ctx context.Context, cmds ...*v1.Command) (r []Result, err error) {
	c.onLeader("apply", func(s *Store) error {
		r, err = s.Apply(ctx, cmds...)
		return err
	})
	return r, err
}

// View reads the leader's state.
func (c *cluster) View(fn func(*View) error) error { return c.leader().View(fn) }

// same waits until all running replicas hold the same, and returns its digest.
func (c *cluster) same() (d string) {
	c.t.Helper()
	l := c.leader()
	want := l.AppliedIndex()
	eventually(c.t, "all replicas to apply the same", func() bool {
		for _, s := range c.running() {
			if s.AppliedIndex() < want {
				return false
			}
		}
		return true
	})
	d = digest(c.t, l)
	for _, s := range c.running() {
		if got := digest(c.t, s); got != d {
			c.t.Errorf("%s holds %s, the leader %s", s.ID(), got, d)
		}
	}
	return d
}

func (c *cluster) index(s *Store) int { return slices.Index(c.up, s) }

func TestThreeReplicas(t *testing.T) {
	c := newCluster(t, 3, nil)
	fill(t, c, "j", 12)
	want := c.same()
	l := c.leader()
	members, err := l.Members()
	if err != nil || len(members) != 3 {
		t.Fatalf("members %v, %v", members, err)
	}
	for i, m := range members {
		if !m.Voter || m.ID != c.cfgs[i].ID || m.Address != c.cfgs[i].Address {
			t.Errorf("member %+v, want a voter %s at %s", m, c.cfgs[i].ID, c.cfgs[i].Address)
		}
	}
	if st := l.Status(); st.AppliedIndex == 0 || st.LogBytes == 0 || st.StateBytes == 0 || st.Term == 0 || len(st.Members) != 3 {
		t.Errorf("status %+v", st)
	}
	// The leader goes; another one has all of it, and goes on.
	gone := c.index(l)
	c.stop(gone)
	next := c.leader()
	if got := digest(t, next); got != want {
		t.Errorf("the next leader holds %s, want %s", got, want)
	}
	must(t, c, submit(1, "k", "local"))
	c.start(gone)
	c.same()
}

// TestFollower: it refuses commands and fresh reads, and answers stale ones.
func TestFollower(t *testing.T) {
	c := newCluster(t, 3, nil)
	must(t, c, submit(1, "j", "local"))
	c.same()
	eventually(t, "a follower to refuse", func() bool {
		l := c.leader()
		f := c.up[(c.index(l)+1)%3]
		_, applyErr := f.Apply(t.Context(), submit(1, "k", "local"))
		readErr := f.Linearizable(t.Context())
		id, ok := f.Leader()
		return errors.Is(applyErr, ErrNotLeader) && errors.Is(readErr, ErrNotLeader) && ok && id == l.ID() && f.Status().State == "Follower"
	})
}

// TestMajorityLost: without it nothing commits and nothing is read as fresh.
func TestMajorityLost(t *testing.T) {
	c := newCluster(t, 3, nil)
	l := c.leader()
	var down []int
	for i, s := range c.up {
		if s != l {
			down = append(down, i)
			c.stop(i)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := l.Apply(ctx, submit(1, "j", "local")); !errors.Is(err, ErrUncertain) && !errors.Is(err, ErrNotLeader) {
		t.Errorf("apply: %v, want ErrUncertain or ErrNotLeader", err)
	}
	eventually(t, "the leader to step down", func() bool { return !l.IsLeader() })
	if err := l.Linearizable(ctx); !errors.Is(err, ErrNotLeader) {
		t.Errorf("linearizable: %v, want ErrNotLeader", err)
	}
	for _, i := range down {
		c.start(i)
	}
	c.same()
}

// TestJoinBySnapshot: the log that a new replica would need is gone.
func TestJoinBySnapshot(t *testing.T) {
	c := newCluster(t, 1, func(cfg *Config) { cfg.TrailingLogs = 2 })
	fill(t, c, "j", 30)
	if err := c.up[0].Snapshot(); err != nil {
		t.Fatal(err)
	}
	for i := 1; i < 3; i++ {
		cfg := c.cfgs[0]
		cfg.Dir, cfg.ID, cfg.Address, cfg.Bootstrap = t.TempDir(), fmt.Sprint("r", i), "127.0.0.1:0", false
		c.cfgs, c.up = append(c.cfgs, cfg), append(c.up, nil)
		c.start(i)
		c.cfgs[i].Address = c.up[i].Address()
		ch, cancel := c.up[i].Subscribe()
		defer cancel()
		c.onLeader("add a replica", func(s *Store) error { return s.Add(t.Context(), cfg.ID, c.cfgs[i].Address) })
		if change := <-ch; !change.All {
			t.Errorf("change %+v: want all", change)
		}
	}
	c.same()
	// Adding again is no harm.
	c.onLeader("add it again", func(s *Store) error { return s.Add(t.Context(), "r1", c.cfgs[1].Address) })
}

// moveTo makes a replica lead.
func (c *cluster) moveTo(to *Store) {
	c.t.Helper()
	eventually(c.t, "leadership to move to "+to.ID(), func() bool {
		_ = c.leader().Transfer(c.t.Context(), to.ID()) // the leader may change before it is asked
		return to.IsLeader() && to.Barrier(c.t.Context()) == nil
	})
}

func TestTransferAndRemove(t *testing.T) {
	c := newCluster(t, 3, nil)
	l := c.leader()
	to := c.up[(c.index(l)+1)%3]
	c.moveTo(to)
	eventually(t, "the follower to refuse", func() bool { return errors.Is(l.Transfer(t.Context(), ""), ErrNotLeader) })
	nobody := func(s *Store) error {
		if err := s.Transfer(t.Context(), "nobody"); !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("transfer to nobody: %w", err)
		}
		if err := s.Remove(t.Context(), "nobody"); !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("remove nobody: %w", err)
		}
		return s.Transfer(t.Context(), s.ID())
	}
	c.onLeader("what does nothing", nobody)
	removed := func(id string) func(*Store) error {
		return func(s *Store) error {
			if err := s.Remove(t.Context(), id); err != nil && !errors.Is(err, ErrNotFound) {
				return err
			}
			return nil
		}
	}
	c.onLeader("remove a follower", removed(l.ID()))
	c.stop(c.index(l))
	must(t, c, submit(1, "j", "local"))
	// A leader removes itself; the last one remains and leads.
	c.moveTo(to)
	c.onLeader("remove the leader", removed(to.ID()))
	c.stop(c.index(to))
	rest := c.leader()
	if err := rest.Remove(t.Context(), rest.ID()); !errors.Is(err, ErrState) {
		t.Errorf("remove the last voter: %v, want ErrState", err)
	}
	must(t, rest, submit(1, "k", "local"))
}

// TestLeadershipTransitions: every beginning and end, in order.
func TestLeadershipTransitions(t *testing.T) {
	c := newCluster(t, 3, nil)
	s := c.up[0]
	for range 3 {
		c.moveTo(s)
		eventually(t, "r0 to follow", func() bool {
			_ = s.Transfer(t.Context(), "") // it may follow already
			return !s.IsLeader()
		})
	}
	var term uint64
	for i := range 6 {
		l := <-s.Leadership()
		if l.Leader != (i%2 == 0) || l.Term < term {
			t.Fatalf("transition %d is %+v after term %d", i, l, term)
		}
		term = l.Term
	}
}

func TestMoveAddress(t *testing.T) {
	// From a replica that listens nowhere to one that does, and can have others.
	cfg := testConfig(t.TempDir())
	s := open(t, cfg)
	fill(t, s, "j", 3)
	want := digest(t, s)
	if err := s.Add(t.Context(), "other", "127.0.0.1:1"); !errors.Is(err, ErrConfig) {
		t.Errorf("add without an address: %v, want ErrConfig", err)
	}
	closeStore(t, s)
	cfg.Address, cfg.Election = "127.0.0.1:0", electionInTests
	s = open(t, cfg)
	eventually(t, "the new address", func() bool {
		m, err := s.Members()
		return err == nil && len(m) == 1 && m[0].Address == s.Address()
	})
	if got := digest(t, s); got != want {
		t.Errorf("digest %s, want %s", got, want)
	}
}

func TestBackup(t *testing.T) {
	s := open(t, testConfig(t.TempDir()))
	fill(t, s, "j", 10)
	want := digest(t, s)
	var b bytes.Buffer
	if _, err := s.Backup(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	c := newCluster(t, 3, nil)
	must(t, c, submit(1, "doomed", "local"))
	for name, damaged := range map[string][]byte{
		"cut short":    b.Bytes()[:b.Len()/2],
		"empty":        nil,
		"a bit":        append(append([]byte{}, b.Bytes()[:5000]...), append([]byte{b.Bytes()[5000] ^ 1}, b.Bytes()[5001:]...)...),
		"other format": append([]byte("ESPSTATE\x63"), b.Bytes()[9:]...),
		"nonsense":     bytes.Repeat([]byte("x"), 10_000),
	} {
		c.onLeader(name, func(s *Store) error {
			if err := s.RestoreBackup(t.Context(), bytes.NewReader(damaged)); !errors.Is(err, ErrCorrupt) {
				return fmt.Errorf("%w, want ErrCorrupt", err)
			}
			return nil
		})
	}
	must(t, c, submit(2, "still here", "local"))
	c.onLeader("restore", func(s *Store) error { return s.RestoreBackup(t.Context(), bytes.NewReader(b.Bytes())) })
	eventually(t, "all replicas to hold the backup", func() bool {
		for _, s := range c.up {
			if digest(t, s) != want {
				return false
			}
		}
		return true
	})
	must(t, c, submit(3, "after", "local"))
	c.same()
	// And after a restart of all.
	for i := range c.up {
		c.stop(i)
	}
	for i := range c.up {
		c.start(i)
	}
	c.same()
}

func TestTLS(t *testing.T) {
	conf := mutualTLS(t)
	c := newCluster(t, 3, func(cfg *Config) { cfg.TLS = conf })
	fill(t, c, "j", 4)
	c.same()
	// A stranger without a certificate learns nothing.
	conn, err := tls.Dial("tcp", c.cfgs[0].Address, &tls.Config{RootCAs: conf.RootCAs})
	if err == nil {
		defer conn.Close()
		if err = conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		_, err = conn.Read(make([]byte, 1))
	}
	if err == nil || !strings.Contains(err.Error(), "certificate required") {
		t.Errorf("a stranger: %v, want certificate required", err)
	}
}

// mutualTLS is one self-signed certificate that everybody has and trusts.
func mutualTLS(t testing.TB) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		RootCAs:      pool, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
	}
}

// TestRestarts: replicas go and come back while commands are sent. Whatever was acknowledged is on all replicas at the
// end, once.
func TestRestarts(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := mrand.New(mrand.NewPCG(seed, 0))
	c := newCluster(t, 3, func(cfg *Config) {
		cfg.SnapshotEvery, cfg.SnapshotInterval, cfg.TrailingLogs = 40, 50*time.Millisecond, 10
	})
	var acknowledged []string
	for round := range 8 {
		down := rng.IntN(3)
		c.stop(down)
		if rng.IntN(2) == 0 {
			// As after a crash: the state is rebuilt.
			remove(t, c.cfgs[down].Dir, "state.db.seal")
		}
		for i := range 10 {
			id := fmt.Sprintf("job-%d-%d", round, i)
			if c.try(submit(int64(i), id, "local")) {
				acknowledged = append(acknowledged, id)
			}
		}
		c.start(down)
	}
	c.same()
	for _, s := range c.up {
		err := s.View(func(v *View) error {
			for _, id := range acknowledged {
				if v.Job(id) == nil {
					t.Errorf("%s has lost %s", s.ID(), id)
				}
				if n := len(v.Tasks(id)); n != 1 {
					t.Errorf("%s has %d tasks of %s, want 1", s.ID(), n, id)
				}
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	if len(acknowledged) < 40 {
		t.Errorf("only %d of 80 commands were acknowledged with a majority up", len(acknowledged))
	}
}

// try sends a command to whoever leads, for a while.
func (c *cluster) try(cmd *v1.Command) bool {
	deadline := time.Now().Add(5 * time.Second)
	for time.Now().Before(deadline) {
		for _, s := range c.running() {
			ctx, cancel := context.WithTimeout(c.t.Context(), time.Second)
			r, err := s.Apply(ctx, cmd)
			cancel()
			if err == nil {
				return r[0].Err == nil
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
	return false
}
