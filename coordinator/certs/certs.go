// Package certs makes what a cluster needs to be reached beyond its machine: an authority of its own, a certificate
// that it signs for the servers, and the token that clients and workers show.
package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Errors of this package.
var (
	// ErrConfig marks a configuration that cannot work.
	ErrConfig = errors.New("invalid certificate configuration")
	// ErrAuthority says that the folder's authority cannot sign.
	ErrAuthority = errors.New("authority cannot be used")
)

// Names of the files in a folder. The authority's key is needed for further certificates only: keep it off the servers.
const (
	AuthorityFile    = "ca.pem"
	AuthorityKeyFile = "ca-key.pem"
	TokenFile        = "token"
)

const (
	// authorityLife is how long the authority is good for.
	authorityLife = 10 * 365 * 24 * time.Hour
	// DefaultLife is how long a certificate is good for. The common limit is 825 days: some systems refuse more.
	DefaultLife = 825 * 24 * time.Hour
	// slack is how far the clocks of machines may be apart.
	slack = time.Hour
)

// Config says what to make.
type Config struct {
	// Dir takes the files; it is made, for its owner alone, if absent.
	Dir string
	// Hosts are the names and addresses under which the servers are reached. This machine's own, localhost, 127.0.0.1
	// and ::1, are added: a server's health is asked there.
	Hosts []string
	// Name is the file of the certificate, NAME.pem, and of its key, NAME-key.pem. "": server.
	Name string
	// Life is how long the certificate is good for. 0: DefaultLife.
	Life time.Duration
	// Now is the present. The zero value asks the clock.
	Now time.Time
}

// name is a name of a file or a host that needs no quotes anywhere.
var name = regexp.MustCompile(`^[A-Za-z0-9*]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$`)

func (c Config) withDefaults() Config {
	if c.Name == "" {
		c.Name = "server"
	}
	if c.Life == 0 {
		c.Life = DefaultLife
	}
	if c.Now.IsZero() {
		c.Now = time.Now()
	}
	return c
}

// Validate reports the first field that cannot work, as an ErrConfig.
func (c Config) Validate() error {
	d := c.withDefaults()
	switch {
	case c.Dir == "":
		return fmt.Errorf("%w: Dir is empty, want a folder", ErrConfig)
	case !name.MatchString(d.Name) || d.Name == strings.TrimSuffix(AuthorityFile, ".pem"):
		return fmt.Errorf("%w: Name is %q, want letters, digits, dots and dashes, and not ca", ErrConfig, c.Name)
	case len(c.Hosts) == 0:
		return fmt.Errorf("%w: Hosts is empty, want the names or addresses under which the servers are reached", ErrConfig)
	case d.Life < 24*time.Hour || d.Life > authorityLife:
		return fmt.Errorf("%w: Life is %v, want 1 to %d days", ErrConfig, c.Life, authorityLife/(24*time.Hour))
	}
	for _, h := range c.Hosts {
		if net.ParseIP(h) == nil && !name.MatchString(h) {
			return fmt.Errorf("%w: host is %q, want a name or an address, without port", ErrConfig, h)
		}
	}
	return nil
}

// Made names the files, and says which of them were there before.
type Made struct {
	Authority, AuthorityKey, Certificate, Key, Token string
	// KeptAuthority and KeptToken: the folder had them, and they are as they were.
	KeptAuthority, KeptToken bool
	Hosts                    []string
	Until                    time.Time
}

// Make writes the files. An authority and a token that are there stay, so that a certificate can be renewed, or made for a
// further server, without a change on any other machine. Errors: ErrConfig, ErrAuthority, or the cause.
func Make(c Config) (Made, error) {
	if err := c.Validate(); err != nil {
		return Made{}, err
	}
	c = c.withDefaults()
	at := func(file string) string { return filepath.Join(c.Dir, file) }
	m := Made{
		Authority: at(AuthorityFile), AuthorityKey: at(AuthorityKeyFile), Token: at(TokenFile),
		Certificate: at(c.Name + ".pem"), Key: at(c.Name + "-key.pem"), Until: c.Now.Add(c.Life),
	}
	m.Hosts = slices.Compact(slices.Sorted(slices.Values(slices.Concat(c.Hosts, []string{"localhost", "127.0.0.1", "::1"}))))
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return m, fmt.Errorf("make certificates: %w", err)
	}
	ca, err := c.authority(&m)
	if err != nil {
		return m, err
	}
	if m.Until.After(ca.cert.NotAfter) {
		m.Until = ca.cert.NotAfter
	}
	if err := c.certificate(ca, m); err != nil {
		return m, fmt.Errorf("make certificate: %w", err)
	}
	m.KeptToken, err = keepToken(m.Token)
	return m, err
}

