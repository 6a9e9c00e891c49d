package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func backupOf(t *testing.T, s *Store) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := s.Backup(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestRestore: a backup begins a new cluster, which others join.
func TestRestore(t *testing.T) {
	s := open(t, testConfig(t.TempDir()))
	fill(t, s, "j", 10)
	want, index, b := digest(t, s), s.AppliedIndex(), backupOf(t, s)
	dir := filepath.Join(t.TempDir(), "new")
	id, err := Restore(t.Context(), dir, "r0", bytes.NewReader(b))
	if err != nil || id != "r0" {
		t.Fatal(id, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.tmp")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	c := &cluster{t: t}
	cfg := testConfig(dir)
	cfg.ID, cfg.Address, cfg.Election = "r0", "127.0.0.1:0", electionInTests
	c.cfgs, c.up = append(c.cfgs, cfg), append(c.up, nil)
	t.Cleanup(func() {
		for i := range c.up {
			c.stop(i)
		}
	})
	c.start(0)
	lead(t, c.up[0])
	if got := digest(t, c.up[0]); got != want || c.up[0].AppliedIndex() != index {
		t.Errorf("restored %s at %d, want %s at %d", got, c.up[0].AppliedIndex(), want, index)
	}
	if c.up[0].Cluster() == s.Cluster() || c.up[0].Cluster() == "" {
		t.Errorf("cluster %q, want a new one", c.up[0].Cluster())
	}
	for i := 1; i < 3; i++ {
		r := c.grow(fmt.Sprint("r", i))
		c.onLeader("join", func(s *Store) error { return s.Add(t.Context(), r.ID(), r.Address()) })
	}
	must(t, c, submit(1, "after", "local"))
	c.same()
	c.stop(0)
	must(t, c, submit(2, "without the first", "local"))
	// Not over what is there, and not by half.
	if _, err := Restore(t.Context(), dir, "", bytes.NewReader(b)); !errors.Is(err, ErrExists) {
		t.Errorf("restore over a replica: %v, want ErrExists", err)
	}
	for name, damaged := range map[string][]byte{
		"cut short": b[:len(b)-5], "empty": nil, "nonsense": bytes.Repeat([]byte("x"), 5000), "a bit": append(append([]byte{}, b[:5000]...), append([]byte{b[5000] ^ 4}, b[5001:]...)...),
	} {
		if _, err := Restore(t.Context(), t.TempDir(), "", bytes.NewReader(damaged)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("restore %s: %v, want ErrCorrupt", name, err)
		}
	}
	if _, err := Restore(t.Context(), t.TempDir(), "a/b", bytes.NewReader(b)); !errors.Is(err, ErrConfig) {
		t.Errorf("restore as a/b: %v, want ErrConfig", err)
	}
}

func TestRestoreEmpty(t *testing.T) {
	s := open(t, testConfig(t.TempDir()))
	cfg := testConfig(t.TempDir())
	if _, err := Restore(t.Context(), cfg.Dir, cfg.ID, bytes.NewReader(backupOf(t, s))); err != nil {
		t.Fatal(err)
	}
	must(t, open(t, cfg), submit(1, "first", "local"))
}

func TestOpenBackup(t *testing.T) {
	s := open(t, testConfig(t.TempDir()))
	fill(t, s, "j", 3)
	path := filepath.Join(t.TempDir(), "records")
	b, err := OpenBackup(bytes.NewReader(backupOf(t, s)), path)
	if err != nil {
		t.Fatal(err)
	}
	err = b.View(func(v *View) error {
		if v.Digest() != digest(t, s) {
			t.Error("the backup holds something else")
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left: %v", path, err)
	}
	if _, err := OpenBackup(bytes.NewReader([]byte("ESPSTATE")), path); !errors.Is(err, ErrCorrupt) {
		t.Errorf("open half a head: %v, want ErrCorrupt", err)
	}
}

// TestRecover: of three replicas two are lost; the third one goes on alone with all it has, others join it, and the lost
// ones, when they come back, do not mix with it.
func TestRecover(t *testing.T) {
	c := newCluster(t, 3, nil)
	fill(t, c, "j", 6)
	want := c.same()
	before := c.up[0].Cluster()
	for i := range c.up {
		c.stop(i)
	}
	r, err := Recover(Config{Dir: c.cfgs[0].Dir})
	if err != nil {
		t.Fatal(err)
	}
	if r.ID != "r0" || len(r.Was) != 3 || r.Applied == 0 {
		t.Errorf("recovered %+v", r)
	}
	c.start(0)
	lead(t, c.up[0])
	if got := digest(t, c.up[0]); got != want {
		t.Errorf("recovered %s, want %s", got, want)
	}
	if got := c.up[0].Cluster(); got == before || got == "" {
		t.Errorf("cluster %q after %q, want a new one", got, before)
	}
	// The others come back, a majority of what was: they elect one of their own, and it does not touch this one.
	must(t, c.up[0], submit(1, "new", "local"))
	c.start(1)
	c.start(2)
	eventually(t, "the lost ones to elect a leader", func() bool {
		return c.up[1].IsLeader() && c.up[1].Barrier(t.Context()) == nil || c.up[2].IsLeader() && c.up[2].Barrier(t.Context()) == nil
	})
	lead(t, c.up[0])
	must(t, c.up[0], submit(2, "newer", "local"))
	c.stop(1)
	c.stop(2)
	// With new folders they join.
	for i := 1; i < 3; i++ {
		c.cfgs[i].Dir = t.TempDir()
		c.start(i)
		c.onLeader("join anew", func(s *Store) error { return s.Add(t.Context(), c.cfgs[i].ID, c.up[i].Address()) })
	}
	c.same()
	if _, err := Recover(Config{Dir: c.cfgs[0].Dir}); !errors.Is(err, ErrInUse) {
		t.Errorf("recover an open folder: %v, want ErrInUse", err)
	}
	if _, err := Recover(Config{Dir: t.TempDir()}); !errors.Is(err, ErrNotFound) {
		t.Errorf("recover an empty folder: %v, want ErrNotFound", err)
	}
}

// TestBoundedDisk: however many commands, the log stays short, two snapshots stay, and no temporary file does.
func TestBoundedDisk(t *testing.T) {
	c := newCluster(t, 3, func(cfg *Config) {
		cfg.SnapshotEvery, cfg.SnapshotInterval, cfg.TrailingLogs = 1<<40, time.Hour, 30 // taken below, so that the sum is the same on every machine
	})
	used := func(dir string) (total int64, snapshots int) {
		err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
			if errors.Is(err, os.ErrNotExist) {
				return nil // a snapshot that went meanwhile
			}
			if err == nil && !info.IsDir() {
				total += info.Size()
				if filepath.Base(path) == "state.bin" {
					snapshots++
				}
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
		return total, snapshots
	}
	// The same records again and again: they do not grow, only the log would, to 12 MB.
	const rounds, each, most = 15, 300, 5 << 20
	label := map[string]string{"note": strings.Repeat("x", 2500)}
	for round := range rounds {
		for i := range each {
			w := worker(int64(i), "w", fmt.Sprint("s", round, "-", i))
			w.GetPutWorker().GetWorker().Labels = label
			must(t, c, w)
		}
		c.same()
		for _, s := range c.up {
			if err := s.Snapshot(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i, cfg := range c.cfgs {
		eventually(t, "at most two snapshots, and a short log", func() bool {
			_, n := used(cfg.Dir)
			st := c.up[i].Status()
			return n <= keepSnapshots && st.LastLog-st.FirstLog < each
		})
		if total, _ := used(cfg.Dir); total > most {
			t.Errorf("%s uses %d bytes, want at most %d", cfg.ID, total, most)
		}
		if left, _ := filepath.Glob(filepath.Join(cfg.Dir, "snapshot-*.tmp")); len(left) > 1 {
			t.Errorf("%s keeps temporary files: %v", cfg.ID, left)
		}
	}
}
