package store

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// lockTimeout is how long to wait for another process to let go of a file.
const lockTimeout = 500 * time.Millisecond

type boltOptions struct {
	noSync bool
	// mmapBytes is mapped at the start, so that growing up to it never waits for readers.
	mmapBytes int
	maxBytes  int
}

// openBolt opens a bbolt file; its errors wrap ErrInUse, ErrFull, ErrCorrupt or the
// cause, and name the folder or file.
func openBolt(path string, o boltOptions) (db *bolt.DB, err error) {
	if strconv.IntSize == 32 {
		o.mmapBytes = min(o.mmapBytes, 32<<20)
	}
	err = guardBolt(path, func() error {
		opened, err := bolt.Open(path, 0o600, &bolt.Options{
			Timeout: lockTimeout, NoFreelistSync: true, FreelistType: bolt.FreelistMapType,
			NoSync: o.noSync, NoGrowSync: o.noSync, InitialMmapSize: o.mmapBytes, MaxSize: o.maxBytes,
		})
		db = opened
		return err
	})
	switch {
	case err == nil:
		return db, nil
	case errors.Is(err, berrors.ErrTimeout):
		return nil, fmt.Errorf("open %s: %w", filepath.Dir(path), ErrInUse)
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch):
		return nil, fmt.Errorf("%w: open %s: %w", ErrCorrupt, path, err)
	}
	return nil, fmt.Errorf("open %s: %w", path, diskError(err))
}

// guardBolt runs f and turns bbolt's panics, and faults of its mapped memory, into
// ErrCorrupt: it asserts on damaged pages and reads past the end of short files.
func guardBolt(path string, f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %s: %v", ErrCorrupt, path, r)
		}
	}()
	return f()
}

// diskError gives ENOSPC and its relatives one name.
func diskError(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, berrors.ErrMaxSizeReached) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}

// boltSize is how much of a file is in use; 0 when it is closed.
func boltSize(view func(func(*bolt.Tx) error) error) (size int64) {
	_ = view(func(tx *bolt.Tx) error {
		size = tx.Size()
		return nil
	})
	return size
}
