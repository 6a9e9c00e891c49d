package store

import (
	"io"
	"os"
	"path/filepath"
)

// paceBytes of a snapshot are written at a time.
const paceBytes = 1 << 20

// paced writes a large file a little at a time: each time it waits until that is on disk. Left to the one fsync at the
// end, all of it would stand in the disk's queue before the fsyncs of the log, and results would wait for it.
type paced struct {
	w io.Writer
	// f is the file that w writes, opened once more.
	f        *os.File
	unsynced int
}

// paceSnapshot writes to w, which is the snapshot of an id that Raft's file store is writing in dir. What cannot be paced is
// written as it is.
func paceSnapshot(w io.Writer, dir, id string) *paced {
	f, err := os.OpenFile(filepath.Join(dir, "snapshots", id+".tmp", "state.bin"), os.O_WRONLY, 0)
	if err != nil {
		return &paced{w: w}
	}
	return &paced{w: w, f: f}
}

// Write implements io.Writer.
func (p *paced) Write(b []byte) (n int, err error) {
	for err == nil && n < len(b) {
		var m int
		m, err = p.w.Write(b[n:min(len(b), n+paceBytes)])
		n += m
		if p.unsynced += m; p.unsynced >= paceBytes && p.f != nil {
			_ = p.f.Sync() // Raft syncs again at the end, and heeds it
			p.unsynced = 0
		}
	}
	return n, err
}

func (p *paced) close() {
	if p.f != nil {
		_ = p.f.Close() // nothing was written through it
	}
}
