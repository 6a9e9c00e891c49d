package store

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"
)

// failingReader fails one of its reads, or gives too little there.
type failingReader struct {
	io.ReaderAt
	left int
	err  error
}

func (f *failingReader) ReadAt(p []byte, at int64) (int, error) {
	f.left--
	if f.left == 0 {
		n, _ := f.ReaderAt.ReadAt(p[:len(p)/2], at)
		return n, f.err
	}
	return f.ReaderAt.ReadAt(p, at)
}

// TestFailingReads: whichever read of the inspection fails, the file is refused and the
// cause named. It never passes with an older meta page.
func TestFailingReads(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	s, err := openLogStore(path, true, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint64(300) {
		if err := s.StoreLog(&raft.Log{Index: i + 1, Term: 1, Data: make([]byte, 200)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, cause := range []error{syscall.EIO, io.ErrUnexpectedEOF} {
		n := 1
		for ; ; n++ {
			r := &failingReader{bytes.NewReader(b), n, cause}
			err := checkBoltPages(r, int64(len(b)))
			if r.left > 0 {
				if err != nil {
					t.Errorf("without a failure: %v", err)
				}
				break
			}
			if !errors.Is(err, cause) {
				t.Errorf("read %d fails: %v, want %v", n, err, cause)
			}
		}
		if n < 10 {
			t.Errorf("only %d reads", n)
		}
	}
}
