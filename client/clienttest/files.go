package clienttest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"connectrpc.com/connect"

	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// fileService is the file service over the server's maps.
type fileService struct{ s *Server }

var errCut = connect.NewError(connect.CodeUnavailable, errors.New("cut on demand"))

func (f fileService) Stat(_ context.Context, req *espalierv1.StatRequest) (*espalierv1.StatResponse, error) {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	res := &espalierv1.StatResponse{}
	for _, h := range req.GetHashes() {
		data, ok := f.s.files[h]
		res.Files = append(res.Files, &espalierv1.FileStat{
			Hash: h, Present: ok, SizeBytes: int64(len(data)), ReceivedBytes: int64(len(f.s.parts[h])),
		})
	}
	return res, nil
}

func (f fileService) Upload(_ context.Context, stream *connect.ClientStream[espalierv1.UploadRequest]) (*espalierv1.UploadResponse, error) {
	var ref *espalierv1.FileRef
	for stream.Receive() {
		msg := stream.Msg()
		if ref == nil {
			ref = msg.GetFile()
			if f.s.OnFiles != nil {
				if err := f.s.OnFiles(ref.GetHash()); err != nil {
					return nil, err
				}
			}
			if err := f.begin(ref.GetHash(), msg.GetOffset()); err != nil {
				return nil, err
			}
		}
		n, broken := f.s.spend(int64(len(msg.GetData())))
		f.s.mu.Lock()
		f.s.parts[ref.GetHash()] = append(f.s.parts[ref.GetHash()], msg.GetData()[:n]...)
		f.s.mu.Unlock()
		if broken {
			return nil, errCut
		}
	}
	if err := stream.Err(); err != nil {
		return nil, err
	}
	return &espalierv1.UploadResponse{File: ref}, f.finish(ref)
}

func (f fileService) begin(hash string, offset int64) error {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if have := int64(len(f.s.parts[hash])); offset > have {
		return connect.NewError(connect.CodeOutOfRange, fmt.Errorf("offset %d, have %d", offset, have))
	}
	f.s.parts[hash] = f.s.parts[hash][:offset]
	return nil
}

func (f fileService) finish(ref *espalierv1.FileRef) error {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	data := f.s.parts[ref.GetHash()]
	delete(f.s.parts, ref.GetHash())
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != ref.GetHash() {
		return connect.NewError(connect.CodeDataLoss, errors.New("wrong hash"))
	}
	f.s.files[ref.GetHash()] = data
	return nil
}

func (f fileService) Download(_ context.Context, req *espalierv1.DownloadRequest, stream *connect.ServerStream[espalierv1.DownloadResponse]) error {
	if f.s.OnFiles != nil {
		if err := f.s.OnFiles(req.GetHash()); err != nil {
			return err
		}
	}
	f.s.mu.Lock()
	data, ok := f.s.files[req.GetHash()]
	f.s.loads[req.GetHash()]++
	f.s.mu.Unlock()
	if !ok {
		return connect.NewError(connect.CodeNotFound, fmt.Errorf("no file %s", req.GetHash()))
	}
	msg := &espalierv1.DownloadResponse{SizeBytes: int64(len(data))}
	rest := data[min(req.GetOffset(), int64(len(data))):]
	for {
		n, broken := f.s.spend(int64(min(len(rest), 64<<10)))
		msg.Data = rest[:n]
		rest = rest[n:]
		if err := stream.Send(msg); err != nil {
			return err
		}
		if broken {
			return errCut
		}
		if len(rest) == 0 {
			return nil
		}
		msg = &espalierv1.DownloadResponse{}
	}
}
