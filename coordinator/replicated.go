package coordinator

import (
	"context"
	"fmt"
	"io"

	"github.com/espalier-ml/espalier/coordinator/api"
	"github.com/espalier-ml/espalier/coordinator/dispatch"
	"github.com/espalier-ml/espalier/coordinator/files"
	"github.com/espalier-ml/espalier/coordinator/store"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// replicated is the files of the cluster as this replica sees them.
type replicated struct {
	local   *files.Store
	replica *files.Replicator
	// sizeOf tells a recorded file's size, which an upload is checked against; 0 if it is not known.
	sizeOf func(hash string) int64
}

func (s *Server) replicated() *replicated {
	return &replicated{s.files, s.replica, func(hash string) (size int64) {
		_ = s.store.View(func(v *store.View) error { // closing: the size stays unknown
			size = v.File(hash).GetFile().GetSizeBytes()
			return nil
		})
		return size
	}}
}

var (
	_ api.Files      = (*replicated)(nil)
	_ dispatch.Files = (*replicated)(nil)
)

// Stat implements api.Files.
func (r *replicated) Stat(hash string) (*v1.FileStat, error) {
	info, err := r.local.Stat(hash)
	if err != nil {
		return nil, err
	}
	return &v1.FileStat{Hash: hash, Present: info.Present, SizeBytes: info.SizeBytes, ReceivedBytes: info.Received}, nil
}

// Upload implements api.Files.
func (r *replicated) Upload(ctx context.Context, file *v1.FileRef, offset int64, data io.Reader) error {
	ref := files.Ref{Hash: file.GetHash(), SizeBytes: file.GetSizeBytes()}
	received, err := r.local.Append(ctx, ref, offset, data)
	if err == nil && received < ref.SizeBytes {
		err = fmt.Errorf("%w: it has %d of %d bytes", io.ErrUnexpectedEOF, received, ref.SizeBytes)
	}
	return err
}

// Open implements api.Files.
func (r *replicated) Open(ctx context.Context, hash string) (io.ReadSeekCloser, int64, error) {
	f, err := r.replica.Open(ctx, files.Ref{Hash: hash, SizeBytes: r.sizeOf(hash)})
	if err != nil {
		return nil, 0, err
	}
	return f, f.Size(), nil
}

// Missing implements api.Files and dispatch.Files. Files of which only the hash is known take their size from what is here.
func (r *replicated) Missing(ctx context.Context, refs []*v1.FileRef) ([]string, error) {
	want := make([]files.Ref, len(refs))
	for i, f := range refs {
		want[i] = files.Ref{Hash: f.GetHash(), SizeBytes: f.GetSizeBytes()}
		if want[i].SizeBytes == 0 {
			info, err := r.local.Stat(f.GetHash())
			if err != nil {
				return nil, err
			}
			want[i].SizeBytes = max(info.SizeBytes, r.sizeOf(f.GetHash()))
		}
	}
	return r.replica.Majority(ctx, want)
}
