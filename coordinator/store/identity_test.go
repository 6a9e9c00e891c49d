package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// grow starts a further replica, which is no member yet.
func (c *cluster) grow(id string) *Store {
	c.t.Helper()
	cfg := c.cfgs[0]
	cfg.Dir, cfg.ID, cfg.Address, cfg.Bootstrap = c.t.TempDir(), id, "127.0.0.1:0", false
	c.cfgs, c.up = append(c.cfgs, cfg), append(c.up, nil)
	i := len(c.up) - 1
	c.start(i)
	c.cfgs[i].Address = c.up[i].Address()
	return c.up[i]
}

func TestClusterID(t *testing.T) {
	c := newCluster(t, 3, nil)
	want := c.up[0].Cluster()
	for _, s := range c.up {
		if s.Cluster() != want || want == "" || s.Fresh() {
			t.Errorf("%s is of cluster %q, fresh %v, want %q", s.ID(), s.Cluster(), s.Fresh(), want)
		}
	}
	c.stop(2)
	c.start(2)
	if got := c.up[2].Cluster(); got != want {
		t.Errorf("after a restart: cluster %q, want %q", got, want)
	}
	// A replica of another cluster is refused, in both directions, and the log of neither changes.
	other := newCluster(t, 1, nil)
	must(t, other, submit(1, "j", "local"))
	before := digest(t, other.up[0])
	c.onLeader("refuse a replica of another cluster", func(s *Store) error {
		err := s.Add(t.Context(), "stranger", other.up[0].Address())
		if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "of cluster") {
			return fmt.Errorf("%w, want ErrUnreachable with the reason", err)
		}
		return nil
	})
	if got := digest(t, other.up[0]); got != before || !other.up[0].IsLeader() {
		t.Errorf("the other cluster's replica was changed")
	}
	if n := len(c.leader().Status().Members); n != 3 {
		t.Errorf("%d members, want 3", n)
	}
}

