package coordinator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/espalier-ml/espalier/coordinator/api"
	"github.com/espalier-ml/espalier/coordinator/dispatch"
	"github.com/espalier-ml/espalier/coordinator/files"
	"github.com/espalier-ml/espalier/coordinator/store"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/proto/espalier/v1/espalierv1connect"
)

// replicated is the files of the cluster as this replica sees them.
type replicated struct {
	local   *files.Store
	replica *files.Replicator
	// sizeOf tells the size of a file of which only the hash is known; 0 if nobody knows.
	sizeOf func(ctx context.Context, hash string) int64
}

func (s *Server) replicated() *replicated { return &replicated{s.files, s.replica, s.sizeOf} }

// sizeOf looks for a file's size here, in the records, and on other replicas.
func (s *Server) sizeOf(ctx context.Context, hash string) (size int64) {
	if info, err := s.files.Stat(hash); err != nil || info.Present {
		return info.SizeBytes
	}
	_ = s.store.View(func(v *store.View) error { // closing: the size stays unknown
		size = v.File(hash).GetFile().GetSizeBytes()
		return nil
	})
	for _, p := range s.peers.List() {
		if size > 0 || p.ID == s.store.ID() {
			continue
		}
		asking, cancel := context.WithTimeout(ctx, statTimeout)
		st, err := espalierv1connect.NewFileServiceClient(s.peerHTTP, s.url(p.API), s.withToken()).Stat(asking, &v1.StatRequest{Hashes: []string{hash}})
		cancel()
		if err == nil && len(st.GetFiles()) == 1 && st.GetFiles()[0].GetPresent() {
			size = st.GetFiles()[0].GetSizeBytes()
		}
	}
	return size
}

// statTimeout bounds the question to one replica.
const statTimeout = 2 * time.Second

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
		return fmt.Errorf("%w: it has %d of %d bytes", io.ErrUnexpectedEOF, received, ref.SizeBytes)
	}
	if err != nil {
		return err
	}
	if missing, err := r.replica.Majority(ctx, []files.Ref{ref}); err != nil || len(missing) > 0 {
		return fmt.Errorf("%w: %s is on this replica alone: %w", errNotSpread, ref.Hash, errors.Join(err, files.ErrNoMajority))
	}
	return nil
}

// errNotSpread says that too few replicas took an upload; it may be sent again.
var errNotSpread = errors.New("upload not on a majority of replicas")

// Open implements api.Files.
func (r *replicated) Open(ctx context.Context, hash string) (io.ReadSeekCloser, int64, error) {
	f, err := r.replica.Open(ctx, files.Ref{Hash: hash, SizeBytes: r.sizeOf(ctx, hash)})
	if err != nil {
		return nil, 0, err
	}
	return f, f.Size(), nil
}

// Missing implements api.Files and dispatch.Files. The size of a file of which only the hash is known
// is looked for first.
func (r *replicated) Missing(ctx context.Context, refs []*v1.FileRef) ([]string, error) {
	want := make([]files.Ref, len(refs))
	for i, f := range refs {
		want[i] = files.Ref{Hash: f.GetHash(), SizeBytes: f.GetSizeBytes()}
		if want[i].SizeBytes == 0 {
			want[i].SizeBytes = r.sizeOf(ctx, f.GetHash())
		}
	}
	return r.replica.Majority(ctx, want)
}
