package store

import (
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
)

// TestDropAll drops a log of many pages at once, as after the installation of a snapshot.
// Asking bbolt for the last entry then never ended.
func TestDropAll(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	s, err := openLogStore(path, true, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		var logs []*raft.Log
		for i := range uint64(100) {
			logs = append(logs, &raft.Log{Index: s.last + 1 + i, Term: 1, Data: make([]byte, 500)})
		}
		if err := s.StoreLogs(logs); err != nil {
			t.Fatal(err)
		}
		last := s.last
		if err := s.DeleteRange(1, last); err != nil {
			t.Fatal(err)
		}
		if s.first != 0 || s.last != 0 {
			t.Errorf("%d to %d are left", s.first, s.last)
		}
		if err := s.StoreLog(&raft.Log{Index: last + 1, Term: 2}); err != nil {
			t.Fatal(err)
		}
		if s.first != last+1 || s.last != last+1 {
			t.Errorf("%d to %d, want %d", s.first, s.last, last+1)
		}
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
		if s, err = openLogStore(path, true, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
}
