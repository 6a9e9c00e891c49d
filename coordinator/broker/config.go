package broker

import (
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/rs/zerolog"

	"github.com/espalier-ml/espalier/client"
	"github.com/espalier-ml/espalier/coordinator/certs"
)

// Errors of the broker; match them with errors.Is.
var (
	// ErrConfig: a field of Config is wrong.
	ErrConfig = errors.New("invalid broker config")
	// ErrStart: the server did not come up.
	ErrStart = errors.New("broker did not start")
	// ErrClosed: the broker is shut down.
	ErrClosed = errors.New("broker closed")
)

// Config says where the broker listens and who may connect.
type Config struct {
	// Name is the replica's id.
	Name string
	// Listen is where clients connect, as host:port; port 0 is a free one. Empty:
	// 127.0.0.1:0. Beyond loopback Tokens and TLS must be set, unless Insecure is.
	Listen string
	// Advertise is the host:port that clients are told instead of Listen.
	Advertise string
	// Tokens are what clients show. Empty: none is asked for.
	Tokens certs.Tokens
	// TLS secures the clients' connections. Nil: plain TCP.
	TLS *TLS
	// Insecure allows listening beyond loopback without Tokens or TLS.
	Insecure bool
	// Cluster joins the brokers of several replicas. Nil: a broker alone.
	Cluster *Cluster
	// Logger takes the server's messages. The zero value logs nothing.
	Logger zerolog.Logger
}

// TLS names PEM files.
type TLS struct {
	CertFile string
	KeyFile  string
	// CAFile verifies the other side. Empty: the system's authorities.
	CAFile string
	// Verify asks for a client certificate. Between replicas it is always asked for.
	Verify bool
}

// Cluster says how a broker finds the others.
type Cluster struct {
	// Name is the same on all replicas.
	Name string
	// Listen is where the other brokers connect, as host:port; port 0 is a free one.
	Listen string
	// Advertise is the host:port that the other brokers are told instead of Listen.
	Advertise string
	// Routes are host:port of other brokers; one that answers is enough, it tells of
	// the rest.
	Routes []string
	// Secrets are what brokers show each other. Needed beyond loopback, unless Insecure.
	Secrets certs.Tokens
	// TLS secures the routes, in both directions.
	TLS *TLS
}

// Bounds that hold for every broker.
const (
	defaultListen = "127.0.0.1:0"
	// MaxMessageBytes bounds one message: a lease carries a job's spec and baseline.
	MaxMessageBytes = 8 << 20
)

func (c Config) withDefaults() Config {
	if c.Listen == "" {
		c.Listen = defaultListen
	}
	if c.Name == "" {
		c.Name = "espalier"
	}
	return c
}

// words are safe inside quotes in the server's configuration language and in URLs.
var words = regexp.MustCompile(`^[A-Za-z0-9._~+/=-]{1,200}$`)

func unsuitable(word string) bool { return !words.MatchString(word) }

func bad(field string, value any, want string) error {
	return fmt.Errorf("%w: %s is %v, want %s", ErrConfig, field, value, want)
}

// Validate checks the fields; its errors wrap ErrConfig.
func (c Config) Validate() error {
	c = c.withDefaults()
	const wordsText = "1 to 200 letters, digits or ._~+/=-"
	switch {
	case unsuitable(c.Name):
		return bad("Name", fmt.Sprintf("%q", c.Name), wordsText)
	case slices.ContainsFunc(c.Tokens, unsuitable):
		return bad("Tokens", "unsuitable", wordsText)
	}
	if err := errors.Join(checkAddress("Listen", c.Listen), checkAddress("Advertise", c.Advertise), checkTLS("TLS", c.TLS)); err != nil {
		return err
	}
	if !loopback(c.Listen) && !c.Insecure && (len(c.Tokens) == 0 || c.TLS == nil) {
		return bad("Listen", c.Listen, "a loopback address, or Tokens and TLS set, or Insecure")
	}
	if c.Cluster == nil {
		return nil
	}
	return c.Cluster.validate(c.Insecure)
}

func (c *Cluster) validate(insecure bool) error {
	const wordsText = "1 to 200 letters, digits or ._~+/=-"
	switch {
	case unsuitable(c.Name):
		return bad("Cluster.Name", fmt.Sprintf("%q", c.Name), wordsText)
	case slices.ContainsFunc(c.Secrets, unsuitable):
		return bad("Cluster.Secrets", "unsuitable", wordsText)
	case c.Listen == "":
		return bad("Cluster.Listen", `""`, "host:port")
	}
	errs := []error{checkAddress("Cluster.Listen", c.Listen), checkAddress("Cluster.Advertise", c.Advertise), checkTLS("Cluster.TLS", c.TLS)}
	for i, r := range c.Routes {
		if r == "" {
			return bad(fmt.Sprintf("Cluster.Routes[%d]", i), `""`, "host:port")
		}
		errs = append(errs, checkAddress(fmt.Sprintf("Cluster.Routes[%d]", i), r))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if !loopback(c.Listen) && !insecure && (len(c.Secrets) == 0 || c.TLS == nil) {
		return bad("Cluster.Listen", c.Listen, "a loopback address, or Cluster.Secrets and Cluster.TLS set, or Insecure")
	}
	return nil
}

func checkAddress(field, a string) error {
	if a == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(a)
	if err != nil || strings.ContainsAny(host+port, "\"\\ \n\r\t{}[]#$,;") {
		return bad(field, fmt.Sprintf("%q", a), "host:port")
	}
	return nil
}

func checkTLS(field string, t *TLS) error {
	if t == nil {
		return nil
	}
	for name, path := range map[string]string{"CertFile": t.CertFile, "KeyFile": t.KeyFile, "CAFile": t.CAFile} {
		if path == "" && name == "CAFile" {
			continue
		}
		if strings.ContainsAny(path, "\"\\\n\r") {
			return bad(field+"."+name, fmt.Sprintf("%q", path), "a path without quotes and backslashes")
		}
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("%w: %s.%s: %w", ErrConfig, field, name, err)
		}
	}
	return nil
}

// loopback tells whether an address is reachable from this machine alone.
func loopback(a string) bool {
	host, _, err := net.SplitHostPort(a)
	return err == nil && client.IsLoopback(host)
}
