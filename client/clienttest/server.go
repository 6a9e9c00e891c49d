// Package clienttest is an API server in memory, with faults on demand, for tests
// of what speaks to the API.
package clienttest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"

	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/proto/espalier/v1/espalierv1connect"
)

// Server serves files and cluster information, and hands Submit and Watch to the
// functions of its Jobs. Set fields before requests arrive; files may be changed
// through the methods at any time.
type Server struct {
	espalierv1connect.UnimplementedJobServiceHandler
	espalierv1connect.UnimplementedClusterServiceHandler

	// URL of the API: http on loopback, HTTP/2 without TLS.
	URL string
	// Token that requests must carry; empty asks for none.
	Token string
	// OnSubmit and OnWatch answer the requests of these names.
	OnSubmit func(*espalierv1.SubmitRequest) (*espalierv1.SubmitResponse, error)
	OnWatch  func(*espalierv1.WatchRequest, *connect.ServerStream[espalierv1.WatchResponse]) error
	// OnFiles is asked before each upload and download and may refuse it.
	OnFiles func(hash string) error

	mu       sync.Mutex
	files    map[string][]byte
	parts    map[string][]byte
	cut      int64
	brokers  []string
	requests int
	loads    map[string]int
}

// New starts a server that ends with the test.
func New(t testing.TB) *Server {
	t.Helper()
	s := &Server{files: map[string][]byte{}, parts: map[string][]byte{}, loads: map[string]int{}}
	mux := http.NewServeMux()
	mux.Handle(espalierv1connect.NewJobServiceHandler(s))
	mux.Handle(espalierv1connect.NewClusterServiceHandler(s))
	mux.Handle(espalierv1connect.NewFileServiceHandler(fileService{s}))
	srv := httptest.NewUnstartedServer(s.guard(mux))
	srv.Config.Protocols = new(http.Protocols)
	srv.Config.Protocols.SetHTTP1(true)
	srv.Config.Protocols.SetUnencryptedHTTP2(true)
	srv.Start()
	s.URL = srv.URL
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
	})
	return s
}

// Ports of Unused lie below those that systems give to connections: one that such a connection took while its
// owner was down would keep that from starting again.
const firstPort, endPort = 10000, 32000

// tried counts the ports that this process has tried: none is given out twice. Processes begin far from each other.
var tried atomic.Int64

// Unused returns a loopback address where nothing listens, for a server that is told its address before it listens.
func Unused(t testing.TB) string {
	t.Helper()
	var err error
	for range 100 {
		port := firstPort + (os.Getpid()*101+int(tried.Add(1)))%(endPort-firstPort)
		var l net.Listener
		if l, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatalf("no free port on loopback from %d to %d: %v", firstPort, endPort-1, err)
	return ""
}

func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.requests++
		s.mu.Unlock()
		if s.Token != "" && r.Header.Get("Authorization") != "Bearer "+s.Token {
			_ = connect.NewErrorWriter().Write(w, r, connect.NewError(connect.CodeUnauthenticated, errors.New("no token")))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Put stores a file and returns its name.
func (s *Server) Put(data []byte, format string) *espalierv1.FileRef {
	sum := sha256.Sum256(data)
	hash := hex.EncodeToString(sum[:])
	s.PutAs(hash, data)
	return &espalierv1.FileRef{Hash: hash, SizeBytes: int64(len(data)), Format: format}
}

// PutAs stores data behind a hash, right or wrong.
func (s *Server) PutAs(hash string, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[hash] = data
}

// PutPart stores what was received of an upload.
func (s *Server) PutPart(hash string, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parts[hash] = data
}

// Drop forgets a file.
func (s *Server) Drop(hash string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.files, hash)
}

// File returns the stored file with this hash, nil if there is none.
func (s *Server) File(hash string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.files[hash]
}

// Files returns all stored files by hash.
func (s *Server) Files() map[string][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.files)
}

// SetBrokers sets the broker's addresses that Info tells.
func (s *Server) SetBrokers(urls ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.brokers = urls
}

// Cut breaks the next transfer after about n bytes; 0 stops that.
func (s *Server) Cut(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut = n
}

// Loads counts the downloads of a file that were begun.
func (s *Server) Loads(hash string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.loads[hash]
}

// Requests counts the requests so far.
func (s *Server) Requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

// spend takes n bytes from the cut and tells how many may pass and whether the
// transfer breaks there.
func (s *Server) spend(n int64) (int64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cut == 0 || n < s.cut {
		if s.cut > 0 {
			s.cut -= n
		}
		return n, false
	}
	n, s.cut = s.cut, 0
	return n, true
}

// Info implements the cluster service.
func (s *Server) Info(context.Context, *espalierv1.InfoRequest) (*espalierv1.InfoResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &espalierv1.InfoResponse{Version: "test", BrokerUrls: s.brokers, IsLeader: true, Replicas: []string{s.URL}}, nil
}

// Submit implements the job service.
func (s *Server) Submit(_ context.Context, req *espalierv1.SubmitRequest) (*espalierv1.SubmitResponse, error) {
	return s.OnSubmit(req)
}

// Watch implements the job service.
func (s *Server) Watch(_ context.Context, req *espalierv1.WatchRequest, stream *connect.ServerStream[espalierv1.WatchResponse]) error {
	return s.OnWatch(req, stream)
}
