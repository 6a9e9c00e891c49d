package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
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
	return s.update(func(tx *bolt.Tx, next *bounds) error { return putLogs(tx, next, logs) })
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

// Raft's keys of the stable values.
var (
	keyTerm     = []byte("CurrentTerm")
	keyVoteTerm = []byte("LastVoteTerm")
)

// fresh tells that the replica has never taken part in anything: it has no entries and no
// vote, and no term that an election gave.
func (s *logStore) fresh() (bool, error) {
	term, err := s.GetUint64(keyTerm)
	if err != nil && !errors.Is(err, errStableNotFound) {
		return false, err
	}
	_, err = s.Get(keyVoteTerm)
	if err != nil && !errors.Is(err, errStableNotFound) {
		return false, err
	}
	last, _ := s.LastIndex() // from memory, no error
	return term <= 1 && err != nil && last == 0, nil
}

// begin writes the first entry of a cluster, and its term.
func (s *logStore) begin(entry *raft.Log) error {
	return s.update(func(tx *bolt.Tx, next *bounds) error {
		err := putStable(tx, next, keyTerm, binary.BigEndian.AppendUint64(nil, entry.Term))
		if err != nil {
			return err
		}
		return putLogs(tx, next, []*raft.Log{entry})
	})
}

// putStable writes a stable value.
func putStable(tx *bolt.Tx, next *bounds, key, val []byte) error {
	b, sealed := tx.Bucket(bucketStable), sealValue(key, val)
	next.sum ^= storedSum(b.Get(key)) ^ storedSum(sealed)
	return b.Put(key, sealed)
}

// putLogs appends entries.
func putLogs(tx *bolt.Tx, next *bounds, logs []*raft.Log) error {
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
	return s.update(func(tx *bolt.Tx, next *bounds) error { return putStable(tx, next, key, val) })
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
