package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// Config says where the files are and how large they may be.
type Config struct {
	// Dir is the store's own folder. Made if absent.
	Dir string
	// MaxBytes bounds one file. 0: 64 GiB.
	MaxBytes int64
	// PartialAge is how long an unfinished upload waits to be resumed. 0: 24 h.
	PartialAge time.Duration
	// Logger takes messages about damaged files. The zero value logs nothing.
	Logger zerolog.Logger
	// NoSync skips fsync: for tests, nothing else.
	NoSync bool
}

func (c Config) withDefaults() Config {
	if c.MaxBytes == 0 {
		c.MaxBytes = 64 << 30
	}
	if c.PartialAge == 0 {
		c.PartialAge = 24 * time.Hour
	}
	return c
}

// Validate checks the fields; its errors wrap ErrConfig.
func (c Config) Validate() error {
	switch {
	case c.Dir == "":
		return fmt.Errorf(`%w: Dir is "", want a folder`, ErrConfig)
	case c.MaxBytes < 0:
		return fmt.Errorf("%w: MaxBytes is %d, want 0 or more", ErrConfig, c.MaxBytes)
	case c.PartialAge < 0:
		return fmt.Errorf("%w: PartialAge is %s, want 0 or more", ErrConfig, c.PartialAge)
	}
	return nil
}

// Store is the files of one replica:
//
//	DIR/ab/cd/abcd…     the files, by hash
//	DIR/partial/HASH    unfinished uploads
//	DIR/damaged/HASH    files that no longer match their hash
//
// Its methods may be called concurrently. A file that is there is complete, verified
// when it came, and on disk.
type Store struct {
	cfg Config

	mu sync.Mutex
	// busy holds the hashes that someone is writing; the channel closes at the end.
	busy map[string]chan struct{}
	// lasting holds the folders whose names this process has seen on disk.
	lasting map[string]bool
}

const (
	partialDir = "partial"
	damagedDir = "damaged"
)

// Open opens or creates the store and throws away unfinished uploads that are too old.
func Open(cfg Config) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Store{cfg: cfg.withDefaults(), busy: map[string]chan struct{}{}, lasting: map[string]bool{}}
	for _, d := range []string{partialDir, damagedDir} {
		if err := os.MkdirAll(filepath.Join(cfg.Dir, d), 0o700); err != nil {
			return nil, fmt.Errorf("open file store: %w", diskError(err))
		}
	}
	if !s.cfg.NoSync {
		if err := errors.Join(syncDir(cfg.Dir), syncDir(filepath.Dir(cfg.Dir))); err != nil {
			return nil, fmt.Errorf("open file store: %w", diskError(err))
		}
	}
	if err := s.SweepPartial(time.Now()); err != nil {
		return nil, fmt.Errorf("open file store: %w", err)
	}
	return s, nil
}

func (s *Store) path(hash string) string {
	return filepath.Join(s.cfg.Dir, hash[:2], hash[2:4], hash)
}

func (s *Store) partial(hash string) string {
	return filepath.Join(s.cfg.Dir, partialDir, hash)
}

// lock waits until nobody else writes the file. Unlock with the function returned.
func (s *Store) lock(ctx context.Context, hash string) (func(), error) {
	for {
		s.mu.Lock()
		held, ok := s.busy[hash]
		if !ok {
			mine := make(chan struct{})
			s.busy[hash] = mine
			s.mu.Unlock()
			return func() {
				s.mu.Lock()
				delete(s.busy, hash)
				s.mu.Unlock()
				close(mine)
			}, nil
		}
		s.mu.Unlock()
		select {
		case <-held:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Info is what the store knows of a file.
type Info struct {
	Hash string
	// Present: the file is here, complete.
	Present   bool
	SizeBytes int64
	// Received counts the bytes of an unfinished upload: go on from here.
	Received int64
}

// Stat tells of one file. A file that was never heard of is no error. Errors: ErrHash.
func (s *Store) Stat(hash string) (Info, error) {
	if err := CheckHash(hash); err != nil {
		return Info{}, err
	}
	info := Info{Hash: hash}
	st, err := os.Stat(s.path(hash))
	if err == nil {
		info.Present, info.SizeBytes = true, st.Size()
		return info, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return Info{}, fmt.Errorf("stat file: %w", err)
	}
	if st, err := os.Stat(s.partial(hash)); err == nil {
		info.Received = st.Size()
	}
	return info, nil
}

// Has tells whether the file is here, complete.
func (s *Store) Has(hash string) bool {
	info, err := s.Stat(hash)
	return err == nil && info.Present
}

// Holds tells whether the file is here, complete. One of another size than it should have
// is damaged, and set aside. It also keeps the file from RemoveUnused for a while: who asks
// is going to count on it.
func (s *Store) Holds(ctx context.Context, ref Ref) bool {
	info, err := s.Stat(ref.Hash)
	if err != nil || !info.Present {
		return false
	}
	if info.SizeBytes != ref.SizeBytes && ref.SizeBytes > 0 {
		if err := s.setAside(ctx, ref.Hash, fmt.Errorf("it has %d bytes, not %d", info.SizeBytes, ref.SizeBytes)); err != nil {
			s.cfg.Logger.Warn().Err(err).Str("file", ref.Hash).Msg("damaged file not set aside")
		}
		return false
	}
	unlock, err := s.lock(ctx, ref.Hash)
	if err != nil {
		return false
	}
	defer unlock()
	now := time.Now()
	return os.Chtimes(s.path(ref.Hash), now, now) == nil
}

// File is an open file. It stays readable also when it is removed meanwhile.
type File struct {
	*io.SectionReader
	f *os.File
}

// Close closes it.
func (f *File) Close() error { return f.f.Close() }

// Open opens a file for reading, by ranges too; Size is its length. Errors:
// ErrNotFound, ErrHash.
func (s *Store) Open(hash string) (*File, error) {
	if err := CheckHash(hash); err != nil {
		return nil, err
	}
	f, err := os.Open(s.path(hash))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, hash)
	}
	if err != nil {
		return nil, fmt.Errorf("open file: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open file: %w", err), f.Close())
	}
	return &File{SectionReader: io.NewSectionReader(f, 0, st.Size()), f: f}, nil
}

