package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	bolt "go.etcd.io/bbolt"
)

// Buckets of the log file.
var (
	bucketLog    = []byte("log")
	bucketStable = []byte("stable")
)

// Keys of bucketStable besides Raft's own.
var (
	// keyReplica holds the replica's id.
	keyReplica = []byte("espalier-replica")
	// keyBounds holds what the log is as a whole, written with each change; see bounds.
	keyBounds = []byte("espalier-bounds")
)

// errStableNotFound has the very text that raft compares with.
var errStableNotFound = errors.New("not found")

// logStore is raft's log and stable store on one bbolt file. Every write is on disk
// when it returns. After a failed write it refuses all others: what the kernel did to
// the pages of a failed fsync is unknown, so only opening the file again tells.
type logStore struct {
	db   *bolt.DB
	path string
	// onFail is told of the first failed write.
	onFail func(error)
	// wrote is told how long each write took.
	wrote func(time.Duration)
	// halted is closed when nothing leaves this replica any more; see stable writes.
	halted chan struct{}

	// writing is held through a transaction; sum belongs to it.
	writing sync.Mutex
	sum     uint32

	mu          sync.Mutex
	first, last uint64
	failed      error
}

var (
	_ raft.LogStore    = (*logStore)(nil)
	_ raft.StableStore = (*logStore)(nil)
)

// openLogStore opens or creates the log file. Its errors wrap ErrInUse, ErrCorrupt or
// the cause.
func openLogStore(path string, noSync bool, maxBytes int) (*logStore, error) {
	if err := makeLogFile(path, noSync); err != nil {
		return nil, fmt.Errorf("make log %s: %w", path, diskError(err))
	}
	if !noSync {
		if err := settle(path); err != nil {
			return nil, fmt.Errorf("open log %s: %w", path, diskError(err))
		}
	}
	if err := checkBoltFile(path); err != nil {
		return nil, err
	}
	db, err := openBolt(path, logOptions(noSync, maxBytes))
	if err != nil {
		return nil, err
	}
	s := &logStore{db: db, path: path, onFail: func(error) {}, wrote: func(time.Duration) {}, halted: make(chan struct{})}
	if err := s.init(); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

func logOptions(noSync bool, maxBytes int) boltOptions {
	return boltOptions{noSync: noSync, mmapBytes: 64 << 20, maxBytes: maxBytes}
}

// makeLogFile makes an empty log file if there is none. It gets its name when it is
// complete and on disk: a file that a crash left half made would look like a damaged one.
func makeLogFile(path string, noSync bool) error {
	if st, err := os.Stat(path); err == nil && st.Size() > 0 || err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "raft-*.new")
	if err != nil {
		return err
	}
	tmp := f.Name()
	defer func() { _ = os.Remove(tmp) }() // is gone when all went well
	if err := f.Close(); err != nil {
		return err
	}
	db, err := openBolt(tmp, boltOptions{noSync: noSync})
	if err != nil {
		return err
	}
	if err := errors.Join(db.Update(createLog), db.Close()); err != nil {
		return err
	}
	// Not over the file of another process that did the same meanwhile.
	if err := os.Link(tmp, path); errors.Is(err, os.ErrExist) {
		if st, err := os.Stat(path); err != nil || st.Size() > 0 {
			return err
		}
		return os.Rename(tmp, path)
	} else if err != nil { // a file system without links
		return os.Rename(tmp, path)
	}
	return nil
}

func (s *logStore) init() error {
	return guardBolt(s.path, func() error {
		fresh := false
		err := s.db.View(func(tx *bolt.Tx) (err error) {
			if fresh, err = checkBuckets(tx); fresh || err != nil {
				return err
			}
			return s.verify(tx)
		})
		if err == nil && fresh {
			err = s.db.Update(createLog)
		}
		if err != nil {
			return fmt.Errorf("open log %s: %w", s.path, diskError(err))
		}
		return nil
	})
}

// checkBuckets tells whether the file is a new one. One that has other buckets than it
// should, or not all of them, is damaged.
func checkBuckets(tx *bolt.Tx) (fresh bool, err error) {
	var have []string
	err = tx.ForEach(func(name []byte, _ *bolt.Bucket) error {
		have = append(have, string(name))
		return nil
	})
	if err != nil || slices.Equal(have, []string{string(bucketLog), string(bucketStable)}) {
		return false, err
	}
	// bbolt's own first transaction has number 1.
	if len(have) > 0 || tx.ID() > 1 {
		return false, fmt.Errorf("%w: it has buckets %q after %d transactions", ErrCorrupt, have, tx.ID())
	}
	return true, nil
}

