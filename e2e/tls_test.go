package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"net"
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
// and authority are exchanged while a search runs, without a restart, and hold for all connections made after.
func TestTLS(t *testing.T) {
	c := newReplicas(t, true, nil)
	c.crew()
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
	// New connections of everybody to everybody: one server after the other dies and comes back.
	for i := range c.servers {
		c.servers[i].kill()
		c.servers[i] = spawn(t, "server "+c.roles[i].ID, "server", c.roles[i])
		c.until("three voters that know each other", func() bool { return len(c.members()) == 3 })
	}
	c.did("every server killed and started")
	c.finish()
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
	address := "https://" + c.roles[1].Listen
	ask := func(cfg client.Config) error {
		cfg.Addresses, cfg.Patience = []string{address}, -1
		cl, err := client.New(cfg)
		if err != nil {
			c.t.Fatal(err)
		}
		defer cl.Close()
		_, err = cl.Cluster.Replicas(c.t.Context(), &espalierv1.ReplicasRequest{})
		return err
	}
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
