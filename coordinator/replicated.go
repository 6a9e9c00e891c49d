package coordinator

import (
	"context"
	"fmt"
	"io"

	"github.com/espalier-ml/espalier/coordinator/api"
	"github.com/espalier-ml/espalier/coordinator/dispatch"
	"github.com/espalier-ml/espalier/coordinator/files"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// replicated is the files of the cluster as this replica sees them.
type replicated struct {
	local *files.Store
}

func (s *Server) replicated() *replicated { return &replicated{s.files} }

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
func (r *replicated) Open(_ context.Context, hash string) (io.ReadSeekCloser, int64, error) {
	f, err := r.local.Open(hash)
	if err != nil {
		return nil, 0, err
	}
	return f, f.Size(), nil
}

// Missing implements api.Files and dispatch.Files.
func (r *replicated) Missing(_ context.Context, refs []*v1.FileRef) ([]string, error) {
	var out []string
	for _, f := range refs {
		info, err := r.local.Stat(f.GetHash())
		if err != nil {
			return nil, err
		}
		if !info.Present {
			out = append(out, f.GetHash())
		}
	}
	return out, nil
}
