// Package lock keeps two processes of one host apart with an advisory lock on a
// file. The system takes the lock away when the process ends, however it ends.
package lock

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// ErrHeld says that another process, or another holder in this one, has the lock.
var ErrHeld = errors.New("lock is held")

// Lock is a held lock.
type Lock struct{ f *os.File }

// Acquire takes the lock at path, creating the file, and writes who into it for
// people to read. If it is held, the error wraps ErrHeld and tells who holds it.
func Acquire(path, who string) (*Lock, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			holder, _ := io.ReadAll(io.LimitReader(f, 256))
			return nil, fmt.Errorf("lock %s: %w by %s", path, ErrHeld, describe(string(holder)))
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	// What the file says is for people only; the lock holds without it.
	_ = f.Truncate(0)
	_, _ = f.WriteAt([]byte(who+"\n"), 0)
	return &Lock{f: f}, nil
}

func describe(holder string) string {
	if holder = strings.TrimSpace(holder); holder == "" {
		return "another process"
	}
	return holder
}

// Release gives the lock back. The file stays.
func (l *Lock) Release() error {
	if err := l.f.Close(); err != nil {
		return fmt.Errorf("release lock: %w", err)
	}
	return nil
}
