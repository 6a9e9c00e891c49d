package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/hashicorp/raft"
	bolt "go.etcd.io/bbolt"
)

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
