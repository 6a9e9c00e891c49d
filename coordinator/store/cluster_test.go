package store

import (
	"context"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

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
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
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
	deadline := time.Now().Add(time.Minute)
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
	defer func() {
		if !c.t.Failed() {
			return
		}
		for _, s := range c.running() {
			c.t.Logf("%+v", s.Status())
		}
	}()
	eventually(c.t, fmt.Sprintf("all replicas to apply entry %d", want), func() bool {
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
	deadline := time.Now().Add(20 * time.Second)
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
