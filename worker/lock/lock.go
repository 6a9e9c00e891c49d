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

// Acquire takes the lock at path for this holder alone, creating the file, and
// writes who into it for people to read. If it is held, the error wraps ErrHeld and
// tells who holds it.
func Acquire(path, who string) (*Lock, error) {
	l, err := take(path, syscall.LOCK_EX)
	if err != nil {
		return nil, err
	}
	// What the file says is for people only; the lock holds without it.
	_ = l.f.Truncate(0)
	_, _ = l.f.WriteAt([]byte(who+"\n"), 0)
	return l, nil
}

// Share takes the lock at path together with others who share it. If somebody has
// it alone, the error wraps ErrHeld.
func Share(path string) (*Lock, error) { return take(path, syscall.LOCK_SH) }

func take(path string, how int) (*Lock, error) {
	f, err := open(path)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			holder, _ := io.ReadAll(io.LimitReader(f, 256))
			return nil, fmt.Errorf("lock %s: %w by %s", path, ErrHeld, describe(string(holder)))
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return &Lock{f: f}, nil
}

// open makes the file if need be. One that belongs to another user is opened for
// reading, which is enough to lock it.
func open(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if errors.Is(err, os.ErrPermission) {
		if other, err := os.Open(path); err == nil {
			return other, nil
		}
	}
	return f, err
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