// TestClusterWithoutID: a folder of a build that knew no ids of clusters goes on without; what has one refuses it.
func TestClusterWithoutID(t *testing.T) {
	cfg := testConfig(t.TempDir())
	cfg.Address, cfg.Election = "127.0.0.1:0", electionInTests
	write(t, cfg.Dir, "raft.db", gunzip(t, filepath.Join("testdata", "golden", "v1", "raft.db.gz")))
	s := open(t, cfg)
	if s.Cluster() != "" || s.Fresh() {
		t.Errorf("cluster %q, fresh %v, want none and old", s.Cluster(), s.Fresh())
	}
	joins := cfg
	joins.Dir, joins.ID, joins.Bootstrap = t.TempDir(), "two", false
	two := openOnly(t, joins)
	if err := s.Add(t.Context(), "two", two.Address()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new one to hold the same", func() bool { return two.AppliedIndex() == s.AppliedIndex() && digest(t, two) == digest(t, s) })
	newer := newCluster(t, 1, nil)
	if err := newer.up[0].Add(t.Context(), "two", two.Address()); !errors.Is(err, ErrUnreachable) {
		t.Errorf("add one of a cluster without id: %v, want ErrUnreachable", err)
	}
	lead(t, s) // it was not disturbed
}

// openOnly opens a store that does not lead.
func openOnly(t *testing.T, cfg Config) *Store {
	t.Helper()
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// TestGreeting: whatever a stranger sends, it learns nothing and disturbs nothing.
func TestGreeting(t *testing.T) {
	c := newCluster(t, 1, nil)
	for name, say := range map[string]string{
		"nothing of ours": "GET / HTTP/1.1\r\n\r\n",
		"other magic":     "ESPX\x01\x00",
		"other version":   "ESPR\x02\x00",
		"other cluster":   "ESPR\x01\x03abc",
		"no cluster":      "ESPR\x01\x00",
		"raft at once":    "\x00\x80",
	} {
		conn, err := net.Dial("tcp", c.cfgs[0].Address)
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte(say)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 300)
		n, err := conn.Read(b)
		if n > 0 && b[0] != greetingRefused {
			t.Errorf("%s: answered %q", name, b[:n])
		}
		if n == 0 && err == nil {
			t.Errorf("%s: neither answered nor closed", name)
		}
		conn.Close()
	}
	must(t, c, submit(1, "j", "local"))
}

func FuzzGreeting(f *testing.F) {
	f.Add([]byte("ESPR\x01\x03abc"), "abc")
	f.Add([]byte("\x00\x00"), "")
	f.Fuzz(func(t *testing.T, say []byte, cluster string) {
		if len(cluster) > 255 {
			return
		}
		a, b := net.Pipe()
		defer b.Close()
		s := &streams{identity: &identity{replica: "r", cluster: cluster}, refused: map[string]time.Time{}}
		go func() {
			go func() { _, _ = io.Copy(io.Discard, b) }() // ends with the pipe
			_, _ = b.Write(say)
			_ = b.Close()
		}()
		g := &greeted{Conn: a, streams: s}
		defer g.Close()
		welcome := cluster == "" && len(say) > 0 && say[0] != 'E' ||
			strings.HasPrefix(string(say), greetingMagic+"\x01"+string(rune(len(cluster)))+cluster) && len(cluster) < 128
		if _, err := g.Read(make([]byte, 1)); err == nil && !welcome {
			t.Errorf("%q was let in to cluster %q", say, cluster)
		}
	})
}

func TestAddRefuses(t *testing.T) {
	c := newCluster(t, 2, nil)
	spare := c.grow("spare")
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	gone := dead.Addr().String()
	dead.Close()
	for _, x := range []struct {
		id, address string
		want        error
	}{
		{"new", gone, ErrUnreachable},
		{"new", silent.Addr().String(), ErrUnreachable},
		{"new", c.cfgs[1].Address, ErrExists},
		{"other", spare.Address(), ErrExists},
		{"", spare.Address(), ErrConfig},
		{"new", "nowhere", ErrConfig},
	} {
		c.onLeader("try to add", func(s *Store) error {
			if err := s.Add(t.Context(), x.id, x.address); !errors.Is(err, x.want) {
				return fmt.Errorf("add %q at %s: %w, want %w", x.id, x.address, err, x.want)
			}
			if n := len(s.Status().Members); n != 2 {
				return fmt.Errorf("%d members, want 2", n)
			}
			return nil
		})
		must(t, c, submit(1, "j", "local")) // goes on meanwhile
	}
	c.onLeader("add under its name", func(s *Store) error { return s.Add(t.Context(), "spare", spare.Address()) })
	c.same()
}

// TestMoveMember: a replica that comes back at another address keeps its id and its log, once the leader is told.
func TestMoveMember(t *testing.T) {
	c := newCluster(t, 3, nil)
	l := c.leader()
	i := (c.index(l) + 1) % 3
	old := c.cfgs[i].Address
	c.stop(i)
	fill(t, c, "j", 4)
	c.cfgs[i].Address = "127.0.0.1:0"
	c.start(i)
	c.cfgs[i].Address = c.up[i].Address()
	if c.cfgs[i].Address == old {
		t.Skip("SKIPPED: the system gave the same port")
	}
	c.onLeader("tell the new address", func(s *Store) error { return s.Add(t.Context(), c.cfgs[i].ID, c.cfgs[i].Address) })
	c.same()
	for _, m := range c.leader().Status().Members {
		if m.ID == c.cfgs[i].ID && (m.Address != c.cfgs[i].Address || !m.Voter) {
			t.Errorf("member %+v, want a voter at %s", m, c.cfgs[i].Address)
		}
	}
}

// TestRemoveKeepsMajority: what would leave voters that do not answer in the majority needs force.
func TestRemoveKeepsMajority(t *testing.T) {
	c := newCluster(t, 3, nil)
	down := (c.index(c.leader()) + 1) % 3
	c.stop(down)
	up := 0 // the one that answers and does not lead
	c.onLeader("refuse to remove one of two that answer", func(s *Store) error {
		up = 3 - down - c.index(s)
		err := s.Remove(t.Context(), c.cfgs[up].ID, false)
		if !errors.Is(err, ErrState) || !strings.Contains(err.Error(), c.cfgs[down].ID) {
			return fmt.Errorf("%w, want ErrState naming %s", err, c.cfgs[down].ID)
		}
		return nil
	})
	must(t, c, submit(1, "j", "local"))
	c.onLeader("remove the one that is down", func(s *Store) error { return s.Remove(t.Context(), c.cfgs[down].ID, false) })
	must(t, c, submit(2, "k", "local"))
	c.onLeader("remove the other", func(s *Store) error { return s.Remove(t.Context(), c.cfgs[up].ID, false) })
	must(t, c, submit(3, "l", "local"))
	// With force it is done all the same: the cluster stands still until the other is back.
	d := newCluster(t, 3, nil)
	l := d.leader()
	down, up = (d.index(l)+1)%3, (d.index(l)+2)%3
	d.stop(down)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := l.Remove(ctx, d.cfgs[up].ID, true); errors.Is(err, ErrState) {
		t.Errorf("remove with force: %v", err)
	}
	d.start(down)
	// Nothing acknowledged it. Who leads first decides whether it holds: the one to be removed may not have heard of it, and win.
	d.onLeader("remove again", func(s *Store) error {
		if err := s.Remove(t.Context(), d.cfgs[up].ID, true); !errors.Is(err, ErrNotFound) {
			return err
		}
		return nil
	})
	eventually(t, "two members", func() bool { return len(d.leader().Status().Members) == 2 })
	must(t, d, submit(4, "m", "local"))
}

// TestMembersUnderLoad: replicas come, catch up by snapshot and log, get their vote, and go, while commands are committed.
func TestMembersUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: catching up beside a load takes seconds, on a busy machine many")
	}
	c := newCluster(t, 3, func(cfg *Config) {
		cfg.SnapshotEvery, cfg.SnapshotInterval, cfg.TrailingLogs = 200, 300*time.Millisecond, 50
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan int)
	founders := slices.Clone(c.up)
	go func() {
		n, leads := 0, 0
		for ; ctx.Err() == nil; n++ {
			if _, err := founders[leads].Apply(ctx, submit(int64(n), fmt.Sprint("job-", n), "local")); errors.Is(err, ErrNotLeader) {
				leads = (leads + 1) % len(founders) // the lead may move when the machine is busy
				time.Sleep(time.Millisecond)
			}
		}
		done <- n
	}()
	eventually(t, "a snapshot", func() bool { return founders[0].Status().FirstLog > 200 })
	for round := range 3 {
		id := fmt.Sprint("extra-", round)
		s := c.grow(id)
		c.onLeader("add under load", func(l *Store) error { return l.Add(t.Context(), id, s.Address()) })
		voter := false
		for _, m := range c.leader().Status().Members {
			voter = voter || m.ID == id && m.Voter
		}
		if !voter {
			t.Errorf("%s has no vote after Add", id)
		}
		c.onLeader("remove under load", func(l *Store) error {
			if err := l.Remove(t.Context(), id, false); !errors.Is(err, ErrNotFound) {
				return err
			}
			return nil
		})
		c.stop(len(c.up) - 1)
	}
	cancel()
	t.Logf("%d commands meanwhile", <-done)
	c.same()
}

// TestDeleteWholeLog: what a replica does that gets a snapshot, with a log of many pages.
func TestDeleteWholeLog(t *testing.T) {
	s, err := openLogStore(filepath.Join(t.TempDir(), "raft.db"), true, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	var logs []*raft.Log
	for i := range 2000 {
		logs = append(logs, &raft.Log{Index: uint64(i + 1), Term: 1, Data: make([]byte, 200)})
	}
	for _, left := range []uint64{0, 1, 1000} {
		if err := s.StoreLogs(logs); err != nil {
			t.Fatal(err)
		}
		if err := s.DeleteRange(left+1, 2000); err != nil {
			t.Fatal(err)
		}
		if last, _ := s.LastIndex(); last != left {
			t.Errorf("the log ends at %d, want %d", last, left)
		}
		if err := s.DeleteRange(1, 2000); err != nil {
			t.Fatal(err)
		}
		if first, _ := s.FirstIndex(); first != 0 {
			t.Errorf("the log begins at %d, want none", first)
		}
	}
}
