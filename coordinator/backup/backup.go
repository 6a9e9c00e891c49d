// Package backup reads and writes backups of a cluster: the records and the files that they name.
//
// A backup is a tar archive, so that any tool lists it, with these entries in this order:
//
//	espalier-backup.json   format, build, time
//	records                the records, as the store's snapshots are
//	files/HASH             any number of files, named by their SHA-256
//	end.json               their number and bytes, what was missing, and a SHA-256 over names, sizes and contents of all
//	                       entries before
//
// A backup that was cut short has no end, so it is told from a whole one. Builds before this one wrote the records alone,
// without an archive around them: they are read as a backup without files.
package backup

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"
)

// Errors of this package.
var (
	// ErrForeign says that a file is no backup of ours.
	ErrForeign = errors.New("not a backup of espalier")
	// ErrNewer says that a newer build wrote the backup.
	ErrNewer = errors.New("backup of a newer build")
	// ErrDamaged says that a backup is cut short, or not what was written.
	ErrDamaged = errors.New("backup damaged")
	// ErrNotEmpty says that a restore would go over what a folder holds.
	ErrNotEmpty = errors.New("folder is not empty")
	// ErrUnfinished says that a restore into the folder did not come to its end.
	ErrUnfinished = errors.New("restore not finished")
)

// Format is the one that this build writes; it reads all up to it.
const Format = 1

const (
	headName    = "espalier-backup.json"
	recordsName = "records"
	filesPrefix = "files/"
	endName     = "end.json"
	// maxHeadBytes and maxEndBytes bound what is read into memory.
	maxHeadBytes = 64 << 10
	maxEndBytes  = 64 << 20
	// oldMagic begins a backup that is the records alone.
	oldMagic = "ESPSTATE"
)

// Head says what wrote a backup.
type Head struct {
	Format  int       `json:"format"`
	Version string    `json:"version"`
	Made    time.Time `json:"made"`
	// RecordsOnly: files were left out on purpose.
	RecordsOnly bool `json:"records_only,omitempty"`
}

// File names a file of the cluster.
type File struct {
	Hash      string `json:"hash"`
	SizeBytes int64  `json:"size_bytes"`
}

// end closes a backup.
type end struct {
	Files int   `json:"files"`
	Bytes int64 `json:"bytes"`
	// Missing are files that the records name and no replica had.
	Missing []File `json:"missing,omitempty"`
	SHA256  string `json:"sha256"`
}

// Writer writes a backup: Records once, File any number of times, Close.
type Writer struct {
	tw   *tar.Writer
	sum  hash.Hash
	made time.Time
	end  end
}

// NewWriter begins a backup with its head.
func NewWriter(w io.Writer, h Head) (*Writer, error) {
	h.Format = Format
	b := &Writer{tw: tar.NewWriter(w), sum: sha256.New(), made: h.Made}
	data, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("write backup: %w", err)
	}
	return b, b.entry(headName, int64(len(data)), newBytes(data))
}

// Records adds the records, size bytes of r.
func (b *Writer) Records(r io.Reader, size int64) error { return b.entry(recordsName, size, r) }

// File adds a file. Its content is not checked here: Read does it.
func (b *Writer) File(f File, r io.Reader) error {
	if err := b.entry(filesPrefix+f.Hash, f.SizeBytes, r); err != nil {
		return err
	}
	b.end.Files++
	b.end.Bytes += f.SizeBytes
	return nil
}

// Missing notes a file that could not be added.
func (b *Writer) Missing(f File) { b.end.Missing = append(b.end.Missing, f) }

// Close ends the backup. What it was written to is not closed.
func (b *Writer) Close() error {
	b.end.SHA256 = hex.EncodeToString(b.sum.Sum(nil))
	data, err := json.Marshal(b.end)
	if err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	if err := b.entry(endName, int64(len(data)), newBytes(data)); err != nil {
		return err
	}
	if err := b.tw.Close(); err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	return nil
}

func (b *Writer) entry(name string, size int64, r io.Reader) error {
	err := b.tw.WriteHeader(&tar.Header{Name: name, Size: size, Mode: 0o600, ModTime: b.made, Format: tar.FormatPAX})
	if err == nil {
		sumEntry(b.sum, name, size)
		var n int64
		if n, err = io.Copy(io.MultiWriter(b.tw, b.sum), r); err == nil && n != size {
			err = fmt.Errorf("it has %d bytes, not %d", n, size)
		}
	}
	if err != nil {
		return fmt.Errorf("write backup: %s: %w", name, err)
	}
	return nil
}

// sumEntry adds an entry's name and size to the sum over all entries; its content follows.
func sumEntry(sum hash.Hash, name string, size int64) {
	_, _ = sum.Write(binary.BigEndian.AppendUint64(append([]byte(name), 0), uint64(size))) // never fails
}
