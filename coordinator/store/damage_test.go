package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

func TestRestart(t *testing.T) {
	cfg := testConfig(t.TempDir())
	s := open(t, cfg)
	fill(t, s, "j", 20)
	want, index := digest(t, s), s.AppliedIndex()
	closeStore(t, s)
	damage := map[string]func(t *testing.T, dir string){
		"as it was":        func(*testing.T, string) {},
		"state gone":       func(t *testing.T, dir string) { remove(t, dir, "state.db") },
		"seal gone":        func(t *testing.T, dir string) { remove(t, dir, "state.db.seal") },
		"seal nonsense":    func(t *testing.T, dir string) { write(t, dir, "state.db.seal", []byte("{]")) },
		"state cut short":  func(t *testing.T, dir string) { resize(t, dir, "state.db", 0.5) },
		"state empty":      func(t *testing.T, dir string) { resize(t, dir, "state.db", 0) },
		"state with a bit": func(t *testing.T, dir string) { flip(t, dir, "state.db", 9000) },
		"state nonsense":   func(t *testing.T, dir string) { write(t, dir, "state.db", bytes.Repeat([]byte("x"), 20000)) },
		"half a snapshot": func(t *testing.T, dir string) {
			write(t, dir, "snapshot-1.tmp", []byte("x"))
			if err := os.MkdirAll(filepath.Join(dir, "snapshots", "2-9-1.tmp"), 0o700); err != nil {
				t.Fatal(err)
			}
		},
		"half a restore": func(t *testing.T, dir string) { write(t, dir, "state.db.new", []byte("x")) },
	}
	for name, f := range damage {
		t.Run(name, func(t *testing.T) {
			next := cfg
			next.Dir = copyDir(t, cfg.Dir)
			f(t, next.Dir)
			s := open(t, next)
			if got := digest(t, s); got != want {
				t.Errorf("digest %s, want %s", got, want)
			}
			if s.AppliedIndex() != index {
				t.Errorf("applied %d, want %d", s.AppliedIndex(), index)
			}
			must(t, s, submit(9000, "after", "local"))
			for _, pattern := range []string{"*.tmp", "snapshots/*.tmp"} {
				if left, err := filepath.Glob(filepath.Join(next.Dir, pattern)); err != nil || len(left) > 0 {
					t.Errorf("left behind: %v, %v", left, err)
				}
			}
		})
	}
}

func remove(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, dir, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func resize(t *testing.T, dir, name string, part float64) {
	t.Helper()
	path := filepath.Join(dir, name)
	st, err := os.Stat(path)
	if err == nil {
		err = os.Truncate(path, int64(float64(st.Size())*part))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func flip(t *testing.T, dir, name string, at int) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	b[at%len(b)] ^= 0x10
	write(t, dir, name, b)
}

// TestSnapshots: state rebuilt from a snapshot and the rest of the log; the log is cut.
func TestSnapshots(t *testing.T) {
	cfg := testConfig(t.TempDir())
	cfg.TrailingLogs = 5
	s := open(t, cfg)
	for i := range 4 {
		fill(t, s, fmt.Sprint("j", i), 8)
		if err := s.Snapshot(); err != nil {
			t.Fatal(err)
		}
	}
	must(t, s, submit(1, "late", "local"))
	want := digest(t, s)
	if first, last := s.logs.first, s.logs.last; last-first > 10 {
		t.Errorf("log holds %d to %d after snapshots", first, last)
	}
	crashed := copyDir(t, cfg.Dir)
	closeStore(t, s)
	for _, dir := range []string{cfg.Dir, crashed} {
		cfg.Dir = dir
		s = open(t, cfg)
		if got := digest(t, s); got != want {
			t.Errorf("digest %s, want %s", got, want)
		}
		closeStore(t, s)
	}
	// Without the newest snapshot the cut log is not enough, and that is said.
	snaps, err := filepath.Glob(filepath.Join(crashed, "snapshots", "*"))
	if err != nil || len(snaps) != keepSnapshots {
		t.Fatalf("snapshots %v, %v: want %d", snaps, err, keepSnapshots)
	}
	newest := slices.MaxFunc(snaps, func(a, b string) int { return snapshotIndex(t, a) - snapshotIndex(t, b) })
	if err := os.RemoveAll(newest); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), cfg); !errors.Is(err, ErrCorrupt) {
		t.Errorf("open without the newest snapshot: %v, want ErrCorrupt", err)
	}
}