// signer is an authority in memory.
type signer struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// authority reads the folder's, or makes it.
func (c Config) authority(m *Made) (signer, error) {
	certPEM, err := os.ReadFile(m.Authority)
	if err == nil {
		m.KeptAuthority = true
		return readAuthority(m, certPEM, c.Now)
	}
	if !errors.Is(err, os.ErrNotExist) {
		return signer{}, fmt.Errorf("make authority: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return signer{}, fmt.Errorf("make authority: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return signer{}, fmt.Errorf("make authority: %w", err)
	}
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "Espalier cluster authority " + serial.Text(36)[:8]},
		NotBefore: c.Now.Add(-slack), NotAfter: c.Now.Add(authorityLife),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return signer{}, fmt.Errorf("make authority: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return signer{}, fmt.Errorf("make authority: %w", err)
	}
	// The key first: without it the certificate is of no use, and would be kept.
	if err := writeKey(m.AuthorityKey, key); err != nil {
		return signer{}, fmt.Errorf("make authority: %w", err)
	}
	if err := writeFile(m.Authority, encode("CERTIFICATE", der), 0o644); err != nil {
		return signer{}, fmt.Errorf("make authority: %w", err)
	}
	return signer{cert, key}, nil
}

func readAuthority(m *Made, certPEM []byte, now time.Time) (signer, error) {
	bad := func(why any) (signer, error) {
		return signer{}, fmt.Errorf("%w: %s and %s: %v; name an empty folder to begin a new authority", ErrAuthority, m.Authority, m.AuthorityKey, why)
	}
	keyPEM, err := os.ReadFile(m.AuthorityKey)
	if err != nil {
		return bad(err)
	}
	block, _ := pem.Decode(certPEM)
	keyBlock, _ := pem.Decode(keyPEM)
	if block == nil || keyBlock == nil {
		return bad("no PEM text")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return bad(err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(keyBlock.Bytes)
	if err != nil {
		return bad(err)
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return bad("the key cannot sign")
	}
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	switch {
	case !ok || !public.Equal(cert.PublicKey):
		return bad("they do not belong together")
	case !cert.IsCA:
		return bad("the certificate is no authority's")
	case now.After(cert.NotAfter):
		return bad("it ended on " + cert.NotAfter.Format(time.DateOnly))
	}
	return signer{cert, key}, nil
}

// certificate makes one for both directions: replicas check each other's.
func (c Config) certificate(ca signer, m Made) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	serial, err := newSerial()
	if err != nil {
		return err
	}
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "Espalier " + c.Name},
		NotBefore: c.Now.Add(-slack), NotAfter: m.Until, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true,
	}
	for _, h := range m.Hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, ca.cert, key.Public(), ca.key)
	if err != nil {
		return err
	}
	if err := writeKey(m.Key, key); err != nil {
		return err
	}
	return writeFile(m.Certificate, encode("CERTIFICATE", der), 0o644)
}

// keepToken makes a token unless there is one.
func keepToken(path string) (kept bool, err error) {
	_, err = ReadTokens(path)
	if err == nil {
		return true, nil
	}
	if !errors.Is(err, ErrNoToken) && !errors.Is(err, os.ErrNotExist) {
		return false, fmt.Errorf("make token: %w", err)
	}
	var token [20]byte
	_, _ = rand.Read(token[:]) // never fails
	if err := writeFile(path, []byte(hex.EncodeToString(token[:])+"\n"), 0o600); err != nil {
		return false, fmt.Errorf("make token: %w", err)
	}
	return false, nil
}

func newSerial() (*big.Int, error) {
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func writeKey(path string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return writeFile(path, encode("PRIVATE KEY", der), 0o600)
}

// writeFile replaces a file at once, so that a server that starts never reads half of one.
func writeFile(path string, data []byte, mode os.FileMode) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Chmod(mode), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}
