package store

import (
	"bytes"
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
	"strings"
	"testing"
	"time"
)

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

// TestTransferToStuck: a replica that takes connections and says nothing is not waited for
// twice at once, and writes go on.
func TestTransferToStuck(t *testing.T) {
	c := newCluster(t, 3, nil)
	l := c.leader()
	at := (c.index(l) + 1) % 3
	id, address := c.up[at].ID(), c.up[at].Address()
	c.stop(at)
	silent, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	fill(t, c, "j", 3)
	c.onLeader("transfer to a stuck replica", func(s *Store) error {
		if err := s.Transfer(t.Context(), id); err == nil {
			return errors.New("transferred to a stuck replica")
		}
		for _, to := range []string{id, ""} {
			if err := s.Transfer(t.Context(), to); !errors.Is(err, ErrState) {
				return fmt.Errorf("transfer to %q again: %w, want ErrState", to, err)
			}
		}
		return nil
	})
	must(t, c, submit(1, "next", "local"))
	for _, s := range c.running() {
		if !s.IsLeader() {
			c.moveTo(s)
			break
		}
	}
	must(t, c, submit(1, "last", "local"))
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
		if err := s.Remove(t.Context(), "nobody", false); !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("remove nobody: %w", err)
		}
		return s.Transfer(t.Context(), s.ID())
	}
	c.onLeader("what does nothing", nobody)
	removed := func(id string) func(*Store) error {
		return func(s *Store) error {
			if err := s.Remove(t.Context(), id, false); err != nil && !errors.Is(err, ErrNotFound) {
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
	if err := rest.Remove(t.Context(), rest.ID(), false); !errors.Is(err, ErrState) {
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
	c := newCluster(t, 3, func(cfg *Config) { cfg.TLS = func() *tls.Config { return conf } })
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
