package broker

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, cfg Config) *Broker {
	t.Helper()
	b, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Shutdown)
	return b
}

func connect(t *testing.T, b *Broker) *nats.Conn {
	t.Helper()
	nc, err := b.Connect("test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// echo answers requests on a subject.
func echo(t *testing.T, nc *nats.Conn) {
	t.Helper()
	if _, err := nc.Subscribe("echo", func(m *nats.Msg) { _ = m.Respond(m.Data) }); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
}

func dial(t *testing.T, b *Broker, opts ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(b.URL(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func request(t *testing.T, nc *nats.Conn) {
	t.Helper()
	m, err := nc.Request("echo", []byte("hello"), 5*time.Second)
	if err != nil || string(m.Data) != "hello" {
		t.Fatalf("echo: %v %v", m, err)
	}
}

func TestRequests(t *testing.T) {
	b := start(t, Config{Tokens: []string{"s3cret+/="}, Name: "one"})
	inside := connect(t, b)
	outside := dial(t, b, nats.Token("s3cret+/="))
	if _, err := outside.Request("echo", nil, time.Second); !errors.Is(err, nats.ErrNoResponders) {
		t.Fatalf("without a subscriber: %v, want no responders", err)
	}
	echo(t, inside)
	request(t, outside)
	stats, err := b.Stats()
	if err != nil || stats.Clients != 2 {
		t.Errorf("stats %+v, %v: want 2 clients", stats, err)
	}
	if !strings.HasPrefix(b.URL(), "nats://127.0.0.1:") || len(b.URLs()) != 1 {
		t.Errorf("URLs %v", b.URLs())
	}
}

func TestWrongToken(t *testing.T) {
	b := start(t, Config{Tokens: []string{"right"}})
	for _, token := range []string{"", "wrong"} {
		if nc, err := nats.Connect(b.URL(), nats.Token(token)); err == nil {
			nc.Close()
			t.Errorf("token %q connects", token)
		}
	}
}

// TestExchange: brokers exchange their token and secret one after the other, meet all the while, and let in who shows the
// one or the other; in the end the old one is nothing anymore.
func TestExchange(t *testing.T) {
	pems := certificates(t)
	config := func(name string, tokens []string, routes ...string) Config {
		return Config{
			Name: name, Tokens: tokens, TLS: pems,
			Cluster: &Cluster{Name: "c", Listen: "127.0.0.1:0", Secrets: tokens, Routes: routes, TLS: pems},
		}
	}
	meet := func(brokers ...*Broker) {
		t.Helper()
		wait(t, "the brokers to meet", func() bool {
			for _, b := range brokers {
				if s, err := b.Stats(); err != nil || s.Routes != len(brokers)-1 {
					return false
				}
			}
			return true
		})
	}
	refused := func(b *Broker, token string) {
		t.Helper()
		nc, err := nats.Connect(b.URL(), nats.Token(token), nats.RootCAs(pems.CAFile))
		if err == nil {
			nc.Close()
			t.Errorf("token %q connects", token)
		}
	}
	phases := [][]string{{"old"}, {"old", "new"}, {"new", "old"}, {"new"}}
	for i, before := range phases[:len(phases)-1] {
		a := start(t, config("a", before))
		b := start(t, config("b", phases[i+1], a.ClusterAddress()))
		meet(a, b)
		c := start(t, config("c", before, b.ClusterAddress())) // it is told of a by b
		meet(a, b, c)
		echo(t, connect(t, a))
		// Certificates are read again: the check stays.
		if err := b.Reload(); err != nil {
			t.Fatal(err)
		}
		for _, token := range phases[i+1] {
			client := dial(t, b, nats.Token(token), nats.RootCAs(pems.CAFile))
			wait(t, "the subscription to spread", func() bool {
				_, err := client.Request("echo", nil, time.Second)
				return err == nil
			})
		}
		refused(b, "other")
		refused(b, "")
		for _, x := range []*Broker{a, b, c} {
			x.Shutdown()
		}
	}
	refused(start(t, config("a", []string{"new"})), "old")
}

func TestConfig(t *testing.T) {
	cases := []struct {
		name string
		cfg  Config
		want string
	}{
		{"default", Config{}, ""},
		{"name", Config{Name: "a b"}, "Name"},
		{"token", Config{Tokens: []string{`x" listen: "0.0.0.0:1`}}, "Tokens"},
		{"bcrypt token", Config{Tokens: []string{"$2a$11$abc"}}, "Tokens"},
		{"listen", Config{Listen: "nonsense"}, "Listen"},
		{"injection", Config{Listen: "127.0.0.1:0\"\nhttp: \"0.0.0.0:1"}, "Listen"},
		{"beyond loopback", Config{Listen: "0.0.0.0:0", Tokens: []string{"t"}}, "Listen"},
		{"beyond loopback, insecure", Config{Listen: "0.0.0.0:0", Insecure: true}, ""},
		{"certificate", Config{TLS: &TLS{CertFile: "/nowhere", KeyFile: "/nowhere"}}, "TLS."},
		{"cluster name", Config{Cluster: &Cluster{Listen: "127.0.0.1:0"}}, "Cluster.Name"},
		{"cluster listen", Config{Cluster: &Cluster{Name: "c"}}, "Cluster.Listen"},
		{"cluster beyond loopback", Config{Cluster: &Cluster{Name: "c", Listen: "0.0.0.0:0", Secrets: []string{"s"}}}, "Cluster.Listen"},
		{"route", Config{Cluster: &Cluster{Name: "c", Listen: "127.0.0.1:0", Routes: []string{"a:1", ""}}}, "Cluster.Routes[1]"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			err := c.cfg.Validate()
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%v, want ErrConfig naming %s", err, c.want)
			}
		})
	}
}

// TestTextReadsBack: every value arrives in the server's options as it was given.
func TestTextReadsBack(t *testing.T) {
	certs := certificates(t)
	cfg := Config{
		Name: "r1", Listen: "127.0.0.1:4333", Advertise: "broker.example:4333", Tokens: []string{"a+b/c=d"}, TLS: certs,
		Cluster: &Cluster{Name: "c1", Listen: "127.0.0.1:6333", Advertise: "r1.example:6333", Routes: []string{"r2.example:6333"}, Secrets: []string{"x/y"}, TLS: certs},
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	o := &server.Options{}
	if err := o.ProcessConfigString(cfg.text()); err != nil {
		t.Fatalf("%v in\n%s", err, cfg.text())
	}
	pass, _ := o.Routes[0].User.Password()
	got := []any{o.ServerName, o.Host, o.Port, o.ClientAdvertise, o.Authorization, o.Cluster.Name, o.Cluster.Port, o.Cluster.Advertise, o.Routes[0].Host, pass, o.Cluster.Password, o.TLS, o.Cluster.TLSConfig != nil, o.JetStream}
	want := []any{"r1", "127.0.0.1", 4333, "broker.example:4333", "a+b/c=d", "c1", 6333, "r1.example:6333", "r2.example:6333", "x/y", "x/y", true, true, false}
	for i := range want {
		if i == 11 {
			got[i] = o.TLSConfig != nil
		}
		if got[i] != want[i] {
			t.Errorf("option %d is %v, want %v", i, got[i], want[i])
		}
	}
}

func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	begin := time.Now()
	_, err = Start(t.Context(), Config{Listen: l.Addr().String()})
	if !errors.Is(err, ErrStart) || !strings.Contains(err.Error(), "address already in use") {
		t.Fatalf("%v, want ErrStart with the cause", err)
	}
	if time.Since(begin) > startTimeout {
		t.Error("waited for the timeout")
	}
}

// TestCluster: a request finds the one subscriber over another broker, and a client
// whose broker goes away finds another one that it was told of.
func TestCluster(t *testing.T) {
	certs := certificates(t)
	config := func(name string, routes ...string) Config {
		return Config{
			Name: name, Tokens: []string{"token"}, TLS: certs,
			Cluster: &Cluster{Name: "c", Listen: "127.0.0.1:0", Secrets: []string{"se/cret"}, Routes: routes, TLS: certs},
		}
	}
	a := start(t, config("a"))
	b := start(t, config("b", a.ClusterAddress()))
	c := start(t, config("c", a.ClusterAddress()))
	brokers := []*Broker{a, b, c}
	wait(t, "the brokers to meet", func() bool {
		for _, x := range brokers {
			if s, err := x.Stats(); err != nil || s.Routes != 2 || len(x.URLs()) != 3 {
				return false
			}
		}
		return true
	})
	echo(t, connect(t, c))
	client := dial(t, a, nats.Token("token"), nats.RootCAs(certs.CAFile), nats.ReconnectWait(10*time.Millisecond), nats.MaxReconnects(-1))
	wait(t, "the subscription to spread", func() bool {
		_, err := client.Request("echo", nil, time.Second)
		return err == nil
	})
	a.Shutdown()
	wait(t, "the client to find another broker", func() bool {
		_, err := client.Request("echo", nil, time.Second)
		return err == nil
	})
}

// TestAddRoutes: brokers that were told of no other one when they started find each other later.
func TestAddRoutes(t *testing.T) {
	certs := certificates(t)
	var all []*Broker
	for _, name := range []string{"a", "b", "c"} {
		all = append(all, start(t, Config{
			Name: name, Tokens: []string{"token"}, TLS: certs, Cluster: &Cluster{Name: "c", Listen: "127.0.0.1:0", Secrets: []string{"se/cret"}, TLS: certs},
		}))
	}
	if err := all[1].AddRoutes([]string{"nonsense"}); !errors.Is(err, ErrConfig) {
		t.Errorf("a route without a port: %v", err)
	}
	for i, b := range all {
		// Itself, one that is known already and an empty one are passed over.
		next := all[(i+1)%3].ClusterAddress()
		for range 2 {
			if err := b.AddRoutes([]string{b.ClusterAddress(), "", next}); err != nil {
				t.Fatal(err)
			}
		}
	}
	wait(t, "the brokers to meet", func() bool {
		for _, b := range all {
			if s, err := b.Stats(); err != nil || s.Routes != 2 {
				return false
			}
		}
		return true
	})
	alone := start(t, Config{Name: "alone"})
	if err := alone.AddRoutes([]string{"127.0.0.1:1"}); !errors.Is(err, ErrConfig) {
		t.Errorf("a route of a broker without a cluster: %v", err)
	}
}

func TestClusterRefusesStrangers(t *testing.T) {
	var out lines
	a := start(t, Config{Name: "a", Logger: zerolog.New(&out), Cluster: &Cluster{Name: "c", Listen: "127.0.0.1:0", Secrets: []string{"right"}}})
	start(t, Config{Name: "b", Cluster: &Cluster{Name: "c", Listen: "127.0.0.1:0", Secrets: []string{"wrong"}, Routes: []string{a.ClusterAddress()}}})
	wait(t, "the stranger to be refused", func() bool { return out.contain("authentication error") })
	if s, err := a.Stats(); err != nil || s.Routes != 0 {
		t.Fatalf("%+v, %v: a broker with another secret has a route", s, err)
	}
}

// lines is a log that can be read while it is written.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) contain(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.buf.String(), s)
}

func TestShutdownTwice(t *testing.T) {
	b := start(t, Config{})
	b.Shutdown()
	b.Shutdown()
}

func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// certificates writes a self-signed pair that serves as its own authority.
func certificates(t *testing.T) *TLS {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, kind string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	c := write("cert.pem", "CERTIFICATE", der)
	return &TLS{CertFile: c, KeyFile: write("key.pem", "EC PRIVATE KEY", keyDER), CAFile: c}
}
