// Package cache keeps files by hash on the local disk, within a bound: what was
// not used for longest goes first, what is in use stays. Several users of one
// file share it and its download. The files outlive the process and are checked
// again before their first use by the next one.
package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/espalier-ml/espalier/client"
	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/worker/lock"
)

// Errors of this package.
var (
	// ErrTooLarge says that a file alone exceeds the cache's bound.
	ErrTooLarge = errors.New("file exceeds the cache")
	// ErrFull says that files in use leave no room within the bound.
	ErrFull = errors.New("cache is full of files in use")
	// ErrDiskFull says that the disk is full and nothing is left to evict.
	ErrDiskFull = errors.New("disk is full")
	// ErrInUse says that another process uses the folder.
	ErrInUse = errors.New("cache folder is in use")
)

// Fetch brings the file that ref names to path, whole and checked, or returns an
// error; client.Client.Download is one.
type Fetch func(ctx context.Context, ref *espalierv1.FileRef, path string) error

// Config says where the cache is and how it fills.
type Config struct {
	// Dir belongs to this cache alone; it is made if it is not there.
	Dir string
	// MaxBytes bounds the files kept; at least 1.
	MaxBytes int64
	Fetch    Fetch
}

// Cache is safe for concurrent use.
type Cache struct {
	cfg  Config
	lock *lock.Lock

	mu      sync.Mutex
	entries map[string]*entry
	bytes   int64 // of all entries, those being filled included
	clock   int64 // counts uses, for the order of eviction
}

// entry is one file, ready or being filled.
type entry struct {
	hash    string
	size    int64
	pins    int
	used    int64
	checked bool          // known to be what its hash names
	filling chan struct{} // closed when the fill has ended; nil when ready
}

// Open takes over the folder, with what an earlier process left there. Its error
// wraps ErrInUse if another process has it.
func Open(cfg Config) (*Cache, error) {
	switch {
	case cfg.Dir == "":
		return nil, errors.New("cache: Dir is empty; want a folder")
	case cfg.MaxBytes < 1:
		return nil, fmt.Errorf("cache: MaxBytes is %d; want at least 1", cfg.MaxBytes)
	case cfg.Fetch == nil:
		return nil, errors.New("cache: Fetch is nil")
	}
	for _, d := range []string{"files", "parts"} {
		if err := os.MkdirAll(filepath.Join(cfg.Dir, d), 0o755); err != nil {
			return nil, fmt.Errorf("open cache: %w", err)
		}
	}
	l, err := lock.Acquire(filepath.Join(cfg.Dir, "lock"), fmt.Sprintf("process %d", os.Getpid()))
	if errors.Is(err, lock.ErrHeld) {
		return nil, fmt.Errorf("open cache %s: %w: %w; give each worker its own folder", cfg.Dir, ErrInUse, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open cache: %w", err)
	}
	c := &Cache{cfg: cfg, lock: l, entries: map[string]*entry{}}
	if err := c.scan(); err != nil {
		_ = l.Release()
		return nil, fmt.Errorf("open cache: %w", err)
	}
	return c, nil
}

// Close gives the folder back. No File may be in use.
func (c *Cache) Close() error { return c.lock.Release() }

// Bytes is the sum of the sizes of all files kept.
func (c *Cache) Bytes() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bytes
}

// File is a file in use: it stays until Release.
type File struct {
	Path string
	Ref  *espalierv1.FileRef

	once sync.Once
	c    *Cache
	e    *entry
}

// Release ends the use. Further calls do nothing.
func (f *File) Release() {
	f.once.Do(func() {
		f.c.mu.Lock()
		defer f.c.mu.Unlock()
		f.e.pins--
	})
}

// Get returns the file that ref names, fetching it if it is not here. Errors are
// those of the fetch, client.ErrHash, ErrTooLarge, ErrFull and ErrDiskFull.
func (c *Cache) Get(ctx context.Context, ref *espalierv1.FileRef) (*File, error) {
	f, err := c.use(ctx, ref, func(part string) error { return c.cfg.Fetch(ctx, ref, part) })
	if err != nil {
		return nil, fmt.Errorf("get file %s: %w", ref.GetHash(), err)
	}
	return f, nil
}

// Add keeps data, in use until the returned file is released, and names it.
func (c *Cache) Add(ctx context.Context, data []byte, format string) (*File, error) {
	ref := client.HashBytes(data, format)
	f, err := c.use(ctx, ref, func(part string) error { return writeFile(part, data) })
	if err != nil {
		return nil, fmt.Errorf("keep file %s: %w", ref.GetHash(), err)
	}
	return f, nil
}

