package tlsfile

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// put writes a self-signed certificate for 127.0.0.1 and its key.
func put(t *testing.T, dir, name string, until time.Time) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<60))
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(filepath.Join(dir, path), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// open opens the files of put.
func open(t *testing.T, dir string) (*Pair, *Authorities) {
	t.Helper()
	p, err := OpenPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	a, err := OpenAuthorities(filepath.Join(dir, "cert.pem"), zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	return p, a
}

// meet connects both ends and exchanges a byte; the error is the client's, or the server's if it has none.
func meet(t *testing.T, server, client *tls.Config) error {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	served := make(chan error, 1)
	go func() {
		conn, err := ln.Accept()
		if err == nil {
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			_, err = tls.Server(conn, server).Write([]byte("x"))
			_ = conn.Close()
		}
		served <- err
	}()
	conn, err := tls.Dial("tcp", ln.Addr().String(), client)
	if err == nil {
		_, err = conn.Read(make([]byte, 1))
		_ = conn.Close()
	}
	return errors.Join(err, <-served)
}

func TestMutual(t *testing.T) {
	one, two, old := t.TempDir(), t.TempDir(), t.TempDir()
	put(t, one, "one", time.Now().Add(time.Hour))
	put(t, two, "two", time.Now().Add(time.Hour))
	put(t, old, "old", time.Now().Add(-time.Hour))
	p, a := open(t, one)
	if err := meet(t, Mutual(p, a), Mutual(p, a)); err != nil {
		t.Errorf("equals: %v", err)
	}
	p2, a2 := open(t, two)
	if err := meet(t, Mutual(p, a), Mutual(p2, a)); err == nil {
		t.Error("a client of another authority is let in")
	}
	if err := meet(t, Mutual(p2, a), Mutual(p, a)); err == nil {
		t.Error("a server of another authority is trusted")
	}
	if err := meet(t, Mutual(p, a), a.Client()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a client without certificate: %v", err)
	}
	p3, a3 := open(t, old)
	if err := meet(t, Mutual(p3, a3), Mutual(p3, a3)); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("an expired certificate: %v", err)
	}
	if err := meet(t, p.Server(), a2.Client()); err == nil {
		t.Error("a server is trusted without its authority")
	}
}

// TestReadAgain: what is exchanged counts for the next connection, and what cannot be read does not.
func TestReadAgain(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "first", time.Now().Add(time.Hour))
	p, a := open(t, dir)
	server := p.Server() // made once, as a listener's is
	before := a.Client()
	if err := meet(t, server, before); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "key.pem"), []byte("half a key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := meet(t, server, a.Client()); err != nil {
		t.Errorf("in the middle of an exchange: %v", err)
	}
	put(t, dir, "second", time.Now().Add(time.Hour))
	if err := meet(t, server, a.Client()); err != nil {
		t.Errorf("after the exchange: %v", err)
	}
	if err := meet(t, server, before); err == nil {
		t.Error("the old certificate is still shown")
	}
	if err := os.Remove(filepath.Join(dir, "cert.pem")); err != nil {
		t.Fatal(err)
	}
	if err := meet(t, server, a.Client()); err != nil {
		t.Errorf("without the file: %v", err)
	}
	if _, err := OpenPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), zerolog.Nop()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("open without the file: %v", err)
	}
	if _, err := OpenAuthorities(filepath.Join(dir, "key.pem"), zerolog.Nop()); !errors.Is(err, ErrPEM) {
		t.Errorf("a key as authority: %v, want ErrPEM", err)
	}
}

func TestWatch(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "first", time.Now().Add(time.Hour))
	ctx, cancel := context.WithCancel(t.Context())
	changed, done := make(chan struct{}, 9999), make(chan struct{})
	go func() {
		defer close(done)
		Watch(ctx, time.Millisecond, func() { changed <- struct{}{} }, filepath.Join(dir, "cert.pem"))
	}()
	told := 0
	for size, end := 1, time.Now().Add(20*time.Second); told < 2; size++ {
		if time.Now().After(end) {
			t.Fatalf("told of %d changes", told)
		}
		if err := os.WriteFile(filepath.Join(dir, "cert.pem"), make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		select {
		case <-changed:
			told++
		case <-time.After(20 * time.Millisecond): // it may not have begun to look
		}
	}
	cancel()
	<-done
}
