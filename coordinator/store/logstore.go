package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
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
	// keyBounds holds the first and last index of the log, written together with it,
	// so that a damaged page cannot hide its end.
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
	if err := checkBoltFile(path); err != nil {
		return nil, err
	}
	db, err := openBolt(path, boltOptions{noSync: noSync, mmapBytes: 64 << 20, maxBytes: maxBytes})
	if err != nil {
		return nil, err
	}
	s := &logStore{db: db, path: path, onFail: func(error) {}, wrote: func(time.Duration) {}, halted: make(chan struct{})}
	if err := s.init(); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

func (s *logStore) init() error {
	return guardBolt(s.path, func() error {
		if err := s.db.Update(s.create); err != nil {
			return fmt.Errorf("open log %s: %w", s.path, diskError(err))
		}
		return s.db.View(s.verify)
	})
}

// create makes the buckets of a new file. One that has other buckets, or not all of
// them, is damaged.
func (s *logStore) create(tx *bolt.Tx) error {
	var have []string
	err := tx.ForEach(func(name []byte, _ *bolt.Bucket) error {
		have = append(have, string(name))
		return nil
	})
	if err != nil || slices.Equal(have, []string{string(bucketLog), string(bucketStable)}) {
		return err
	}
	if len(have) > 0 {
		return fmt.Errorf("%w: it has buckets %q", ErrCorrupt, have)
	}
	if _, err := tx.CreateBucket(bucketLog); err != nil {
		return err
	}
	stable, err := tx.CreateBucket(bucketStable)
	if err != nil {
		return err
	}
	return stable.Put(keyBounds, sealValue(keyBounds, encodeBounds(0, 0)))
}

// verify reads everything once: damage is found at the start, not in the middle of an
// election. It also learns the first and last index.
func (s *logStore) verify(tx *bolt.Tx) error {
	c := tx.Bucket(bucketLog).Cursor()
	var l raft.Log
	for k, v := c.First(); k != nil; k, v = c.Next() {
		index := beUint64(k)
		if index == 0 || (s.last != 0 && index != s.last+1) {
			return fmt.Errorf("%w: log %s: entry %d follows entry %d", ErrCorrupt, s.path, index, s.last)
		}
		if err := decodeLog(index, v, &l); err != nil {
			return fmt.Errorf("log %s: %w", s.path, err)
		}
		if s.first == 0 {
			s.first = index
		}
		s.last = index
	}
	stable := tx.Bucket(bucketStable)
	err := stable.ForEach(func(k, v []byte) error {
		_, err := openValue(k, v)
		return err
	})
	if err != nil {
		return fmt.Errorf("log %s: %w", s.path, err)
	}
	want, _ := openValue(keyBounds, stable.Get(keyBounds)) // was read above, if it is there
	if string(want) != string(encodeBounds(s.first, s.last)) {
		return fmt.Errorf("%w: log %s has entries %d to %d, and was left with %x", ErrCorrupt, s.path, s.first, s.last, want)
	}
	return nil
}

func encodeBounds(first, last uint64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, first), last)
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
	return s.update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketLog)
		b.FillPercent = 0.95 // entries only ever come at the end
		for _, l := range logs {
			if err := b.Put(binary.BigEndian.AppendUint64(nil, l.Index), encodeLog(l)); err != nil {
				return fmt.Errorf("store log entry %d: %w", l.Index, err)
			}
		}
		return nil
	})
}

// IsMonotonic tells raft to keep the log without gaps: after installing a snapshot it
// deletes the entries before it.
func (s *logStore) IsMonotonic() bool { return true }

// DeleteRange removes the entries min to max, both included.
func (s *logStore) DeleteRange(min, max uint64) error {
	return s.update(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketLog).Cursor()
		for k, _ := c.Seek(binary.BigEndian.AppendUint64(nil, min)); k != nil && beUint64(k) <= max; k, _ = c.Next() {
			if err := c.Delete(); err != nil {
				return fmt.Errorf("delete log entry %d: %w", beUint64(k), err)
			}
		}
		return nil
	})
}

// update runs one write transaction on the log, with its bounds, unless a write failed
// before.
func (s *logStore) update(f func(tx *bolt.Tx) error) error {
	if err := s.failure(); err != nil {
		return err
	}
	var first, last uint64
	begin := time.Now()
	err := s.db.Update(func(tx *bolt.Tx) error {
		if err := f(tx); err != nil {
			return err
		}
		c := tx.Bucket(bucketLog).Cursor()
		low, _ := c.First()
		high, _ := c.Last()
		first, last = beUint64(low), beUint64(high)
		bounds := encodeBounds(first, last)
		return tx.Bucket(bucketStable).Put(keyBounds, sealValue(keyBounds, bounds))
	})
	if err != nil {
		err = fmt.Errorf("%w: write log %s: %w", ErrFailed, s.path, diskError(err))
		s.fail(err)
		return err
	}
	s.wrote(time.Since(begin))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.first, s.last = first, last
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
	return s.update(func(tx *bolt.Tx) error { return tx.Bucket(bucketStable).Put(key, sealValue(key, val)) })
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
