package client

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

	"connectrpc.com/connect"

	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/proto/filehash"
)

const (
	// chunkBytes is the data of one upload message.
	chunkBytes = 256 << 10
	// transferTries bounds how often a transfer that makes no progress starts again.
	transferTries = 8
)

// HashFile names a file: its SHA-256 and size, with the format given.
func HashFile(path, format string) (*espalierv1.FileRef, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("hash file: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return nil, fmt.Errorf("hash file: %w", err)
	}
	return &espalierv1.FileRef{Hash: hex.EncodeToString(h.Sum(nil)), SizeBytes: n, Format: format}, nil
}

// HashBytes names data held in memory.
func HashBytes(data []byte, format string) *espalierv1.FileRef {
	h := sha256.Sum256(data)
	return &espalierv1.FileRef{Hash: hex.EncodeToString(h[:]), SizeBytes: int64(len(data)), Format: format}
}

// CheckHash refuses what is not a lower-case hexadecimal SHA-256, so that a hash
// from elsewhere can be used as a file name. Its error wraps ErrHash.
func CheckHash(name string) error {
	if !filehash.Valid(name) {
		return fmt.Errorf("%q is not a lower-case hexadecimal SHA-256: %w", name, ErrHash)
	}
	return nil
}

// Stat tells which of the files the cluster has, in the order asked.
func (c *Client) Stat(ctx context.Context, hashes ...string) ([]*espalierv1.FileStat, error) {
	return again(ctx, c.patience, func() ([]*espalierv1.FileStat, error) {
		res, err := c.Files.Stat(ctx, &espalierv1.StatRequest{Hashes: hashes})
		if err != nil {
			return nil, err
		}
		if got := res.GetFiles(); len(got) == len(hashes) {
			return got, nil
		}
		return nil, fmt.Errorf("stat files: asked for %d, told of %d", len(hashes), len(res.GetFiles()))
	})
}

// UploadFile names the file at path, uploads it unless the cluster has it, and
// returns its name.
func (c *Client) UploadFile(ctx context.Context, path, format string) (*espalierv1.FileRef, error) {
	ref, err := HashFile(path, format)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("upload file: %w", err)
	}
	defer f.Close()
	return ref, c.Upload(ctx, ref, f)
}

// Upload sends the file that ref names from r, going on from what the cluster
// has of it; nothing is sent when it is there. It goes on after a lost connection.
// The server checks the hash.
func (c *Client) Upload(ctx context.Context, ref *espalierv1.FileRef, r io.ReaderAt) error {
	if err := CheckHash(ref.GetHash()); err != nil {
		return fmt.Errorf("upload: %w", err)
	}
	var wait backoff
	var last error
	best := int64(-1)
	for stuck := 0; stuck < transferTries; stuck++ {
		stats, err := c.Stat(ctx, ref.GetHash())
		if err != nil {
			return fmt.Errorf("upload %s: %w", ref.GetHash(), err)
		}
		stat := stats[0]
		if stat.GetPresent() {
			return nil
		}
		if stat.GetReceivedBytes() > best {
			best, stuck = stat.GetReceivedBytes(), 0
		}
		last = c.uploadFrom(ctx, ref, r, stat.GetReceivedBytes())
		if last == nil {
			return nil
		}
		// What a replica kept of an upload may be damaged when it crashed: it throws that away.
		spoilt := connect.CodeOf(last) == connect.CodeDataLoss && stat.GetReceivedBytes() > 0
		if !resumable(last) && !spoilt || !wait.sleep(ctx) {
			return fmt.Errorf("upload %s: %w", ref.GetHash(), last)
		}
	}
	return fmt.Errorf("upload %s: %w: %w", ref.GetHash(), ErrRefused, last)
}

// resumable tells whether a transfer may go on after the error. An upload's
// offset may have been overtaken by another upload of the same file.
func resumable(err error) bool {
	code := connect.CodeOf(err)
	return Temporary(err) || code == connect.CodeOutOfRange || code == connect.CodeFailedPrecondition
}

