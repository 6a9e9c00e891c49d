package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	bolt "go.etcd.io/bbolt"
)

// stateMapBytes is mapped for the state file at the start: growing beyond it waits for
// readers, growing up to it does not.
const stateMapBytes = 1 << 30

// seal vouches for a state file that was closed in good order. The state file is
// written without fsync; after a crash there is no seal that fits, and the state is
// rebuilt from the latest snapshot and the log.
type seal struct {
	Layout  int    `json:"layout"`
	Size    int64  `json:"size"`
	CRC32C  uint32 `json:"crc32c"`
	Applied uint64 `json:"applied"`
}

func sealPath(state string) string { return state + ".seal" }

// openState opens the state file if its seal fits, else begins an empty one. kept
// tells which; applied is the kept state's index.
func openState(path string) (db *bolt.DB, kept bool, applied uint64, err error) {
	want, ok := readSeal(path)
	if ok {
		got, err := makeSeal(path, want.Applied)
		ok = err == nil && got == want
	}
	if ok {
		if db, err = openStateFile(path); err == nil {
			return db, true, want.Applied, nil
		}
		if errors.Is(err, ErrInUse) {
			return nil, false, 0, err
		}
	}
	for _, p := range []string{sealPath(path), path, path + ".new"} {
		if err := os.Remove(p); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, false, 0, fmt.Errorf("discard old state: %w", err)
		}
	}
	db, err = openStateFile(path)
	return db, false, 0, err
}

// openStateFile opens a state file and makes its buckets.
func openStateFile(path string) (*bolt.DB, error) {
	db, err := openBolt(path, boltOptions{noSync: true, mmapBytes: stateMapBytes})
	if err != nil {
		return nil, err
	}
	err = guardBolt(path, func() error { return db.Update(initState) })
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open state %s: %w", path, diskError(err)), db.Close())
	}
	return db, nil
}

// checkState refuses a received state file that this build cannot read.
func checkState(path string) error {
	if err := checkBoltFile(path); err != nil {
		return err
	}
	db, err := openBolt(path, boltOptions{noSync: true})
	if err != nil {
		return err
	}
	err = guardBolt(path, func() error {
		return db.View(func(tx *bolt.Tx) error {
			meta := tx.Bucket(bucketMeta)
			if meta == nil {
				return fmt.Errorf("%w: state has no bucket %q", ErrCorrupt, bucketMeta)
			}
			if v := meta.Get(keyVersion); len(v) != 1 || v[0] != stateVersion {
				return fmt.Errorf("%w: state has layout %v, this build reads %d", ErrCorrupt, v, stateVersion)
			}
			return nil
		})
	})
	return errors.Join(err, db.Close())
}

// exchangeState puts next in the place of the closed state file and opens it.
func exchangeState(path, next string) (*bolt.DB, error) {
	if err := os.Remove(sealPath(path)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if err := os.Rename(next, path); err != nil {
		return nil, err
	}
	return openStateFile(path)
}

func readSeal(path string) (seal, bool) {
	var s seal
	b, err := os.ReadFile(sealPath(path))
	if err != nil || json.Unmarshal(b, &s) != nil {
		return seal{}, false
	}
	return s, s.Layout == stateVersion
}

func makeSeal(path string, applied uint64) (seal, error) {
	f, err := os.Open(path)
	if err != nil {
		return seal{}, err
	}
	defer f.Close()
	sum := crc32.New(castagnoli)
	n, err := io.CopyBuffer(sum, f, make([]byte, 1<<20))
	return seal{Layout: stateVersion, Size: n, CRC32C: sum.Sum32(), Applied: applied}, err
}

// sealState vouches for the closed state file. The seal needs no fsync either: one
// that does not fit is no harm.
func sealState(path string, applied uint64) error {
	s, err := makeSeal(path, applied)
	if err != nil {
		return fmt.Errorf("seal state: %w", err)
	}
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("seal state: %w", err)
	}
	if err := os.WriteFile(sealPath(path), b, 0o600); err != nil {
		return fmt.Errorf("seal state: %w", err)
	}
	return nil
}
