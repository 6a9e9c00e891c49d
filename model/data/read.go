package data

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// DefaultMaxBytes is the limit on the bytes of samples when none is given.
const DefaultMaxBytes = 4 << 30

// firstRead is how much is allocated on the word of a header alone.
const firstRead = 4 << 20

// sizeOf is the number of bytes that r certainly holds, as far as it can tell.
func sizeOf(r io.Reader) int64 {
	switch v := r.(type) {
	case *os.File:
		if st, err := v.Stat(); err == nil && st.Mode().IsRegular() {
			return st.Size()
		}
	case interface{ Len() int }: // bytes.Reader, bytes.Buffer, strings.Reader
		return int64(v.Len())
	}
	return 0
}

// readBytes reads exactly n bytes. Memory grows with what was really read, so
// that a header cannot ask for what its file does not hold; up to held bytes,
// which are known to be there, it is allocated at once.
func readBytes(r io.Reader, n int64, held ...int64) ([]byte, error) {
	if n < 0 || int64(int(n)) != n {
		return nil, fmt.Errorf("%w: %d bytes", ErrTooLarge, n)
	}
	b := make([]byte, 0, min(n, max(firstRead, slices.Max(append(held, 0)))))
	for int64(len(b)) < n {
		if len(b) == cap(b) {
			grown := make([]byte, len(b), min(n, 2*int64(cap(b))))
			copy(grown, b)
			b = grown
		}
		k, err := io.ReadFull(r, b[len(b):cap(b)])
		b = b[:len(b)+k]
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return nil, fmt.Errorf("%w: %d bytes of %d", ErrTruncated, len(b), n)
			}
			return nil, corrupt(err)
		}
	}
	return b, nil
}

// atEnd reads past the last expected byte: a gzip reader verifies its checksum
// there.
func atEnd(r io.Reader) error {
	var one [1]byte
	switch _, err := io.ReadFull(r, one[:]); {
	case err == nil:
		return fmt.Errorf("%w: more bytes than the header says", ErrTooLarge)
	case errors.Is(err, io.EOF):
		return nil
	default:
		return corrupt(err)
	}
}

// corrupt classifies an error met while reading.
func corrupt(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: %w", ErrTruncated, err)
	}
	return fmt.Errorf("%w: %w", ErrFormat, err)
}

// withFile opens path, through gzip if its name ends in .gz, and calls f. Errors
// name the file.
func withFile(path string, f func(io.Reader) error) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	var r io.Reader = bufio.NewReaderSize(file, 1<<16)
	if strings.HasSuffix(path, ".gz") {
		z, err := gzip.NewReader(r)
		if err != nil {
			return fmt.Errorf("%s: %w", path, corrupt(err))
		}
		r = z
	}
	if err := f(r); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// withinLimit refuses n bytes beyond limit.
func withinLimit(n, limit int64) error {
	if n > limit {
		return fmt.Errorf("%w: %d bytes of samples: want at most %d (raise the limit if that is meant)", ErrTooLarge, n, limit)
	}
	return nil
}

// readNames reads one name per line.
func readNames(path string) ([]string, error) {
	b, err := readSmall(path)
	if err != nil {
		return nil, err
	}
	var names []string
	for line := range strings.Lines(string(bytes.ToValidUTF8(b, []byte("?")))) {
		if line = strings.TrimSpace(line); line != "" {
			names = append(names, line)
		}
	}
	if len(names) > MaxClasses {
		return nil, fmt.Errorf("%s: %w: %d names: want at most %d", path, ErrTooLarge, len(names), MaxClasses)
	}
	return names, nil
}

// readSmall reads a file of at most 1 MiB.
func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	const limit = 1 << 20
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if len(b) > limit {
		return nil, fmt.Errorf("%s: %w: want at most %d bytes", path, ErrTooLarge, limit)
	}
	return b, nil
}
