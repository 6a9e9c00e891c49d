package files

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"

	"github.com/espalier-ml/espalier/coordinator/ctxio"
)

// Ref names a file with its size.
type Ref struct {
	Hash      string
	SizeBytes int64
}

// Put stores a whole file. One that is here already is not read. Errors: as Append.
func (s *Store) Put(ctx context.Context, ref Ref, r io.Reader) error {
	_, err := s.Append(ctx, ref, 0, r)
	return err
}

// Append goes on with an upload from offset and returns how many bytes are here then.
// When that is ref.SizeBytes, the file is verified, on disk, and readable. When r ends
// or fails before, what came stays, and the upload can go on from there. Offset may lie
// before what was received: that part is written anew.
//
// Errors: ErrHash, ErrOffset (nothing read), ErrTooLarge (r has more than ref says),
// ErrHashMismatch and ErrFull (what was received is thrown away), or r's own.
func (s *Store) Append(ctx context.Context, ref Ref, offset int64, r io.Reader) (received int64, err error) {
	if err := s.checkRef(ref); err != nil {
		return 0, err
	}
	if s.Holds(ctx, ref) {
		return ref.SizeBytes, nil
	}
	unlock, err := s.lock(ctx, ref.Hash)
	if err != nil {
		return 0, fmt.Errorf("upload %s: %w", ref.Hash, err)
	}
	defer unlock()
	if s.Has(ref.Hash) {
		return ref.SizeBytes, nil
	}
	received, err = s.receive(ctx, ref, offset, r)
	if err != nil {
		return received, fmt.Errorf("upload %s: %w", ref.Hash, diskError(err))
	}
	return received, nil
}

func (s *Store) checkRef(ref Ref) error {
	if err := CheckHash(ref.Hash); err != nil {
		return err
	}
	if ref.SizeBytes < 0 || ref.SizeBytes > s.cfg.MaxBytes {
		return fmt.Errorf("%w: %s has %d bytes, want 0 to %d", ErrTooLarge, ref.Hash, ref.SizeBytes, s.cfg.MaxBytes)
	}
	return nil
}

// receive writes r to the partial file and completes it when all is there.
func (s *Store) receive(ctx context.Context, ref Ref, offset int64, r io.Reader) (int64, error) {
	path := s.partial(ref.Hash)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return 0, err
	}
	sum, have, err := resume(f, offset)
	if err != nil {
		return have, errors.Join(err, f.Close())
	}
	// One byte beyond the end tells a body that is too long.
	n, err := io.Copy(io.MultiWriter(f, sum), io.LimitReader(ctxio.Reader(ctx, r), ref.SizeBytes-offset+1))
	have = offset + n
	discard := func(err error) (int64, error) { return 0, errors.Join(err, f.Close(), os.Remove(path)) }
	switch {
	case have > ref.SizeBytes:
		return discard(fmt.Errorf("%w: more than the %d bytes announced", ErrTooLarge, ref.SizeBytes))
	case err != nil && errors.Is(diskError(err), ErrFull):
		return discard(err)
	case have < ref.SizeBytes:
		return have, errors.Join(err, f.Close())
	}
	// All is here, whatever r says after its last byte.
	if got := hex.EncodeToString(sum.Sum(nil)); got != ref.Hash {
		return discard(fmt.Errorf("%w: it has %s", ErrHashMismatch, got))
	}
	if !s.cfg.NoSync {
		if err := f.Sync(); err != nil {
			return discard(err)
		}
	}
	if err := f.Close(); err != nil {
		return 0, errors.Join(err, os.Remove(path))
	}
	return have, s.complete(path, ref.Hash)
}

// resume cuts the partial file at offset and hashes what stands before it.
func resume(f *os.File, offset int64) (hash.Hash, int64, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	if offset < 0 || offset > st.Size() {
		return nil, st.Size(), fmt.Errorf("%w: offset %d, received %d", ErrOffset, offset, st.Size())
	}
	if err := f.Truncate(offset); err != nil {
		return nil, 0, err
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(f, 0, offset)); err != nil {
		return nil, 0, err
	}
	_, err = f.Seek(offset, io.SeekStart)
	return sum, offset, err
}

// complete gives a verified file its name, on disk: the file's folder is synced after
// the rename, and the folders above it the first time. A file whose name may not last is
// taken away again: being there means being on disk.
func (s *Store) complete(path, hash string) error {
	to := s.path(hash)
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	if err := os.Rename(path, to); err != nil {
		return err
	}
	if s.cfg.NoSync {
		return nil
	}
	if err := s.syncName(filepath.Dir(to)); err != nil {
		return errors.Join(err, os.Remove(to))
	}
	return nil
}

// syncName makes the names in a folder last, and the folder's own.
func (s *Store) syncName(inner string) error {
	if err := syncDir(inner); err != nil {
		return err
	}
	s.mu.Lock()
	known := s.lasting[inner]
	s.mu.Unlock()
	if known {
		return nil
	}
	if err := errors.Join(syncDir(filepath.Dir(inner)), syncDir(s.cfg.Dir)); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lasting[inner] = true
	return nil
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Add stores what has no name yet and returns its hash and size: data that this
// process makes or imports. Errors: ErrTooLarge, ErrFull, or r's own.
func (s *Store) Add(ctx context.Context, r io.Reader) (ref Ref, err error) {
	f, err := os.CreateTemp(filepath.Join(s.cfg.Dir, partialDir), "new-*")
	if err != nil {
		return Ref{}, fmt.Errorf("add file: %w", diskError(err))
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
			err = fmt.Errorf("add file: %w", diskError(err))
		}
	}()
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, sum), io.LimitReader(ctxio.Reader(ctx, r), s.cfg.MaxBytes+1))
	if err == nil && n > s.cfg.MaxBytes {
		err = fmt.Errorf("%w: more than %d bytes", ErrTooLarge, s.cfg.MaxBytes)
	}
	if err == nil && !s.cfg.NoSync {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return Ref{}, err
	}
	ref = Ref{Hash: hex.EncodeToString(sum.Sum(nil)), SizeBytes: n}
	unlock, err := s.lock(ctx, ref.Hash)
	if err != nil {
		return Ref{}, err
	}
	defer unlock()
	return ref, s.complete(f.Name(), ref.Hash)
}
