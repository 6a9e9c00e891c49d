package files

import (
	"bytes"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFullDisk uploads to a file system of 64 KB.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("SKIPPED: cannot mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	s, err := Open(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	small := put(t, s, content(1, 5000))
	data := content(2, 100_000)
	if err := s.Put(t.Context(), refOf(data), bytes.NewReader(data)); !errors.Is(err, ErrFull) {
		t.Fatalf("%v, want ErrFull", err)
	}
	if _, err := s.Add(t.Context(), bytes.NewReader(data)); !errors.Is(err, ErrFull) {
		t.Fatalf("add: %v, want ErrFull", err)
	}
	if u, err := s.Usage(); err != nil || u.Files != 1 || u.PartialBytes != 0 {
		t.Errorf("usage %+v, %v: want the one file and nothing half-written", u, err)
	}
	if err := s.Verify(t.Context(), small.Hash); err != nil {
		t.Error(err)
	}
	put(t, s, content(3, 5000))
}