// createLog makes the buckets of a new file.
func createLog(tx *bolt.Tx) error {
	if _, err := tx.CreateBucket(bucketLog); err != nil {
		return err
	}
	stable, err := tx.CreateBucket(bucketStable)
	if err != nil {
		return err
	}
	return stable.Put(keyBounds, sealValue(keyBounds, bounds{txn: uint64(tx.ID())}.encode()))
}

// verify reads everything once: damage is found at the start, not in the middle of an
// election. It also learns the first and last index.
func (s *logStore) verify(tx *bolt.Tx) error {
	c := tx.Bucket(bucketLog).Cursor()
	have := bounds{txn: uint64(tx.ID())}
	var l raft.Log
	for k, v := c.First(); k != nil; k, v = c.Next() {
		index := beUint64(k)
		if index == 0 || (have.last != 0 && index != have.last+1) {
			return fmt.Errorf("%w: entry %d follows entry %d", ErrCorrupt, index, have.last)
		}
		if err := decodeLog(index, v, &l); err != nil {
			return err
		}
		if have.first == 0 {
			have.first = index
		}
		have.last = index
		have.sum ^= storedSum(v)
	}
	stable := tx.Bucket(bucketStable)
	err := stable.ForEach(func(k, v []byte) error {
		if !bytes.Equal(k, keyBounds) {
			have.sum ^= storedSum(v)
		}
		_, err := openValue(k, v)
		return err
	})
	if err != nil {
		return err
	}
	left, err := readBounds(stable)
	if err != nil {
		return err
	}
	if left.txn == 0 { // of an older build, which kept neither
		left.txn, left.sum = have.txn, have.sum
	}
	if left != have {
		return fmt.Errorf("%w: it has entries %d to %d with sum %08x in transaction %d, and was left with %d to %d, %08x, %d", ErrCorrupt,
			have.first, have.last, have.sum, have.txn, left.first, left.last, left.sum, left.txn)
	}
	s.first, s.last, s.sum = have.first, have.last, have.sum
	return nil
}

// bounds is what each transaction leaves about the log as a whole. Without it pages of
// an older transaction, whole in themselves, could pass for the newest ones.
type bounds struct {
	first, last uint64
	// txn is the number of the transaction.
	txn uint64
	// sum is the exclusive or of the checksums of all entries and all stable values.
	sum uint32
}

// remove takes the entries min to max away, at either end.
func (b *bounds) remove(min, max uint64) {
	switch {
	case max < b.first || min > b.last:
	case min <= b.first && max >= b.last:
		b.first, b.last = 0, 0
	case min <= b.first:
		b.first = max + 1
	case max >= b.last:
		b.last = min - 1
	}
}

func (b bounds) encode() []byte {
	var out []byte
	for _, n := range []uint64{b.first, b.last, b.txn} {
		out = binary.BigEndian.AppendUint64(out, n)
	}
	return binary.BigEndian.AppendUint32(out, b.sum)
}

// readBounds also reads those of older builds, which had but the first two numbers: then
// txn is 0.
func readBounds(stable *bolt.Bucket) (bounds, error) {
	b, err := openValue(keyBounds, stable.Get(keyBounds))
	switch {
	case err != nil:
		return bounds{}, err
	case len(b) == 16:
		return bounds{first: beUint64(b[:8]), last: beUint64(b[8:])}, nil
	case len(b) != 28:
		return bounds{}, fmt.Errorf("%w: the log's bounds have %d bytes", ErrCorrupt, len(b))
	}
	return bounds{beUint64(b[:8]), beUint64(b[8:16]), beUint64(b[16:24]), binary.BigEndian.Uint32(b[24:])}, nil
}

// sealValue and openValue put a checksum of key and value behind a value.
func sealValue(key, val []byte) []byte {
	sum := crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, val)
	return binary.BigEndian.AppendUint32(append([]byte{}, val...), sum)
}

func openValue(key, b []byte) ([]byte, error) {
	if len(b) < 4 || string(sealValue(key, b[:len(b)-4])) != string(b) {
		return nil, fmt.Errorf("%w: value %q has a wrong checksum", ErrCorrupt, key)
	}
	return append([]byte{}, b[:len(b)-4]...), nil
}

// size is the length of the log file, as far as it is in use.
func (s *logStore) size() int64 { return boltSize(s.db.View) }

func (s *logStore) close() error { return s.db.Close() }

// FirstIndex is the index of the first entry, 0 for none.
func (s *logStore) FirstIndex() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.first, nil
}

// LastIndex is the index of the last entry, 0 for none.
func (s *logStore) LastIndex() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last, nil
}

// GetLog reads an entry; raft.ErrLogNotFound if there is none.
func (s *logStore) GetLog(index uint64, l *raft.Log) error {
	return s.db.View(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketLog).Get(binary.BigEndian.AppendUint64(nil, index))
		if b == nil {
			return raft.ErrLogNotFound
		}
		return decodeLog(index, b, l)
	})
}

