// Package tlsfile reads certificates and authorities from PEM files, and reads them again when they change, so that a
// process that runs for weeks outlives its certificates.
package tlsfile

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// ErrPEM says that a file does not hold what it should.
var ErrPEM = errors.New("no usable certificate")

// stamp tells one content of a file from the next without reading it.
type stamp struct {
	at   time.Time
	size int64
}

func stampOf(path string) (stamp, error) {
	st, err := os.Stat(path)
	if err != nil {
		return stamp{}, err
	}
	return stamp{st.ModTime(), st.Size()}, nil
}

// stampsOf looks at several files.
func stampsOf(paths []string) (all [2]stamp, err error) {
	for i, path := range paths {
		if all[i], err = stampOf(path); err != nil {
			return all, err
		}
	}
	return all, nil
}

// kept is a value made of one or two files, made again when they change. While they cannot be read, as in the middle of
// an exchange, the last good one stays.
type kept[T any] struct {
	paths []string
	read  func() (T, error)
	log   zerolog.Logger

	mu    sync.Mutex
	seen  [2]stamp
	value T
}

func keep[T any](log zerolog.Logger, read func() (T, error), paths ...string) (*kept[T], error) {
	k := &kept[T]{paths: paths, read: read, log: log}
	var err error
	if k.seen, err = stampsOf(paths); err != nil {
		return nil, err
	}
	k.value, err = read()
	return k, err
}

// get returns what the files hold now.
func (k *kept[T]) get() T {
	k.mu.Lock()
	defer k.mu.Unlock()
	now, err := stampsOf(k.paths)
	if now == k.seen {
		return k.value
	}
	k.seen = now
	var next T
	if err == nil {
		next, err = k.read()
	}
	if err != nil {
		k.log.Warn().Err(err).Strs("files", k.paths).Msg("certificate files cannot be read, keeping what they held before")
		return k.value
	}
	k.log.Info().Strs("files", k.paths).Msg("certificate files read again")
	k.value = next
	return k.value
}

// Authorities is a pool of certificates to trust, from one PEM file.
type Authorities struct{ kept *kept[*x509.CertPool] }

// OpenAuthorities reads the file for the first time. Errors: ErrPEM, or the file's.
func OpenAuthorities(path string, log zerolog.Logger) (*Authorities, error) {
	k, err := keep(log, func() (*x509.CertPool, error) { return readPool(path) }, path)
	if err != nil {
		return nil, fmt.Errorf("read authorities: %w", err)
	}
	return &Authorities{k}, nil
}

func readPool(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%w: %s holds no PEM certificate", ErrPEM, path)
	}
	return pool, nil
}

// Pool returns those trusted now; nil, the system's, for a nil Authorities.
func (a *Authorities) Pool() *x509.CertPool {
	if a == nil {
		return nil
	}
	return a.kept.get()
}

// Client is a configuration to dial with, for one connection.
func (a *Authorities) Client() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: a.Pool()}
}

// Dial connects by TLS to host:port, offering HTTP/2; it is for http.Transport's DialTLSContext.
func (a *Authorities) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	conf := a.Client()
	conf.NextProtos = []string{"h2"}
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: 5 * time.Second}, Config: conf}
	return d.DialContext(ctx, network, address)
}

// Pair is a certificate and its key, from two PEM files.
type Pair struct{ kept *kept[*tls.Certificate] }

// OpenPair reads the files for the first time. Errors: ErrPEM, or the files'.
func OpenPair(cert, key string, log zerolog.Logger) (*Pair, error) {
	k, err := keep(log, func() (*tls.Certificate, error) { return readPair(cert, key) }, cert, key)
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	return &Pair{k}, nil
}

func readPair(cert, key string) (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(cert, key)
	switch {
	case errors.As(err, new(*fs.PathError)):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w: %s with %s: %w", ErrPEM, cert, key, err)
	}
	return &pair, nil
}

// Certificate is the present one.
func (p *Pair) Certificate() *tls.Certificate { return p.kept.get() }

// Server is a configuration to serve with, for any number of connections.
func (p *Pair) Server() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return p.Certificate(), nil },
	}
}

// Mutual is a configuration for one connection between equals, in either direction: both show a certificate that one of
// the authorities has signed.
func Mutual(p *Pair, a *Authorities) *tls.Config {
	pool := a.Pool()
	return &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{*p.Certificate()},
		RootCAs: pool, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
	}
}

// Watch calls changed after any of the files has changed and all can be read, until ctx ends.
func Watch(ctx context.Context, every time.Duration, changed func(), paths ...string) {
	look := func() string {
		text := ""
		for _, path := range paths {
			s, err := stampOf(path)
			if err != nil {
				return ""
			}
			text += fmt.Sprintf("%s %d %d\n", path, s.at.UnixNano(), s.size)
		}
		return text
	}
	seen := look()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if now := look(); now != "" && now != seen {
			seen = now
			changed()
		}
	}
}
