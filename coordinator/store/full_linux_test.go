package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFullDisk fills a small file system, once with the store's own writes and once from
// outside, while it takes snapshots too. The store stops with a named error, keeps what it
// acknowledged, and goes on when there is room.
func TestFullDisk(t *testing.T) {
	for _, hog := range []bool{false, true} {
		t.Run(fmt.Sprint("hog=", hog), func(t *testing.T) {
			fillDisk(t, filepath.Join(smallDisk(t, "3m"), "store"), hog)
		})
	}
}

// smallDisk mounts a file system of a size, or skips.
func smallDisk(t *testing.T, size string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("SKIPPED: cannot mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestFullDiskAtStart: the state must be rebuilt, and there is room for that of an older snapshot only, from which the log does
// not go on. The store says that the disk is full, and starts when there is room.
func TestFullDiskAtStart(t *testing.T) {
	dir := smallDisk(t, "32m")
	cfg := testConfig(filepath.Join(dir, "store"))
	cfg.TrailingLogs = 2
	s := open(t, cfg)
	fill(t, s, "small", 2)
	if err := s.Snapshot(); err != nil {
		t.Fatal(err)
	}
	small := s.Status().StateBytes
	fill(t, s, "large", 300)
	if err := s.Snapshot(); err != nil {
		t.Fatal(err)
	}
	large := s.Status().StateBytes
	want := digest(t, s)
	closeStore(t, s)
	remove(t, cfg.Dir, "state.db.seal")
	remove(t, cfg.Dir, "state.db")
	if large < 3*small {
		t.Fatalf("the states have %d and %d bytes: the second must be much larger", small, large)
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(dir, &disk); err != nil {
		t.Fatal(err)
	}
	hog := filepath.Join(dir, "hog")
	if err := os.WriteFile(hog, make([]byte, int64(disk.Bavail)*disk.Bsize-large/2), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := Open(t.Context(), cfg); !errors.Is(err, ErrFull) {
		if err == nil {
			closeStore(t, s)
		}
		t.Errorf("open: %v, want ErrFull", err)
	}
	if err := os.Remove(hog); err != nil {
		t.Fatal(err)
	}
	s = open(t, cfg)
	if got := digest(t, s); got != want {
		t.Errorf("digest %s, want %s", got, want)
	}
}

func fillDisk(t *testing.T, dir string, hog bool) {
	t.Helper()
	cfg := testConfig(dir)
	cfg.NoSync = false
	s := open(t, cfg)
	var acknowledged []string
	var failure error
	hogged := filepath.Join(filepath.Dir(dir), "hog")
	for i := 0; i < 100_000; i++ {
		id := fmt.Sprint("job-", i)
		if i == 50 && hog {
			// Fails when nothing is left, which is what it is for.
			_ = os.WriteFile(hogged, bytes.Repeat([]byte("x"), 4<<20), 0o600)
		}
		if _, failure = s.Apply(t.Context(), submit(1, id, "local")); failure != nil {
			break
		}
		acknowledged = append(acknowledged, id)
		if i%200 == 199 {
			if err := s.Snapshot(); err != nil {
				t.Logf("snapshot after %d jobs: %v", i+1, err)
			}
		}
	}
	if !errors.Is(failure, ErrUncertain) || !errors.Is(failure, ErrFull) {
		t.Fatalf("after %d jobs: %v, want ErrUncertain and ErrFull", len(acknowledged), failure)
	}
	closeStore(t, s)
	// More room: the same folder elsewhere.
	cfg.Dir = copyDir(t, dir)
	s = open(t, cfg)
	err := s.View(func(v *View) error {
		for _, id := range acknowledged {
			if v.Job(id) == nil {
				t.Errorf("%s was acknowledged and is lost", id)
			}
		}
		return nil
	})
	if err != nil || len(acknowledged) == 0 {
		t.Fatalf("%d acknowledged, %v", len(acknowledged), err)
	}
	must(t, s, submit(1, "more", "local"))
	t.Logf("%d jobs fitted", len(acknowledged))
}
