package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/espalier-ml/espalier/coordinator/api"
	"github.com/espalier-ml/espalier/coordinator/store"
)

func readyz(t *testing.T, s *server) (code int, out map[string]any) {
	t.Helper()
	code, body := get(t, s.client, s.url+"/readyz", "")
	if err := json.Unmarshal([]byte(body), &out); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return code, out
}

// TestReady: the answer says why not, and health does not depend on it.
func TestReady(t *testing.T) {
	m := &members{}
	s := start(t, func(c *api.Config) { c.Members, c.Tokens = m, []string{"secret"} })
	for _, c := range []struct {
		name    string
		change  func()
		code    int
		reason  any
		behind  uint64
		unready error
	}{
		{"leads", nil, 200, nil, 0, nil},
		{"behind", nil, 503, "the records are 900 entries behind", 900, fmt.Errorf("%w: the records are 900 entries behind", store.ErrNotReady)},
		{"no disk", nil, 503, "the store has stopped: store failed: disk", 0, fmt.Errorf("%w: disk", store.ErrFailed)},
		{"nobody leads", func() { s.store.follower = true }, 503, "the leader has not told its address yet", 0, nil},
		{"another leads", func() { s.cluster.leader = "127.0.0.1:9" }, 200, nil, 3, nil},
	} {
		if c.change != nil {
			c.change()
		}
		m.behind, m.unready = c.behind, c.unready
		code, got := readyz(t, s)
		if code != c.code || got["ready"] != (c.code == 200) || got["reason"] != c.reason || got["behind"] != float64(c.behind) || got["replica"] != "a" {
			t.Errorf("%s: %d %v", c.name, code, got)
		}
		if code, _ := get(t, s.client, s.url+"/healthz", ""); code != 200 {
			t.Errorf("%s: healthz %d", c.name, code)
		}
	}
}

// TestReadyWhileClosing: whoever still has a connection is told that the server ends.
func TestReadyWhileClosing(t *testing.T) {
	srv, err := api.New(api.Config{Store: &replica{}, Files: &memory{}, Cluster: &cluster{}, Members: &members{}, Dispatch: dispatcher{}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := srv.Close(ctx); err != nil {
		t.Fatal(err)
	}
	w := &recorder{header: http.Header{}}
	srv.Handler().ServeHTTP(w, request(t, "/readyz"))
	if w.code != 503 || w.json["reason"] != "shutting down" {
		t.Errorf("%d %v", w.code, w.json)
	}
}

// recorder keeps an answer in JSON.
type recorder struct {
	header http.Header
	code   int
	json   map[string]any
}

func (r *recorder) Header() http.Header  { return r.header }
func (r *recorder) WriteHeader(code int) { r.code = code }
func (r *recorder) Write(b []byte) (int, error) {
	return len(b), json.Unmarshal(b, &r.json)
}

func request(t *testing.T, path string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	return req
}
