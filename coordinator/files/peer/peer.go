// Package peer moves files between replicas over their API ports: what one asks of
// another, and what it answers.
package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"connectrpc.com/connect"

	"github.com/espalier-ml/espalier/coordinator/files"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/proto/espalier/v1/espalierv1connect"
	"github.com/espalier-ml/espalier/proto/trace"
)

const (
	// maxFiles bounds one request of Hold.
	maxFiles = 1024
	// chunkBytes is how much of a file one message carries.
	chunkBytes = 256 << 10
	// maxMessageBytes bounds a message that is received.
	maxMessageBytes = 4 << 20
)

// Service answers other replicas for this one.
type Service struct {
	Files   *files.Store
	Replica *files.Replicator
	// Peer gives the replica with an API address, nil if there is none: nothing is
	// fetched from strangers.
	Peer func(address string) files.Peer
}

var _ espalierv1connect.PeerServiceHandler = (*Service)(nil)

// Handler serves the service; mount it under its path, behind what asks for the token, and
// never forward it to the leader.
func (s *Service) Handler() (path string, h http.Handler) {
	return espalierv1connect.NewPeerServiceHandler(s, connect.WithReadMaxBytes(maxMessageBytes))
}

// Hold implements PeerService.
func (s *Service) Hold(ctx context.Context, req *v1.HoldRequest) (*v1.HoldResponse, error) {
	if n := len(req.GetFiles()); n > maxFiles {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("files has %d entries, at most %d are allowed", n, maxFiles))
	}
	refs := make([]files.Ref, len(req.GetFiles()))
	for i, f := range req.GetFiles() {
		if err := files.CheckHash(f.GetHash()); err != nil {
			return nil, toConnect(fmt.Errorf("files[%d]: %w", i, err))
		}
		refs[i] = files.Ref{Hash: f.GetHash(), SizeBytes: f.GetSizeBytes()}
	}
	out := &v1.HoldResponse{}
	if req.GetFrom() == "" {
		for _, ref := range refs {
			if !s.Files.Has(ref.Hash) {
				out.Missing = append(out.Missing, ref.Hash)
			}
		}
		return out, nil
	}
	from := s.Peer(req.GetFrom())
	if from == nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("from is %q, want the address of a replica of this cluster", req.GetFrom()))
	}
	missing, reason := s.Replica.Hold(ctx, refs, from)
	out.Missing = missing
	if reason != nil {
		out.Reason = reason.Error()
	}
	return out, nil
}

// Fetch implements PeerService.
func (s *Service) Fetch(ctx context.Context, req *v1.FetchRequest, stream *connect.ServerStream[v1.FetchResponse]) error {
	open := s.Files.OpenVerified
	if req.GetOffset() > 0 {
		open = func(_ context.Context, hash string) (*files.File, error) { return s.Files.Open(hash) }
	}
	f, err := open(ctx, req.GetHash())
	if err != nil {
		return toConnect(err)
	}
	defer f.Close()
	if req.GetOffset() < 0 || req.GetOffset() > f.Size() {
		return toConnect(fmt.Errorf("%w: offset %d, the file has %d bytes", files.ErrOffset, req.GetOffset(), f.Size()))
	}
	if _, err := f.Seek(req.GetOffset(), io.SeekStart); err != nil {
		return toConnect(err)
	}
	buf := make([]byte, chunkBytes)
	for {
		n, err := io.ReadFull(f, buf)
		if n > 0 {
			if err := stream.Send(&v1.FetchResponse{Data: buf[:n]}); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return toConnect(fmt.Errorf("read file %s: %w", req.GetHash(), err))
		}
	}
}

// codes of the file store's errors, both ways.
var codes = []struct {
	err  error
	code connect.Code
}{
	{files.ErrNotFound, connect.CodeNotFound},
	{files.ErrHash, connect.CodeInvalidArgument},
	{files.ErrOffset, connect.CodeOutOfRange},
}

func toConnect(err error) error {
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return connect.NewError(c.code, err)
		}
	}
	return err
}

func fromConnect(err error) error {
	for _, c := range codes {
		if connect.CodeOf(err) == c.code {
			return fmt.Errorf("%w: %w", c.err, err)
		}
	}
	return err
}

// Client is another replica.
type Client struct {
	id  string
	rpc espalierv1connect.PeerServiceClient
}

var _ files.Peer = (*Client)(nil)

// NewClient makes a client of the replica id at url ("https://host:port"). The token, if
// not empty, is shown with each request.
func NewClient(doer connect.HTTPClient, id, url, token string) *Client {
	opts := []connect.ClientOption{connect.WithReadMaxBytes(maxMessageBytes)}
	h := headers{}
	if token != "" {
		h.authorization = "Bearer " + token
	}
	opts = append(opts, connect.WithInterceptors(h))
	return &Client{id: id, rpc: espalierv1connect.NewPeerServiceClient(doer, url, opts...)}
}

// headers sets those of requests and streams: the token, and the ids on whose behalf they are made.
type headers struct{ authorization string }

func (h headers) set(ctx context.Context, to http.Header) {
	if h.authorization != "" {
		to.Set("Authorization", h.authorization)
	}
	trace.From(ctx).Set(to)
}

// WrapUnary implements connect.Interceptor.
func (h headers) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		h.set(ctx, req.Header())
		return next(ctx, req)
	}
}

// WrapStreamingClient implements connect.Interceptor.
func (h headers) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		conn := next(ctx, spec)
		h.set(ctx, conn.RequestHeader())
		return conn
	}
}

// WrapStreamingHandler implements connect.Interceptor.
func (headers) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// ID implements files.Peer.
func (c *Client) ID() string { return c.id }

// Hold implements files.Peer.
func (c *Client) Hold(ctx context.Context, refs []files.Ref, from string) (missing []string, err error) {
	for len(refs) > 0 {
		n := min(len(refs), maxFiles)
		req := &v1.HoldRequest{From: from}
		for _, ref := range refs[:n] {
			req.Files = append(req.Files, &v1.FileRef{Hash: ref.Hash, SizeBytes: ref.SizeBytes})
		}
		resp, err := c.rpc.Hold(ctx, req)
		if err != nil {
			return nil, fmt.Errorf("ask replica %s to hold files: %w", c.id, err)
		}
		missing = append(missing, resp.GetMissing()...)
		refs = refs[n:]
	}
	return missing, nil
}

// Fetch implements files.Peer.
func (c *Client) Fetch(ctx context.Context, hash string, offset int64) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := c.rpc.Fetch(ctx, &v1.FetchRequest{Hash: hash, Offset: offset})
	if err != nil {
		cancel()
		return nil, fromConnect(err)
	}
	r := &body{stream: stream, cancel: cancel}
	// The first message tells whether the file is there.
	if err := r.next(); err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// body reads a file's messages.
type body struct {
	stream *connect.ServerStreamForClient[v1.FetchResponse]
	cancel context.CancelFunc
	rest   []byte
	err    error
}

// next receives a message; io.EOF at the end.
func (b *body) next() error {
	switch {
	case b.err != nil:
	case b.stream.Receive():
		b.rest = b.stream.Msg().GetData()
	case b.stream.Err() != nil:
		b.err = fromConnect(b.stream.Err())
	default:
		b.err = io.EOF
	}
	return b.err
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	for len(b.rest) == 0 {
		if err := b.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

// Close ends the stream.
func (b *body) Close() error {
	b.cancel()
	_ = b.stream.Close() // says that it was canceled
	return nil
}