// Path is where a file lies, for readers that need a name: read it, never write it.
// Errors: ErrNotFound, ErrHash.
func (s *Store) Path(hash string) (string, error) {
	info, err := s.Stat(hash)
	if err != nil {
		return "", err
	}
	if !info.Present {
		return "", fmt.Errorf("%w: %s", ErrNotFound, hash)
	}
	return s.path(hash), nil
}

// Remove removes a file and what was received of it. One that is not here is no error.
func (s *Store) Remove(ctx context.Context, hash string) error {
	if err := CheckHash(hash); err != nil {
		return err
	}
	unlock, err := s.lock(ctx, hash)
	if err != nil {
		return fmt.Errorf("remove file %s: %w", hash, err)
	}
	defer unlock()
	return s.remove(hash)
}

// RemoveUnused is Remove for a file that came, or was asked for, longer than age ago. It
// tells whether the file is gone. A drop that is decided while the same file is uploaded
// again must not take away what the upload counts on.
func (s *Store) RemoveUnused(ctx context.Context, hash string, age time.Duration) (gone bool, err error) {
	if err := CheckHash(hash); err != nil {
		return false, err
	}
	unlock, err := s.lock(ctx, hash)
	if err != nil {
		return false, fmt.Errorf("remove file %s: %w", hash, err)
	}
	defer unlock()
	st, err := os.Stat(s.path(hash))
	switch {
	case errors.Is(err, os.ErrNotExist):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("remove file: %w", err)
	case time.Since(st.ModTime()) < age:
		return false, nil
	}
	return true, s.remove(hash)
}

// remove removes a file whose lock is held.
func (s *Store) remove(hash string) error {
	for _, p := range []string{s.path(hash), s.partial(hash)} {
		if err := os.Remove(p); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove file: %w", err)
		}
	}
	return nil
}

// List lists up to limit files with hashes above after, in their order. 0 is no limit.
func (s *Store) List(after string, limit int) ([]Info, error) {
	var out []Info
	err := s.walk(after, func(i Info) error {
		out = append(out, i)
		if limit > 0 && len(out) == limit {
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, fmt.Errorf("list files: %w", err)
	}
	return out, nil
}

var errEnough = errors.New("enough")

// walk visits the files with hashes above after in their order.
func (s *Store) walk(after string, visit func(Info) error) error {
	for _, a := range subfolders(s.cfg.Dir) {
		if len(after) >= 2 && a < after[:2] {
			continue
		}
		for _, b := range subfolders(filepath.Join(s.cfg.Dir, a)) {
			if len(after) >= 4 && a+b < after[:4] {
				continue
			}
			if err := visitFolder(filepath.Join(s.cfg.Dir, a, b), after, visit); err != nil {
				return err
			}
		}
	}
	return nil
}

func visitFolder(dir, after string, visit func(Info) error) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if e.Name() <= after || CheckHash(e.Name()) != nil {
			continue
		}
		st, err := e.Info()
		if errors.Is(err, os.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return err
		}
		if err := visit(Info{Hash: e.Name(), Present: true, SizeBytes: st.Size()}); err != nil {
			return err
		}
	}
	return nil
}

// subfolders lists the folders of two hexadecimal digits, in order.
func subfolders(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() && len(e.Name()) == 2 {
			out = append(out, e.Name())
		}
	}
	sort.Strings(out)
	return out
}

// Usage is what the store takes up.
type Usage struct {
	Files int
	Bytes int64
	// PartialBytes are of unfinished uploads, DamagedBytes of files set aside.
	PartialBytes, DamagedBytes int64
	// FreeBytes is what the disk has left; -1 where that is not known.
	FreeBytes int64
}

// Usage counts.
func (s *Store) Usage() (Usage, error) {
	u := Usage{FreeBytes: freeBytes(s.cfg.Dir)}
	err := s.walk("", func(i Info) error {
		u.Files++
		u.Bytes += i.SizeBytes
		return nil
	})
	if err != nil {
		return Usage{}, fmt.Errorf("count files: %w", err)
	}
	for dir, sum := range map[string]*int64{partialDir: &u.PartialBytes, damagedDir: &u.DamagedBytes} {
		err := visitFolder(filepath.Join(s.cfg.Dir, dir), "", func(i Info) error {
			*sum += i.SizeBytes
			return nil
		})
		if err != nil {
			return Usage{}, fmt.Errorf("count files: %w", err)
		}
	}
	return u, nil
}

// SweepPartial throws away unfinished uploads that nobody went on with for PartialAge.
func (s *Store) SweepPartial(now time.Time) error {
	dir := filepath.Join(s.cfg.Dir, partialDir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("sweep unfinished uploads: %w", err)
	}
	for _, e := range entries {
		st, err := e.Info()
		if err != nil || now.Sub(st.ModTime()) < s.cfg.PartialAge {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("sweep unfinished uploads: %w", err)
		}
	}
	return nil
}
