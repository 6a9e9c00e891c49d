package api

import (
	"context"
	"errors"
	"fmt"
	"io"

	"connectrpc.com/connect"

	"github.com/espalier-ml/espalier/coordinator/clock"
	"github.com/espalier-ml/espalier/coordinator/store"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// chunkBytes is how much of a file one message carries; maxMessageBytes bounds a message that is received.
const (
	chunkBytes      = 256 << 10
	maxMessageBytes = 4 << 20
	maxStat         = 1000
)

// Stat implements FileService.
func (s *service) Stat(_ context.Context, req *v1.StatRequest) (*v1.StatResponse, error) {
	if n := len(req.GetHashes()); n > maxStat {
		return nil, invalid("hashes", n, fmt.Sprintf("at most %d", maxStat))
	}
	out := &v1.StatResponse{}
	for _, h := range req.GetHashes() {
		if err := checkHash("hashes", h); err != nil {
			return nil, err
		}
		st, err := s.cfg.Files.Stat(h)
		if err != nil {
			return nil, wrap(err)
		}
		out.Files = append(out.Files, st)
	}
	return out, nil
}

// Upload implements FileService.
func (s *service) Upload(ctx context.Context, stream *connect.ClientStream[v1.UploadRequest]) (*v1.UploadResponse, error) {
	if !stream.Receive() {
		return nil, cmpErr(stream.Err(), invalid("file", "", "in the first message"))
	}
	first := stream.Msg()
	file := first.GetFile()
	switch {
	case file == nil:
		return nil, invalid("file", "", "in the first message")
	case file.GetSizeBytes() < 0:
		return nil, invalid("file.size_bytes", file.GetSizeBytes(), "not negative")
	case first.GetOffset() < 0 || first.GetOffset() > file.GetSizeBytes():
		return nil, invalid("offset", first.GetOffset(), fmt.Sprintf("from 0 to the size, %d", file.GetSizeBytes()))
	}
	if err := checkHash("file.hash", file.GetHash()); err != nil {
		return nil, err
	}
	r := &uploadReader{stream: stream, rest: first.GetData()}
	if err := s.cfg.Files.Upload(ctx, file, first.GetOffset(), r); err != nil {
		return nil, s.fileError(err)
	}
	s.log(ctx).Info().Str("file", file.GetHash()).Int64("bytes", file.GetSizeBytes()).Str("format", file.GetFormat()).Msg("file uploaded")
	return &v1.UploadResponse{File: file}, nil
}

// cmpErr returns the first error that is one.
func cmpErr(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// uploadReader reads the data of an upload's messages.
type uploadReader struct {
	stream *connect.ClientStream[v1.UploadRequest]
	rest   []byte
}

// Read implements io.Reader.
func (r *uploadReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if !r.stream.Receive() {
			return 0, cmpErr(r.stream.Err(), io.EOF)
		}
		r.rest = r.stream.Msg().GetData()
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// Download implements FileService.
func (s *service) Download(ctx context.Context, req *v1.DownloadRequest, stream *connect.ServerStream[v1.DownloadResponse]) error {
	if err := checkHash("hash", req.GetHash()); err != nil {
		return err
	}
	f, size, err := s.cfg.Files.Open(ctx, req.GetHash())
	if err != nil {
		return s.fileError(err)
	}
	defer f.Close()
	length := req.GetLength()
	if length == 0 {
		length = size - req.GetOffset()
	}
	if req.GetOffset() < 0 || length < 0 || req.GetOffset() > size || length > size-req.GetOffset() {
		return connect.NewError(connect.CodeOutOfRange, fmt.Errorf("range of %d bytes at %d: the file has %d", length, req.GetOffset(), size))
	}
	if _, err := f.Seek(req.GetOffset(), io.SeekStart); err != nil {
		return wrap(err)
	}
	buf := make([]byte, min(chunkBytes, length))
	msg := &v1.DownloadResponse{SizeBytes: size}
	for length > 0 {
		n, err := io.ReadFull(f, buf[:min(int64(len(buf)), length)])
		if err != nil {
			return wrap(fmt.Errorf("read file %s: %w", req.GetHash(), err))
		}
		msg.Data = buf[:n]
		if err := stream.Send(msg); err != nil {
			return err
		}
		length -= int64(n)
		msg = &v1.DownloadResponse{}
	}
	if msg.GetSizeBytes() > 0 || size == 0 {
		return stream.Send(msg) // an empty range still tells the size
	}
	return nil
}

// fileError gives the errors of Files their codes.
func (s *service) fileError(err error) error {
	for _, c := range s.cfg.FileErrors {
		if errors.Is(err, c.Err) {
			return connect.NewError(c.Code, err)
		}
	}
	return wrap(err)
}

// PutData implements DataService: it names a data set that was uploaded.
func (s *service) PutData(ctx context.Context, req *v1.PutDataRequest) (*v1.PutDataResponse, error) {
	d := req.GetData()
	if err := checkLabel("data.name", d.GetName()); err != nil {
		return nil, err
	}
	if err := checkHash("data.file.hash", d.GetFile().GetHash()); err != nil {
		return nil, err
	}
	missing, err := s.cfg.Files.Missing(ctx, []*v1.FileRef{d.GetFile()})
	if err != nil {
		return nil, wrap(err)
	}
	if len(missing) > 0 {
		return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("data.file: %s is not here: upload it first", d.GetFile().GetHash()))
	}
	if err := s.addFiles(ctx, d.GetFile()); err != nil {
		return nil, err
	}
	if d.GetCreatedMs() == 0 {
		d.CreatedMs = clock.Milli(s.now())
	}
	_, err = s.apply(ctx, &v1.Command{Op: &v1.Command_PutData{PutData: &v1.PutData{Data: d}}})
	if err == nil {
		s.log(ctx).Info().Str("name", d.GetName()).Str("file", d.GetFile().GetHash()).Msg("data set named")
	}
	return &v1.PutDataResponse{}, err
}

// ListData implements DataService. It may be stale.
func (s *service) ListData(context.Context, *v1.ListDataRequest) (*v1.ListDataResponse, error) {
	out := &v1.ListDataResponse{}
	err := s.cfg.Store.View(func(v *store.View) error {
		out.Data = v.DataSets()
		return nil
	})
	return out, wrap(err)
}
