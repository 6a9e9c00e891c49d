package peer

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"connectrpc.com/connect"
	"go.uber.org/goleak"

	"github.com/espalier-ml/espalier/coordinator/files"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// replica is one with its API on loopback.
type replica struct {
	store   *files.Store
	rep     *files.Replicator
	address string
	url     string
	service *Service
}

const token = "t0ken"

// newReplicas starts replicas that know each other.
func newReplicas(t *testing.T, n int) []*replica {
	t.Helper()
	out := make([]*replica, n)
	clients := map[string]*Client{}
	for i := range n {
		s, err := files.Open(files.Config{Dir: t.TempDir(), NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		r := &replica{store: s, service: &Service{Files: s}}
		mux := http.NewServeMux()
		path, h := r.service.Handler()
		mux.Handle(path, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.Header.Get("Authorization") != "Bearer "+token {
				http.Error(w, "no token", http.StatusUnauthorized)
				return
			}
			h.ServeHTTP(w, req)
		}))
		srv := httptest.NewServer(mux)
		t.Cleanup(srv.Close)
		t.Cleanup(srv.Client().CloseIdleConnections)
		r.address, r.url = srv.Listener.Addr().String(), srv.URL
		clients[r.address] = NewClient(srv.Client(), r.address, srv.URL, token)
		out[i] = r
	}
	for _, r := range out {
		peers := func() (ps []files.Peer) {
			for _, o := range out {
				if o != r {
					ps = append(ps, clients[o.address])
				}
			}
			return ps
		}
		rep, err := files.NewReplicator(files.ReplicatorConfig{Store: r.store, Self: r.address, Peers: peers})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(rep.Close)
		r.rep, r.service.Replica = rep, rep
		r.service.Peer = func(a string) files.Peer {
			if c := clients[a]; c != nil {
				return c
			}
			return nil
		}
	}
	return out
}

func add(t *testing.T, r *replica, n int) files.Ref {
	t.Helper()
	ref, err := r.store.Add(t.Context(), bytes.NewReader(bytes.Repeat([]byte{byte(n)}, n)))
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func TestMajorityOverHTTP(t *testing.T) {
	rs := newReplicas(t, 3)
	var refs []files.Ref
	for _, n := range []int{0, 1, chunkBytes, 3*chunkBytes + 5} {
		refs = append(refs, add(t, rs[0], n))
	}
	missing, err := rs[0].rep.Majority(t.Context(), refs)
	if err != nil || len(missing) > 0 {
		t.Fatalf("missing %v, %v", missing, err)
	}
	for _, ref := range refs {
		n := 0
		for _, r := range rs {
			if r.store.Has(ref.Hash) {
				n++
			}
		}
		if n < 2 {
			t.Errorf("%d bytes are on %d replicas", ref.SizeBytes, n)
		}
	}
	// From any replica; what it lacks is fetched.
	f, err := rs[2].rep.Open(t.Context(), refs[3])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil || hex.EncodeToString(sum.Sum(nil)) != refs[3].Hash {
		t.Errorf("other content: %v", err)
	}
}

func TestFetchErrors(t *testing.T) {
	rs := newReplicas(t, 2)
	ref := add(t, rs[0], 100)
	c := rs[1].service.Peer(rs[0].address)
	for _, tc := range []struct {
		name   string
		hash   string
		offset int64
		want   error
	}{
		{"unknown", hex.EncodeToString(make([]byte, 32)), 0, files.ErrNotFound},
		{"no hash", "../x", 0, files.ErrHash},
		{"beyond the end", ref.Hash, 101, files.ErrOffset},
		{"negative", ref.Hash, -1, files.ErrOffset},
	} {
		if _, err := c.Fetch(t.Context(), tc.hash, tc.offset); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
	r, err := c.Fetch(t.Context(), ref.Hash, 90)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil || len(b) != 10 {
		t.Errorf("a range: %d bytes, %v", len(b), err)
	}
}

func TestHold(t *testing.T) {
	rs := newReplicas(t, 2)
	ref := add(t, rs[0], 10)
	unknown := files.Ref{Hash: hex.EncodeToString(make([]byte, 32)), SizeBytes: 1}
	c := rs[0].service.Peer(rs[1].address)
	if missing, err := c.Hold(t.Context(), []files.Ref{ref}, ""); err != nil || !slices.Equal(missing, []string{ref.Hash}) {
		t.Errorf("only asked: missing %v, %v", missing, err)
	}
	if missing, err := c.Hold(t.Context(), []files.Ref{unknown, ref}, rs[0].address); err != nil || !slices.Equal(missing, []string{unknown.Hash}) {
		t.Errorf("missing %v, %v", missing, err)
	}
	if _, err := c.Hold(t.Context(), []files.Ref{ref}, "evil.example:80"); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("from a stranger: %v", err)
	}
	if _, err := rs[1].service.Hold(t.Context(), &v1.HoldRequest{Files: make([]*v1.FileRef, maxFiles+1)}); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("too many files: %v", err)
	}
	// A client splits what is too much for one request.
	many := make([]files.Ref, maxFiles+5)
	for i := range many {
		sum := sha256.Sum256([]byte{byte(i), byte(i >> 8)})
		many[i] = files.Ref{Hash: hex.EncodeToString(sum[:]), SizeBytes: 1}
	}
	if missing, err := c.Hold(t.Context(), many, ""); err != nil || len(missing) != len(many) {
		t.Errorf("%d missing, %v", len(missing), err)
	}
	stranger := NewClient(http.DefaultClient, "x", rs[1].url, "wrong")
	defer http.DefaultClient.CloseIdleConnections()
	if _, err := stranger.Hold(t.Context(), []files.Ref{ref}, ""); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("a wrong token: %v", err)
	}
	if _, err := stranger.Fetch(t.Context(), ref.Hash, 0); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("a wrong token: %v", err)
	}
}
