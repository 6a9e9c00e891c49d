package backup

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"

	"github.com/espalier-ml/espalier/coordinator/files"
)

func newBytes(b []byte) io.Reader { return bytes.NewReader(b) }

// Contents is what a backup holds.
type Contents struct {
	Head    Head   `json:"head"`
	Files   int    `json:"files"`
	Bytes   int64  `json:"bytes"`
	Missing []File `json:"missing,omitempty"`
}

// Visitor takes the parts of a backup as they are read. What it leaves of a reader is read all the same.
type Visitor struct {
	// Records takes the records, which are not verified here.
	Records func(r io.Reader) error
	// File takes a file. That its content fits its hash is known when r ends: then, if not, r's error wraps ErrDamaged.
	File func(f File, r io.Reader) error
}

// reader is a backup being read.
type reader struct {
	tr  *tar.Reader
	sum hash.Hash
	got Contents
}

// Read reads a whole backup and checks it. Errors: ErrForeign, ErrNewer, ErrDamaged, the visitor's or r's own.
func Read(r io.Reader, v Visitor) (Contents, error) {
	in := bufio.NewReaderSize(r, 64<<10)
	if magic, _ := in.Peek(len(oldMagic)); string(magic) == oldMagic {
		return Contents{Head: Head{RecordsOnly: true}}, v.Records(in)
	}
	b := &reader{tr: tar.NewReader(in), sum: sha256.New()}
	if err := b.head(); err != nil {
		return Contents{}, fmt.Errorf("read backup: %w", err)
	}
	if err := b.rest(v); err != nil {
		return b.got, fmt.Errorf("read backup: %w", err)
	}
	return b.got, nil
}

// damaged gives a broken archive its name and keeps all other errors.
func damaged(err error) error {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: it is cut short: %w", ErrDamaged, err)
	case errors.Is(err, tar.ErrHeader), errors.Is(err, tar.ErrFieldTooLong), errors.Is(err, tar.ErrInsecurePath):
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}

func (b *reader) head() error {
	h, err := b.tr.Next()
	if err != nil || h.Name != headName || h.Typeflag != tar.TypeReg {
		if err != nil && !errors.Is(damaged(err), ErrDamaged) {
			return err
		}
		return ErrForeign
	}
	data, err := b.small(h, maxHeadBytes)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, &b.got.Head); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrDamaged, headName, err)
	}
	switch f := b.got.Head.Format; {
	case f > Format:
		return fmt.Errorf("%w: it has format %d and was written by build %q, this one reads up to format %d", ErrNewer, f, b.got.Head.Version, Format)
	case f < 1:
		return fmt.Errorf("%w: it has format %d", ErrDamaged, f)
	}
	sumEntry(b.sum, h.Name, h.Size)
	_, _ = b.sum.Write(data) // never fails
	return nil
}

// small reads a whole entry of bounded size.
func (b *reader) small(h *tar.Header, limit int64) ([]byte, error) {
	if h.Size > limit {
		return nil, fmt.Errorf("%w: %s has %d bytes, at most %d are allowed", ErrDamaged, h.Name, h.Size, limit)
	}
	data, err := io.ReadAll(b.tr)
	if err != nil {
		return nil, damaged(err)
	}
	return data, nil
}

// rest reads records, files and end.
func (b *reader) rest(v Visitor) error {
	for records := false; ; records = true {
		h, err := b.tr.Next()
		if err != nil {
			return damaged(err)
		}
		hash, isFile := strings.CutPrefix(h.Name, filesPrefix)
		switch {
		case h.Typeflag != tar.TypeReg:
			return fmt.Errorf("%w: %s is no regular file", ErrDamaged, h.Name)
		case !records && h.Name == recordsName:
			err = b.part(h, v.Records)
		case records && isFile && files.CheckHash(hash) == nil:
			err = b.file(h, File{hash, h.Size}, v.File)
		case records && h.Name == endName:
			return b.end(h)
		default:
			err = fmt.Errorf("%w: %s does not belong here", ErrDamaged, h.Name)
		}
		if err != nil {
			return err
		}
	}
}

// part hands an entry to take and reads what that leaves.
func (b *reader) part(h *tar.Header, take func(io.Reader) error) error {
	sumEntry(b.sum, h.Name, h.Size)
	from := &archived{r: b.tr}
	in := io.TeeReader(from, b.sum)
	err := take(in)
	if err == nil {
		_, err = io.Copy(io.Discard, in)
	}
	if from.failed != nil {
		return from.failed // the cause, without what the taker made of it
	}
	return err
}

func (b *reader) file(h *tar.Header, f File, take func(File, io.Reader) error) error {
	b.got.Files++
	b.got.Bytes += f.SizeBytes
	checked := &verifying{sum: sha256.New(), want: f.Hash}
	err := b.part(h, func(r io.Reader) error {
		checked.r = r
		if err := take(f, checked); err != nil {
			return err
		}
		_, err := io.Copy(io.Discard, checked)
		return err
	})
	if checked.failed != nil {
		return checked.failed
	}
	return err
}

// archived gives the archive's errors their name.
type archived struct {
	r      io.Reader
	failed error
}

func (a *archived) Read(p []byte) (int, error) {
	n, err := a.r.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // io.EOF itself ends an entry, others that wrap it do not
		err = damaged(err)
		a.failed = err
	}
	return n, err
}

// verifying checks a file's hash at its end.
type verifying struct {
	r    io.Reader
	sum  hash.Hash
	want string
	// failed says that the content is not what the name says.
	failed error
}

func (v *verifying) Read(p []byte) (int, error) {
	n, err := v.r.Read(p)
	_, _ = v.sum.Write(p[:n]) // never fails
	if errors.Is(err, io.EOF) && hex.EncodeToString(v.sum.Sum(nil)) != v.want {
		v.failed = fmt.Errorf("%w: file %s is not what its name says", ErrDamaged, v.want)
		return n, v.failed
	}
	return n, err
}

func (b *reader) end(h *tar.Header) error {
	data, err := b.small(h, maxEndBytes)
	if err != nil {
		return err
	}
	var e end
	if err := json.Unmarshal(data, &e); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrDamaged, endName, err)
	}
	if e.Files != b.got.Files || e.Bytes != b.got.Bytes || e.SHA256 != hex.EncodeToString(b.sum.Sum(nil)) {
		return fmt.Errorf("%w: it does not hold what was written", ErrDamaged)
	}
	b.got.Missing = e.Missing
	if _, err := b.tr.Next(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: something follows its end", ErrDamaged)
	}
	return nil
}