// snapshotIndex reads the index in a snapshot's name: term-index-time.
func snapshotIndex(t *testing.T, path string) int {
	t.Helper()
	parts := strings.Split(filepath.Base(path), "-")
	n, err := strconv.Atoi(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestSnapshotsByThemselves: enough entries make one due.
func TestSnapshotsByThemselves(t *testing.T) {
	cfg := testConfig(t.TempDir())
	cfg.TrailingLogs, cfg.SnapshotEvery, cfg.SnapshotInterval = 5, 20, 10*time.Millisecond
	s := open(t, cfg)
	fill(t, s, "j", 20)
	eventually(t, "a snapshot", func() bool {
		snaps, err := filepath.Glob(filepath.Join(cfg.Dir, "snapshots", "*-*-*"))
		return err == nil && len(snaps) > 0 && !strings.HasSuffix(snaps[0], ".tmp")
	})
}

// TestCrash copies the folder while the store works; whatever was acknowledged before
// the copy is there after it.
func TestCrash(t *testing.T) {
	cfg := testConfig(t.TempDir())
	s := open(t, cfg)
	fill(t, s, "j", 10)
	want := digest(t, s)
	next := cfg
	next.Dir = copyDir(t, cfg.Dir)
	if got := digest(t, open(t, next)); got != want {
		t.Errorf("digest %s, want %s", got, want)
	}
}

// TestDamagedLog: bits flipped, the file cut, everywhere. Opening gives the state of
// some moment that was, or ErrCorrupt; never another state, and no panic.
func TestDamagedLog(t *testing.T) {
	cfg := testConfig(t.TempDir())
	s := open(t, cfg)
	good := map[string]bool{digest(t, s): true}
	step := func(c *v1.Command) {
		must(t, s, c)
		good[digest(t, s)] = true
	}
	step(worker(1, "w", "s"))
	for i := range 12 {
		job := fmt.Sprint("j", i)
		step(submit(2, job, "local"))
		step(lease(3, job+"/baseline", job, "w", "s"))
		step(reportBaseline(4, job+"/baseline", 1, "w", "s"))
	}
	last := digest(t, s)
	closeStore(t, s)
	log, err := os.ReadFile(filepath.Join(cfg.Dir, "raft.db"))
	if err != nil {
		t.Fatal(err)
	}
	kept, refused := 0, 0
	try := func(name string, image []byte) {
		cfg.Dir = t.TempDir()
		write(t, cfg.Dir, "raft.db", image)
		s, err := Open(t.Context(), cfg)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s: %v, want ErrCorrupt", name, err)
			}
			refused++
			return
		}
		defer closeStore(t, s)
		lead(t, s)
		switch got := digest(t, s); {
		case got == last:
			kept++
		case !good[got]:
			t.Errorf("%s: a state that never was", name)
		}
	}
	for at := 0; at < len(log); at += 1009 {
		image := slices.Clone(log)
		image[at] ^= 1 << (at % 8)
		try(fmt.Sprintf("bit flipped at %d", at), image)
	}
	for size := 1; size < len(log); size += 4096 - 7 {
		try(fmt.Sprintf("cut to %d of %d", size, len(log)), log[:size])
	}
	t.Logf("%d kept everything, %d refused", kept, refused)
	if kept == 0 || refused == 0 {
		t.Error("the damage was all in one place")
	}
}
