package store

import (
	"bytes"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestCrashImagesOfState mixes pages of the state file before and after a transaction, which
// nothing orders since it is written without fsync, with each seal there was: the file is
// taken whole, or begun anew.
func TestCrashImagesOfState(t *testing.T) {
	rng := crashRand(t)
	most := 400
	if testing.Short() {
		most = 40
	}
	dir := memoryDir(t)
	path := filepath.Join(dir, "state.db")
	var states, seals []image
	digests := map[uint64]string{}
	for i := range 3 {
		l, err := OpenLocal(dir)
		if err != nil {
			t.Fatal(err)
		}
		fill(t, l, fmt.Sprint("j", i), 12)
		digests[l.index] = digest(t, l)
		states = append(states, readImage(t, path)) // as a crash leaves it, about
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if err := sealState(path, l.index); err != nil {
			t.Fatal(err)
		}
		states = append(states, readImage(t, path))
		seals = append(seals, readImage(t, sealPath(path)))
	}
	seals = append(seals, image{})
	kept, anew := 0, 0
	try := func(state, seal image) {
		state.write(t, path)
		seal.write(t, sealPath(path))
		db, ok, applied, err := openState(path)
		if err != nil {
			t.Fatalf("open an image: %v", err)
		}
		f, err := newFSM(path, db, 0)
		if err != nil {
			t.Fatal(err)
		}
		l := &Local{fsm: f}
		switch {
		case !ok && f.applied.get() == 0:
			anew++
		case ok && digest(t, l) == digests[applied]:
			kept++
		default:
			t.Errorf("kept %t at entry %d: a state that never was", ok, f.applied.get())
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	for range most {
		at := rng.IntN(len(states) - 1)
		seal := seals[rng.IntN(len(seals))]
		m := states[at].clone()
		data, _ := diff(states[at], states[at+1])
		for _, p := range append(data, 0, 1) {
			for s := 0; s < page; s += sector {
				if rng.IntN(2) == 0 {
					m.put(states[at+1], p*page+s, sector)
				}
			}
		}
		try(m, seal)
		try(states[at], seal)
		torn := seal.clone()
		torn.data = torn.data[:rng.IntN(len(torn.data)+1)]
		torn.size = int64(len(torn.data))
		try(states[at+1], torn)
	}
	t.Logf("%d images: %d kept, %d begun anew", kept+anew, kept, anew)
	if kept == 0 || anew == 0 {
		t.Error("all images were of one kind")
	}
}

// snapshotImages is a replica's folder before and after a snapshot.
type snapshotImages struct {
	t             *testing.T
	cfg           Config
	before, after string
	name          string // of the new snapshot
	want          string // digest of all that was acknowledged
	head          []byte // its checksum of the metadata, which is written first
	opened        map[string]*outcomes
}

func newSnapshotImages(t *testing.T) *snapshotImages {
	t.Helper()
	cfg := testConfig(t.TempDir())
	cfg.TrailingLogs = 5
	s := open(t, cfg)
	for i := range 3 {
		fill(t, s, fmt.Sprint("j", i), 8)
		if i < 2 {
			if err := s.Snapshot(); err != nil {
				t.Fatal(err)
			}
		}
	}
	c := &snapshotImages{t: t, cfg: cfg, before: copyDir(t, cfg.Dir), opened: map[string]*outcomes{}, want: digest(t, s)}
	if err := s.Snapshot(); err != nil {
		t.Fatal(err)
	}
	c.after = copyDir(t, cfg.Dir)
	closeStore(t, s)
	snaps, err := os.ReadDir(filepath.Join(c.after, "snapshots"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range snaps {
		if _, err := os.Stat(filepath.Join(c.before, "snapshots", e.Name())); errors.Is(err, os.ErrNotExist) {
			c.name = e.Name()
		}
	}
	return c
}

// try opens a copy of a folder after a change. possible: a crash can leave it so.
func (c *snapshotImages) try(kind, dir string, possible bool, change func(dir string) error) {
	t := c.t
	t.Helper()
	cfg := c.cfg
	cfg.Dir = memoryDir(t)
	if err := os.CopyFS(cfg.Dir, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := change(cfg.Dir); err != nil {
		t.Fatal(err)
	}
	n := c.opened[kind]
	if n == nil {
		n = &outcomes{}
		c.opened[kind] = n
	}
	s, err := Open(t.Context(), cfg)
	if err != nil {
		n.refused++
		if possible || !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", kind, err)
		}
		return
	}
	defer closeStore(t, s)
	for deadline := time.Now().Add(time.Minute); !s.IsLeader() || s.Barrier(t.Context()) != nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("%s: the replica does not lead", kind)
			return
		}
	}
	n.after++
	if got := digest(t, s); got != c.want {
		t.Errorf("%s: digest %s, want %s", kind, got, c.want)
	}
	if left, err := filepath.Glob(filepath.Join(cfg.Dir, "snapshots", "*.tmp")); err != nil || len(left) > 0 {
		t.Errorf("%s: left behind: %v, %v", kind, left, err)
	}
}

func (c *snapshotImages) file(dir, name string) []byte {
	c.t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "snapshots", c.name, name))
	if err != nil {
		c.t.Fatal(err)
	}
	return b
}

// half writes the new snapshot as far as it came; nil leaves a file out.
func (c *snapshotImages) half(as string, state, meta []byte) func(string) error {
	return func(dir string) error {
		to := filepath.Join(dir, "snapshots", as)
		err := errors.Join(os.MkdirAll(to, 0o700), os.WriteFile(filepath.Join(to, headFile), c.head, 0o600))
		if state != nil {
			err = errors.Join(err, os.WriteFile(filepath.Join(to, "state.bin"), state, 0o600))
		}
		if meta != nil {
			err = errors.Join(err, os.WriteFile(filepath.Join(to, "meta.json"), meta, 0o600))
		}
		return err
	}
}

// cuts are lengths at which a file of n bytes may end.
func cuts(rng *mrand.Rand, n, most int) (out []int) {
	for range most {
		out = append(out, rng.IntN(n+1))
	}
	return append(out, 0, n)
}

// TestCrashImagesOfSnapshots interrupts a snapshot at each of its steps, and damages a
// finished one. What was acknowledged is there; a damaged snapshot that is needed is
// ErrCorrupt.
func TestCrashImagesOfSnapshots(t *testing.T) {
	rng := crashRand(t)
	most := 24
	if testing.Short() {
		most = 3
	}
	c := newSnapshotImages(t)
	state, meta := c.file(c.after, "state.bin"), c.file(c.after, "meta.json")
	c.head = c.file(c.after, headFile)
	nothing := func(string) error { return nil }
	c.try("before it began", c.before, true, nothing)
	c.try("folder made", c.before, true, c.half(c.name+".tmp", nil, nil))
	for _, n := range cuts(rng, len(state), most) {
		c.try("the state copied in part", c.before, true, func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "snapshot-7.tmp"), state[:n], 0o600)
		})
		c.try("the state written in part", c.before, true, c.half(c.name+".tmp", state[:n], meta))
	}
	for _, n := range cuts(rng, len(meta), most) {
		c.try("the metadata written in part", c.before, true, c.half(c.name+".tmp", state, meta[:n]))
	}
	c.try("named, the log not cut", c.before, true, c.half(c.name, state, meta))
	old, err := os.ReadDir(filepath.Join(c.before, "snapshots"))
	if err != nil {
		t.Fatal(err)
	}
	oldest := slices.MinFunc(old, func(a, b os.DirEntry) int { return strings.Compare(a.Name(), b.Name()) }).Name()
	for _, gone := range []string{"state.bin", "meta.json"} {
		c.try("an older one removed in part", c.before, true, func(dir string) error {
			return errors.Join(c.half(c.name, state, meta)(dir), os.Remove(filepath.Join(dir, "snapshots", oldest, gone)))
		})
	}
	c.try("finished", c.after, true, nothing)

	for _, n := range cuts(rng, len(state)-1, most) {
		c.try("finished, its state cut", c.after, false, c.half(c.name, state[:n], nil))
		c.try("named, its state cut, the log not cut", c.before, false, c.half(c.name, state[:n], meta))
		bad := bytes.Clone(state)
		bad[n] ^= 1 << rng.IntN(8)
		c.try("finished, a bit of its state flipped", c.after, false, c.half(c.name, bad, nil))
	}
	for _, n := range cuts(rng, len(meta)-1, most) {
		c.try("finished, its metadata cut", c.after, false, c.half(c.name, nil, meta[:n]))
		bad := bytes.Clone(meta)
		bad[n] ^= 1 << rng.IntN(8)
		c.try("finished, a bit of its metadata flipped", c.after, false, c.half(c.name, nil, bad))
	}
	logOutcomes(t, c.opened)
}