// StoreLog appends one entry.
func (s *logStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs appends entries in one transaction.
func (s *logStore) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	return s.update(func(tx *bolt.Tx, next *bounds) error {
		b := tx.Bucket(bucketLog)
		b.FillPercent = 0.95 // entries only ever come at the end
		for _, l := range logs {
			key, val := binary.BigEndian.AppendUint64(nil, l.Index), encodeLog(l)
			next.sum ^= storedSum(b.Get(key)) ^ storedSum(val)
			if err := b.Put(key, val); err != nil {
				return fmt.Errorf("store log entry %d: %w", l.Index, err)
			}
			if next.first == 0 {
				next.first = l.Index
			}
			next.last = max(next.last, l.Index)
		}
		return nil
	})
}

// IsMonotonic tells raft to keep the log without gaps: after installing a snapshot it
// deletes the entries before it.
func (s *logStore) IsMonotonic() bool { return true }

// DeleteRange removes the entries min to max, both included.
func (s *logStore) DeleteRange(min, max uint64) error {
	return s.update(func(tx *bolt.Tx, next *bounds) error {
		c := tx.Bucket(bucketLog).Cursor()
		for k, v := c.Seek(binary.BigEndian.AppendUint64(nil, min)); k != nil && beUint64(k) <= max; k, v = c.Next() {
			next.sum ^= storedSum(v)
			if err := c.Delete(); err != nil {
				return fmt.Errorf("delete log entry %d: %w", beUint64(k), err)
			}
		}
		next.remove(min, max)
		return nil
	})
}

// update runs one write transaction on the log, with its bounds, unless a write failed
// before. f keeps the bounds, all but the transaction's number. It must not ask bbolt for
// the last entry: after the last one of several pages was deleted, Cursor.Last of bbolt
// 1.5.0 never returns.
func (s *logStore) update(f func(tx *bolt.Tx, next *bounds) error) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.failure(); err != nil {
		return err
	}
	next := bounds{first: s.first, last: s.last, sum: s.sum} // written under writing alone
	begin := time.Now()
	err := s.db.Update(func(tx *bolt.Tx) error {
		if err := f(tx, &next); err != nil {
			return err
		}
		next.txn = uint64(tx.ID())
		return tx.Bucket(bucketStable).Put(keyBounds, sealValue(keyBounds, next.encode()))
	})
	if err != nil {
		err = fmt.Errorf("%w: write log %s: %w", ErrFailed, s.path, diskError(err))
		s.fail(err)
		return err
	}
	s.wrote(time.Since(begin))
	s.sum = next.sum
	s.mu.Lock()
	defer s.mu.Unlock()
	s.first, s.last = next.first, next.last
	return nil
}

func (s *logStore) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

func (s *logStore) fail(err error) {
	s.mu.Lock()
	first := s.failed == nil
	if first {
		s.failed = err
	}
	s.mu.Unlock()
	if first {
		s.onFail(err)
	}
}

// Set keeps a value. Raft panics when a term or vote cannot be kept, where this store
// wants to stop with a named error; so after a failure it waits until the transport is
// closed and raft is shut down, and then says yes: nothing that follows from the lie
// can leave this replica, and the next start reads the old value.
func (s *logStore) Set(key, val []byte) error {
	if err := s.put(key, val); err != nil {
		<-s.halted
	}
	return nil
}

func (s *logStore) put(key, val []byte) error {
	return s.update(func(tx *bolt.Tx, next *bounds) error {
		b, sealed := tx.Bucket(bucketStable), sealValue(key, val)
		next.sum ^= storedSum(b.Get(key)) ^ storedSum(sealed)
		return b.Put(key, sealed)
	})
}

// Get reads a value; an error that reads "not found" if there is none.
func (s *logStore) Get(key []byte) ([]byte, error) {
	var val []byte
	err := s.db.View(func(tx *bolt.Tx) (err error) {
		b := tx.Bucket(bucketStable).Get(key)
		if b == nil {
			return errStableNotFound
		}
		val, err = openValue(key, b)
		return err
	})
	return val, err
}

// SetUint64 keeps a number.
func (s *logStore) SetUint64(key []byte, val uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, val))
}

// GetUint64 reads a number; see Get.
func (s *logStore) GetUint64(key []byte) (uint64, error) {
	b, err := s.Get(key)
	if err != nil {
		return 0, err
	}
	if len(b) != 8 {
		return 0, fmt.Errorf("%w: log %s: number %q has %d bytes", ErrCorrupt, s.path, key, len(b))
	}
	return beUint64(b), nil
}
