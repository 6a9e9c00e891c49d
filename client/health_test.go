package client_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/espalier-ml/espalier/client"
)

// TestHealth: a server that is not ready answers all the same; what is no such server is an error.
func TestHealth(t *testing.T) {
	answer := `{"ready":false,"reason":"no leader is known","replica":"a","behind":3}`
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/readyz" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = w.Write([]byte(answer))
	}))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	defer s.Close()
	c, err := client.New(client.Config{Addresses: []string{s.URL}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Alive(t.Context()); err != nil {
		t.Error(err)
	}
	got, err := c.Ready(t.Context())
	if want := (client.Readiness{Reason: "no leader is known", Replica: "a", Behind: 3}); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	answer = "<html>"
	if _, err := c.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "not an espalier server") {
		t.Errorf("another server: %v", err)
	}
}