func writeFile(path string, data []byte) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// use returns the entry of ref, in use; fill brings it to a path if it is missing.
// Who finds another filling waits; when that fails, it fills itself.
func (c *Cache) use(ctx context.Context, ref *espalierv1.FileRef, fill func(part string) error) (*File, error) {
	if err := client.CheckHash(ref.GetHash()); err != nil {
		return nil, err
	}
	for {
		e, wait, err := c.claim(ref)
		switch {
		case err != nil:
			return nil, err
		case wait != nil:
			select {
			case <-wait:
				continue
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		case e.filling == nil:
			return &File{Path: c.path(e.hash), Ref: ref, c: c, e: e}, nil
		}
		if err := c.fill(e, fill); err != nil {
			return nil, err
		}
		return &File{Path: c.path(e.hash), Ref: ref, c: c, e: e}, nil
	}
}

// claim pins a ready entry, or makes one for the caller to fill, or returns the
// channel to wait on while another caller fills it.
func (c *Cache) claim(ref *espalierv1.FileRef) (*entry, <-chan struct{}, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clock++
	if e := c.entries[ref.GetHash()]; e != nil {
		if e.filling != nil {
			return nil, e.filling, nil
		}
		if e.checked {
			e.pins++
			e.used = c.clock
			now := time.Now()
			_ = os.Chtimes(c.path(e.hash), now, now)
			return e, nil, nil
		}
		// Left by an earlier process: taken out, then filled from its own file.
		c.bytes -= e.size
		delete(c.entries, e.hash)
	}
	size := ref.GetSizeBytes()
	if err := c.makeRoom(size); err != nil {
		return nil, nil, err
	}
	e := &entry{hash: ref.GetHash(), size: size, pins: 1, used: c.clock, filling: make(chan struct{})}
	c.entries[e.hash] = e
	c.bytes += size
	return e, nil, nil
}

// makeRoom evicts until size more bytes fit. The caller holds mu.
func (c *Cache) makeRoom(size int64) error {
	if size > c.cfg.MaxBytes {
		return fmt.Errorf("%d bytes, the cache has %d in all: %w", size, c.cfg.MaxBytes, ErrTooLarge)
	}
	for c.bytes+size > c.cfg.MaxBytes {
		if !c.evict() {
			return fmt.Errorf("%d bytes wanted, %d of %d are in use: %w", size, c.bytes, c.cfg.MaxBytes, ErrFull)
		}
	}
	return nil
}

// evict drops the entry unused for longest; false if all are in use. The caller
// holds mu.
func (c *Cache) evict() bool {
	var oldest *entry
	for _, e := range c.entries {
		if e.pins == 0 && e.filling == nil && (oldest == nil || e.used < oldest.used) {
			oldest = e
		}
	}
	if oldest == nil {
		return false
	}
	_ = os.Remove(c.path(oldest.hash))
	delete(c.entries, oldest.hash)
	c.bytes -= oldest.size
	return true
}

// fill brings a claimed entry to its place. When the disk is full, it evicts what
// is not in use, one by one, and tries again.
func (c *Cache) fill(e *entry, fill func(part string) error) error {
	err := c.attempt(e, fill)
	for errors.Is(err, syscall.ENOSPC) {
		c.mu.Lock()
		evicted := c.evict()
		c.mu.Unlock()
		if !evicted {
			_ = os.Remove(c.part(e.hash))
			_ = os.Remove(c.part(e.hash) + ".part")
			err = fmt.Errorf("%w: %s: %w", ErrDiskFull, c.cfg.Dir, err)
			break
		}
		err = c.attempt(e, fill)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		err = c.settle(e)
	}
	if err != nil {
		delete(c.entries, e.hash)
		c.bytes -= e.size
	}
	close(e.filling)
	e.filling = nil
	e.checked = err == nil
	return err
}

// attempt checks a file that is already in place, else fills, checks and moves
// it there.
func (c *Cache) attempt(e *entry, fill func(part string) error) error {
	path, part := c.path(e.hash), c.part(e.hash)
	switch err := check(path, e.hash); {
	case err == nil:
		return nil
	case errors.Is(err, client.ErrHash):
		_ = os.Remove(path)
	}
	if err := fill(part); err != nil {
		return err
	}
	if err := check(part, e.hash); err != nil {
		_ = os.Remove(part)
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.Rename(part, path)
}

func check(path, hash string) error {
	ref, err := client.HashFile(path, "")
	if err != nil {
		return err
	}
	if ref.GetHash() != hash {
		return fmt.Errorf("%s has hash %s: %w", path, ref.GetHash(), client.ErrHash)
	}
	return nil
}

// settle corrects the entry's size when its name did not tell it. The caller
// holds mu.
func (c *Cache) settle(e *entry) error {
	info, err := os.Stat(c.path(e.hash))
	if err != nil {
		return err
	}
	c.bytes += info.Size() - e.size
	e.size = info.Size()
	if err := c.makeRoom(0); err != nil {
		_ = os.Remove(c.path(e.hash))
		return err
	}
	return nil
}

func (c *Cache) path(hash string) string {
	return filepath.Join(c.cfg.Dir, "files", hash[:2], hash)
}

func (c *Cache) part(hash string) string { return filepath.Join(c.cfg.Dir, "parts", hash) }