// uploadFrom sends one stream.
func (c *Client) uploadFrom(ctx context.Context, ref *espalierv1.FileRef, r io.ReaderAt, offset int64) error {
	if offset < 0 || offset > ref.GetSizeBytes() {
		offset = 0
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.Files.Upload(ctx)
	if err != nil {
		return err
	}
	req := &espalierv1.UploadRequest{File: ref, Offset: offset}
	buf := make([]byte, chunkBytes)
	for at := offset; ; {
		n, err := r.ReadAt(buf[:min(int64(len(buf)), ref.GetSizeBytes()-at)], at)
		if err != nil && (!errors.Is(err, io.EOF) || at+int64(n) != ref.GetSizeBytes()) {
			cancel()
			_, _ = stream.CloseAndReceive()
			return fmt.Errorf("read: %w", err)
		}
		req.Data = buf[:n]
		if err := stream.Send(req); err != nil {
			if !errors.Is(err, io.EOF) {
				return err
			}
			// The server ended the stream: its reply says why.
			break
		}
		at += int64(n)
		req = &espalierv1.UploadRequest{}
		if at == ref.GetSizeBytes() {
			break
		}
	}
	_, err = stream.CloseAndReceive()
	return err
}

// Download brings the file that ref names to path: whole and checked, or not at
// all. What an earlier download left at path+".part" is gone on with. If ref has
// no size, the server's is taken.
func (c *Client) Download(ctx context.Context, ref *espalierv1.FileRef, path string) error {
	if err := CheckHash(ref.GetHash()); err != nil {
		return fmt.Errorf("download: %w", err)
	}
	part := path + ".part"
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("download: %w", err)
	}
	f, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("download: %w", err)
	}
	defer f.Close()
	if err := c.fill(ctx, ref, f); err != nil {
		if errors.Is(err, ErrHash) {
			_ = os.Remove(part)
		}
		return fmt.Errorf("download %s: %w", ref.GetHash(), err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("download %s: %w", ref.GetHash(), err)
	}
	if err := os.Rename(part, path); err != nil {
		return fmt.Errorf("download %s: %w", ref.GetHash(), err)
	}
	return nil
}

// fill completes the partly downloaded file f. When what was left from before
// turns out wrong, it starts over once.
func (c *Client) fill(ctx context.Context, ref *espalierv1.FileRef, f *os.File) error {
	h := sha256.New()
	have, err := io.Copy(h, f)
	if err != nil {
		return err
	}
	reused := have > 0
	for {
		err := c.fetch(ctx, ref, f, h, have)
		if !errors.Is(err, ErrHash) || !reused {
			return err
		}
		if err := f.Truncate(0); err != nil {
			return err
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
		h.Reset()
		have, reused = 0, false
	}
}

// fetch streams what follows the first have bytes to w and h, reconnecting while
// that makes progress, and checks the hash.
func (c *Client) fetch(ctx context.Context, ref *espalierv1.FileRef, w io.Writer, h hash.Hash, have int64) error {
	size := ref.GetSizeBytes()
	if size > 0 && have > size {
		return ErrHash
	}
	var wait backoff
	for stuck := 0; ; stuck++ {
		n, total, err := c.fetchOnce(ctx, ref.GetHash(), have, size, io.MultiWriter(w, h))
		have += n
		if total > 0 {
			size = total
		}
		if err == nil && have < size {
			err = connect.NewError(connect.CodeUnavailable, io.ErrUnexpectedEOF)
		}
		if err == nil {
			break
		}
		if n > 0 {
			stuck = 0
		}
		if !Temporary(err) || stuck >= transferTries || !wait.sleep(ctx) {
			return err
		}
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != ref.GetHash() {
		return fmt.Errorf("got %d bytes with hash %s: %w", have, got, ErrHash)
	}
	return nil
}

// fetchOnce streams from offset to w and returns what it wrote and the size of
// the whole file. want is the size expected; 0 takes the server's.
func (c *Client) fetchOnce(ctx context.Context, hash string, offset, want int64, w io.Writer) (n, size int64, err error) {
	if want > 0 && offset == want {
		return 0, want, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	stream, err := c.Files.Download(ctx, &espalierv1.DownloadRequest{Hash: hash, Offset: offset})
	if err != nil {
		cancel()
		return 0, 0, err
	}
	defer stream.Close()
	defer cancel()
	for stream.Receive() {
		msg := stream.Msg()
		if size == 0 {
			size = msg.GetSizeBytes()
		}
		if want > 0 && size > 0 && size != want {
			return n, 0, fmt.Errorf("server has %d bytes, want %d: %w", size, want, ErrHash)
		}
		if size > 0 && offset+n+int64(len(msg.GetData())) > size {
			return n, size, fmt.Errorf("more than %d bytes: %w", size, ErrHash)
		}
		m, err := w.Write(msg.GetData())
		n += int64(m)
		if err != nil {
			return n, size, err
		}
	}
	return n, size, stream.Err()
}

// Read brings a file into memory, if it has no more than limit bytes, and checks it.
func (c *Client) Read(ctx context.Context, ref *espalierv1.FileRef, limit int64) ([]byte, error) {
	if err := CheckHash(ref.GetHash()); err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	w := &bounded{left: limit}
	if err := c.fetch(ctx, ref, w, sha256.New(), 0); err != nil {
		return nil, fmt.Errorf("read %s: %w", ref.GetHash(), err)
	}
	return w.data, nil
}

// bounded collects what is written, up to a bound.
type bounded struct {
	data []byte
	left int64
}

func (b *bounded) Write(p []byte) (int, error) {
	if int64(len(p)) > b.left {
		return 0, fmt.Errorf("more than %d bytes allowed", int64(len(b.data))+b.left)
	}
	b.left -= int64(len(p))
	b.data = append(b.data, p...)
	return len(p), nil
}
