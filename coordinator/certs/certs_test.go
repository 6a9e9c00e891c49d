package certs_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/espalier-ml/espalier/coordinator/certs"
)

func made(t *testing.T, c certs.Config) certs.Made {
	t.Helper()
	m, err := certs.Make(c)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// speak makes a TLS connection from and to the holder of a certificate, each checking the other's, under a host's name.
func speak(t *testing.T, m certs.Made, authority, host string) error {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(m.Certificate, m.Key)
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(authority)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	served := make(chan error, 1)
	go func() {
		s := tls.Server(a, &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert})
		served <- s.HandshakeContext(t.Context())
		_ = a.Close() // ends the other side's wait
	}()
	err = tls.Client(b, &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: pool, ServerName: host}).HandshakeContext(t.Context())
	_ = b.Close()
	return errors.Join(err, <-served)
}

func TestMake(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	m := made(t, certs.Config{Dir: dir, Hosts: []string{"server-1", "10.1.2.3", "server-1"}})
	for _, host := range []string{"server-1", "10.1.2.3", "localhost", "127.0.0.1", "::1"} {
		if err := speak(t, m, m.Authority, host); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	if speak(t, m, m.Authority, "server-2") == nil {
		t.Error("a host that was not named is taken")
	}
	for path, want := range map[string]os.FileMode{
		dir: 0o700, m.Authority: 0o644, m.AuthorityKey: 0o600, m.Certificate: 0o644, m.Key: 0o600, m.Token: 0o600,
	} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o", path, got, want)
		}
	}
	if names, _ := filepath.Glob(filepath.Join(dir, "*")); len(names) != 5 {
		t.Errorf("files %v, want 5", names)
	}
}

// TestFurther: a second server's certificate, and a renewed one, are of the same authority; the token stays.
func TestFurther(t *testing.T) {
	dir := t.TempDir()
	first := made(t, certs.Config{Dir: dir, Hosts: []string{"a"}})
	token, err := os.ReadFile(first.Token)
	if err != nil {
		t.Fatal(err)
	}
	second := made(t, certs.Config{Dir: dir, Hosts: []string{"b"}, Name: "b"})
	again, err := os.ReadFile(second.Token)
	if err != nil {
		t.Fatal(err)
	}
	if !second.KeptAuthority || !second.KeptToken || string(again) != string(token) {
		t.Errorf("%+v, token %s, then %s", second, token, again)
	}
	for _, m := range []certs.Made{first, second} {
		if err := speak(t, m, first.Authority, m.Hosts[len(m.Hosts)-2]); err != nil {
			t.Error(err)
		}
	}
	other := made(t, certs.Config{Dir: t.TempDir(), Hosts: []string{"a"}})
	if speak(t, other, first.Authority, "a") == nil {
		t.Error("a certificate of another authority is taken")
	}
}

func TestAuthorityRefused(t *testing.T) {
	dir := t.TempDir()
	m := made(t, certs.Config{Dir: dir, Hosts: []string{"a"}})
	other := made(t, certs.Config{Dir: t.TempDir(), Hosts: []string{"a"}})
	key, err := os.ReadFile(other.AuthorityKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"another's key": key, "no key": []byte("nothing")} {
		if err := os.WriteFile(m.AuthorityKey, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := certs.Make(certs.Config{Dir: dir, Hosts: []string{"a"}}); !errors.Is(err, certs.ErrAuthority) {
			t.Errorf("%s: %v", name, err)
		}
	}
	later := certs.Config{Dir: filepath.Dir(other.Authority), Hosts: []string{"a"}, Now: time.Now().AddDate(11, 0, 0)}
	if _, err := certs.Make(later); !errors.Is(err, certs.ErrAuthority) {
		t.Errorf("an authority that has ended: %v", err)
	}
}

func TestValidate(t *testing.T) {
	good := certs.Config{Dir: "d", Hosts: []string{"a"}}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*certs.Config){
		"no folder":       func(c *certs.Config) { c.Dir = "" },
		"no host":         func(c *certs.Config) { c.Hosts = nil },
		"host with port":  func(c *certs.Config) { c.Hosts = []string{"a:8470"} },
		"empty host":      func(c *certs.Config) { c.Hosts = []string{"a", ""} },
		"name with slash": func(c *certs.Config) { c.Name = "../x" },
		"authority":       func(c *certs.Config) { c.Name = "ca" },
		"short life":      func(c *certs.Config) { c.Life = time.Minute },
		"long life":       func(c *certs.Config) { c.Life = 100 * 365 * 24 * time.Hour },
	} {
		c := good
		change(&c)
		if err := c.Validate(); !errors.Is(err, certs.ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
