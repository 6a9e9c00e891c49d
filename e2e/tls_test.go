package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/nats-io/nats.go"

	"github.com/espalier-ml/espalier/client"
	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// TestTLS: API, broker, routes and Raft of three replicas under TLS with a token; strangers are refused everywhere; certificate
// and authority are exchanged while a search runs, without a restart, and hold for all connections made after; so is the token,
// while one server after the other and the workers are started again.
func TestTLS(t *testing.T) {
	c := newReplicas(t, true, nil)
	c.crew()
	c.trials = 20
	c.submit()
	c.checkStrangers()
	before := c.pool(c.ca)
	// First all trust both authorities, then the certificates change, then the first authority goes.
	old := filepath.Join(c.dir, "one", "ca.pem")
	c.makeCertificatesOf("two")
	c.until("a few trials", func() bool { return c.status().GetJob().GetCompleted() >= 2 })
	c.copyFile(c.ca, old, filepath.Join(c.dir, "two", "ca.pem"))
	c.copyFile(filepath.Join(c.dir, "cert.pem"), filepath.Join(c.dir, "two", "server.pem"))
	c.copyFile(filepath.Join(c.dir, "key.pem"), filepath.Join(c.dir, "two", "server-key.pem"))
	after := c.pool(filepath.Join(c.dir, "two", "ca.pem"))
	for _, r := range c.roles {
		for what, answers := range map[string]func(*x509.CertPool) bool{"API": c.apiAnswers(r), "broker": c.brokerAnswers(r), "Raft": c.raftAnswers(r)} {
			c.until(what+" to show the new certificate", func() bool { return answers(after) })
			if answers(before) {
				t.Errorf("%s of %s still shows the old certificate", what, r.ID)
			}
		}
	}
	c.copyFile(c.ca, filepath.Join(c.dir, "two", "ca.pem"))
	c.did("certificate and authority exchanged")
	// New connections of everybody to everybody.
	c.exchangeToken("another-token")
	c.progress()
	c.finish()
	for _, s := range c.servers {
		if s.ended() {
			t.Errorf("%s has stopped:\n%s", s.name, s.output())
		}
	}
	c.checkStrangers()
}

// exchangeToken goes the way of docs/operations.md. Servers are killed in the first round.
func (c *replicas) exchangeToken(next string) {
	c.t.Helper()
	old := c.token
	for round, tokens := range [][]string{{old, next}, {next, old}, {next}} {
		for i := range c.servers {
			if round == 0 {
				c.servers[i].kill()
			} else {
				c.servers[i].terminate()
			}
			c.roles[i].Tokens = tokens
			c.servers[i] = spawn(c.t, "server "+c.roles[i].ID, "server", c.roles[i])
			c.until("the server to be ready", func() bool { return c.ready(i) })
			c.until("its broker to meet the others", func() bool { return c.metric(i, "espalier_broker_routes") == "2" })
		}
		c.progress()
		c.did("token exchange %d of 3", round+1)
		if round != 1 {
			continue
		}
		c.token = next
		c.client.Close()
		c.client = c.dial(30*time.Second, c.addresses...)
		for _, w := range c.workers {
			w.terminate()
		}
		c.crew()
	}
	for _, address := range c.addresses {
		if err := c.ask(address, client.Config{Token: old, Authorities: c.trust(c.ca)}); connect.CodeOf(err) != connect.CodeUnauthenticated {
			c.t.Errorf("%s with the old token: %v, want unauthenticated", address, err)
		}
	}
}

// ask asks one server as a client does that has cfg's token and trust.
func (c *replicas) ask(address string, cfg client.Config) error {
	c.t.Helper()
	cfg.Addresses, cfg.Patience = []string{address}, -1
	cl, err := client.New(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	defer cl.Close()
	_, err = cl.Cluster.Replicas(c.t.Context(), &espalierv1.ReplicasRequest{})
	return err
}

// metric is the value of a metric of a server; "" while it does not answer.
func (c *replicas) metric(i int, name string) string {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), http.MethodGet, c.addresses[i]+"/metrics", http.NoBody)
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	alone := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: c.pool(c.ca), MinVersion: tls.VersionTLS12}}
	res, err := alone.RoundTrip(req)
	if err != nil {
		return ""
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// makeCertificatesOf makes an authority and a certificate beside the first.
func (c *replicas) makeCertificatesOf(authority string) {
	c.t.Helper()
	cert, key := filepath.Join(c.dir, "cert.pem"), filepath.Join(c.dir, "key.pem")
	kept := [2]string{filepath.Join(c.dir, "cert.kept"), filepath.Join(c.dir, "key.kept")}
	c.copyFile(kept[0], cert)
	c.copyFile(kept[1], key)
	c.makeCertificates(authority)
	c.copyFile(cert, kept[0])
	c.copyFile(key, kept[1])
}

func (c *replicas) pool(path string) *x509.CertPool {
	c.t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		c.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		c.t.Fatalf("%s holds no certificate", path)
	}
	return pool
}

func (c *replicas) apiAnswers(r serverRole) func(*x509.CertPool) bool {
	return func(pool *x509.CertPool) bool { return dials(r.Listen, &tls.Config{RootCAs: pool}) }
}

func (c *replicas) raftAnswers(r serverRole) func(*x509.CertPool) bool {
	return func(pool *x509.CertPool) bool {
		pair, err := tls.LoadX509KeyPair(r.Cert, r.Key)
		return err == nil && dials(r.Raft, &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}})
	}
}

func dials(address string, conf *tls.Config) bool {
	conf.MinVersion = tls.VersionTLS12
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", address, conf)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

func (c *replicas) brokerAnswers(r serverRole) func(*x509.CertPool) bool {
	return func(pool *x509.CertPool) bool {
		nc, err := nats.Connect("tls://"+r.Broker, nats.Secure(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}), nats.Token(c.token), nats.IgnoreDiscoveredServers()) // this one alone
		if err != nil {
			return false
		}
		nc.Close()
		return true
	}
}

// checkStrangers tries to get in without what it takes.
func (c *replicas) checkStrangers() {
	c.t.Helper()
	ask := func(cfg client.Config) error { return c.ask(c.addresses[1], cfg) }
	if err := ask(client.Config{Token: c.token, Authorities: c.trust(c.ca)}); err != nil {
		c.t.Errorf("with all it takes: %v", err)
	}
	if err := ask(client.Config{Authorities: c.trust(c.ca)}); connect.CodeOf(err) != connect.CodeUnauthenticated {
		c.t.Errorf("without token: %v, want unauthenticated", err)
	}
	if err := ask(client.Config{Token: c.token}); err == nil || !strings.Contains(err.Error(), "certificate") {
		c.t.Errorf("without the authority: %v, want an error of the certificate", err)
	}
	for what, opts := range map[string][]nats.Option{
		"without token": {nats.RootCAs(c.ca)}, "without the authority": {nats.Token(c.token)},
	} {
		if nc, err := nats.Connect("tls://"+c.roles[1].Broker, opts...); err == nil {
			nc.Close()
			c.t.Errorf("the broker lets in a client %s", what)
		}
	}
	// Without a certificate of its own nobody reaches Raft or the routes; in TLS 1.3 the refusal comes with the first read.
	for what, a := range map[string]string{"raft": c.roles[1].Raft} {
		conn, err := tls.Dial("tcp", a, &tls.Config{RootCAs: c.pool(c.ca), MinVersion: tls.VersionTLS12})
		if err == nil {
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			_, err = conn.Read(make([]byte, 1))
			_ = conn.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "certificate required") {
			c.t.Errorf("%s without certificate: %v, want certificate required", what, err)
		}
	}
}
