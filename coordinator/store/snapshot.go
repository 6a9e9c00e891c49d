package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"
	"time"

	"github.com/hashicorp/raft"
	bolt "go.etcd.io/bbolt"
)

// A snapshot, and a backup, is
//
//	"ESPSTATE" format(1) applied index(8) length(8), the state file, crc32c(4)
//
// big endian; the checksum is of all that stands before it.
const (
	snapshotMagic  = "ESPSTATE"
	snapshotFormat = 1
	snapshotHead   = len(snapshotMagic) + 1 + 8 + 8
)

// snapshotBytes is the length of a snapshot of a state file of size bytes.
func snapshotBytes(size int64) int64 { return int64(snapshotHead) + size + 4 }

// snapshot holds a read transaction until Persist has copied the state.
type snapshot struct {
	tx  *bolt.Tx
	dir string
	// persisted, if set, is told how long writing took.
	persisted func(time.Duration)
}

// Persist copies the state to a temporary file, lets go of the transaction, so that
// the state file can reuse its pages, and only then writes to the sink, which may be
// slow.
func (s *snapshot) Persist(sink raft.SnapshotSink) error {
	begin := time.Now()
	out := paceSnapshot(sink, s.dir, sink.ID())
	defer out.close()
	err := s.persist(out)
	if err != nil {
		return errors.Join(fmt.Errorf("persist snapshot: %w", diskError(err)), sink.Cancel())
	}
	if err := sink.Close(); err != nil {
		return err
	}
	if s.persisted != nil {
		s.persisted(time.Since(begin))
	}
	return nil
}

func (s *snapshot) persist(w io.Writer) error {
	tmp, err := os.CreateTemp(s.dir, "snapshot-*.tmp")
	if err != nil {
		return err
	}
	defer func() {
		_ = tmp.Close()
		_ = os.Remove(tmp.Name())
	}()
	applied, size := (&txn{tx: s.tx}).applied(), s.tx.Size()
	_, err = s.tx.WriteTo(tmp)
	s.Release()
	if err != nil {
		return err
	}
	if _, err := tmp.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return sendState(w, tmp, applied, size)
}

// Release ends the transaction; further calls do nothing.
func (s *snapshot) Release() {
	if s.tx != nil {
		_ = s.tx.Rollback() // of a read transaction: only says that it had ended
		s.tx = nil
	}
}

// sendState writes a snapshot of size bytes read from r.
func sendState(w io.Writer, r io.Reader, applied uint64, size int64) error {
	sum := crc32.New(castagnoli)
	out := io.MultiWriter(w, sum)
	head := append([]byte(snapshotMagic), snapshotFormat)
	head = binary.BigEndian.AppendUint64(head, applied)
	head = binary.BigEndian.AppendUint64(head, uint64(size))
	if _, err := out.Write(head); err != nil {
		return err
	}
	if n, err := io.Copy(out, r); err != nil || n != size {
		return errors.Join(err, wantBytes(n, size))
	}
	_, err := w.Write(binary.BigEndian.AppendUint32(nil, sum.Sum32()))
	return err
}

func wantBytes(n, size int64) error {
	if n == size {
		return nil
	}
	return fmt.Errorf("state has %d bytes, want %d", n, size)
}

// readHead reads a snapshot's head.
func readHead(r io.Reader, sum hash.Hash32) (applied uint64, size int64, err error) {
	head := make([]byte, snapshotHead)
	if _, err := io.ReadFull(r, head); err != nil {
		return 0, 0, fmt.Errorf("%w: snapshot is cut short: %w", ErrCorrupt, err)
	}
	sum.Write(head)
	if string(head[:len(snapshotMagic)]) != snapshotMagic {
		return 0, 0, fmt.Errorf("%w: not a snapshot of a store", ErrCorrupt)
	}
	rest := head[len(snapshotMagic):]
	if rest[0] != snapshotFormat {
		return 0, 0, fmt.Errorf("%w: snapshot has format %d, this build reads %d", ErrCorrupt, rest[0], snapshotFormat)
	}
	size = int64(binary.BigEndian.Uint64(rest[9:]))
	if size < 0 {
		return 0, 0, fmt.Errorf("%w: snapshot has a state of %d bytes", ErrCorrupt, size)
	}
	return binary.BigEndian.Uint64(rest[1:]), size, nil
}

// receiveState writes the state file of a snapshot to path and verifies it. Whatever
// stood there before is lost.
func receiveState(r io.Reader, path string) error {
	sum := crc32.New(castagnoli)
	_, size, err := readHead(r, sum)
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	n, err := io.Copy(io.MultiWriter(f, sum), io.LimitReader(r, size))
	if err = errors.Join(err, f.Close()); err != nil {
		return diskError(err)
	}
	tail := make([]byte, 4)
	if _, err := io.ReadFull(r, tail); err != nil || n != size {
		return fmt.Errorf("%w: snapshot is cut short after %d of %d bytes", ErrCorrupt, n, size)
	}
	if binary.BigEndian.Uint32(tail) != sum.Sum32() {
		return fmt.Errorf("%w: snapshot has a wrong checksum", ErrCorrupt)
	}
	return checkState(path)
}
