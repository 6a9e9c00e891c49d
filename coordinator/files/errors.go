package files

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/espalier-ml/espalier/proto/filehash"
)

// Errors of the file store; match them with errors.Is.
var (
	// ErrNotFound: there is no such file here.
	ErrNotFound = errors.New("file not found")
	// ErrHash: the name is no SHA-256 in lower-case hexadecimal.
	ErrHash = errors.New("not a sha-256")
	// ErrHashMismatch: what was received does not have the hash it was announced
	// with. It is thrown away.
	ErrHashMismatch = errors.New("content does not match its hash")
	// ErrOffset: an upload goes on from another place than where the last one ended.
	// Stat tells the place.
	ErrOffset = errors.New("upload offset beyond what was received")
	// ErrTooLarge: the file is larger than the store takes, or than it was announced.
	ErrTooLarge = errors.New("file too large")
	// ErrFull: the disk is full. What was received of the file is thrown away.
	ErrFull = errors.New("disk full")
	// ErrConfig: a field of Config is wrong.
	ErrConfig = errors.New("invalid file store config")
)

// CheckHash refuses what is no SHA-256 in lower-case hexadecimal: such a name never
// reaches the file system.
func CheckHash(name string) error {
	if filehash.Valid(name) {
		return nil
	}
	if len(name) > 80 {
		name = name[:80] + "…"
	}
	return fmt.Errorf("%w: %q, want %d lower-case hexadecimal digits", ErrHash, name, filehash.Digits)
}

// diskError gives ENOSPC and its relatives one name.
func diskError(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}
