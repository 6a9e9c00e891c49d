package files

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/espalier-ml/espalier/coordinator/ctxio"
)

// Scrubbed is what a scrub found.
type Scrubbed struct {
	Files int
	Bytes int64
	// Damaged are the hashes of files that were set aside, in order.
	Damaged []string
}

// Scrub reads every file once and compares it with its hash, at no more than
// bytesPerSecond (0: as fast as it goes). A file that does not match, or cannot be read,
// is set aside, so that it is absent and can be fetched or made again. It ends early
// with ctx's error.
func (s *Store) Scrub(ctx context.Context, bytesPerSecond int64) (Scrubbed, error) {
	var out Scrubbed
	pace := &pace{rate: bytesPerSecond, begin: time.Now()}
	err := s.walk("", func(i Info) error {
		ok, n, err := s.verify(ctx, i.Hash, pace)
		if err != nil {
			return err
		}
		out.Files++
		out.Bytes += n
		if !ok {
			out.Damaged = append(out.Damaged, i.Hash)
		}
		return nil
	})
	if err != nil {
		return out, fmt.Errorf("scrub files: %w", err)
	}
	return out, nil
}

// Verify reads one file and compares it with its hash; one that does not match is set
// aside. Errors: ErrNotFound, ErrHash, ErrHashMismatch, or ctx's.
func (s *Store) Verify(ctx context.Context, hash string) error {
	if err := CheckHash(hash); err != nil {
		return err
	}
	if !s.Has(hash) {
		return fmt.Errorf("%w: %s", ErrNotFound, hash)
	}
	ok, _, err := s.verify(ctx, hash, &pace{})
	if err != nil {
		return fmt.Errorf("verify file: %w", err)
	}
	if !ok {
		return fmt.Errorf("%w: %s was set aside", ErrHashMismatch, hash)
	}
	return nil
}

func (s *Store) verify(ctx context.Context, hash string, pace *pace) (ok bool, n int64, err error) {
	f, err := s.Open(hash)
	if errors.Is(err, ErrNotFound) {
		return true, 0, nil // removed meanwhile
	}
	if err != nil {
		return false, 0, err
	}
	sum := sha256.New()
	n, readErr := io.Copy(sum, &pacedReader{ctxio.Reader(ctx, f), ctx, pace})
	if err := f.Close(); err != nil {
		return false, n, err
	}
	if err := ctx.Err(); err != nil {
		return false, n, err
	}
	if readErr == nil && hex.EncodeToString(sum.Sum(nil)) == hash {
		return true, n, nil
	}
	return false, n, s.setAside(ctx, hash, readErr)
}

// smallBytes is how large a file may be that is verified each time it is given to somebody.
const smallBytes = 8 << 20

// OpenVerified is Open for somebody elsewhere: a file of up to 8 MiB is compared with its hash
// before, and set aside if it does not match. A larger one is left to the reader, who knows the
// hash, and to Scrub. Errors: as Open.
func (s *Store) OpenVerified(ctx context.Context, hash string) (*File, error) {
	f, err := s.Open(hash)
	if err != nil || f.Size() > smallBytes {
		return f, err
	}
	sum := sha256.New()
	_, readErr := io.Copy(sum, io.NewSectionReader(f, 0, f.Size()))
	if readErr == nil && hex.EncodeToString(sum.Sum(nil)) == hash {
		return f, nil
	}
	if err := errors.Join(f.Close(), s.setAside(ctx, hash, readErr)); err != nil {
		return nil, fmt.Errorf("open file: %w", err)
	}
	return nil, fmt.Errorf("%w: %s was damaged", ErrNotFound, hash)
}

// setAside moves a damaged file out of the way.
func (s *Store) setAside(ctx context.Context, hash string, cause error) error {
	unlock, err := s.lock(ctx, hash)
	if err != nil {
		return err
	}
	defer unlock()
	s.cfg.Logger.Error().Err(cause).Str("file", hash).Msg("file does not match its hash, set aside")
	err = os.Rename(s.path(hash), filepath.Join(s.cfg.Dir, damagedDir, hash))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// pace spreads reading over time.
type pace struct {
	rate  int64
	begin time.Time
	read  int64
}

// wait waits until n more bytes are due.
func (p *pace) wait(ctx context.Context, n int) error {
	p.read += int64(n)
	if p.rate <= 0 {
		return nil
	}
	due := p.begin.Add(time.Duration(float64(p.read) / float64(p.rate) * float64(time.Second)))
	delay := time.Until(due)
	if delay <= 0 {
		return nil
	}
	t := time.NewTimer(delay)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

type pacedReader struct {
	io.Reader
	ctx  context.Context
	pace *pace
}

func (p *pacedReader) Read(b []byte) (int, error) {
	n, err := p.Reader.Read(b)
	if w := p.pace.wait(p.ctx, n); w != nil {
		return n, w
	}
	return n, err
}
