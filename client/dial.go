package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"

	"github.com/espalier-ml/espalier/tlsfile"
)

// parseAddresses returns "host:port" of each address and whether they want TLS.
func parseAddresses(addresses []string, insecure bool) (targets []string, secure bool, err error) {
	if len(addresses) == 0 {
		return nil, false, fmt.Errorf("client: no address given: %w", ErrAddress)
	}
	for i, a := range addresses {
		target, s, err := parseAddress(a, insecure)
		if err != nil {
			return nil, false, err
		}
		if i > 0 && s != secure {
			return nil, false, fmt.Errorf("client: address %q: http and https are mixed: %w", a, ErrAddress)
		}
		targets, secure = append(targets, target), s
	}
	return targets, secure, nil
}

func parseAddress(address string, insecure bool) (target string, secure bool, err error) {
	bad := func(why string) error {
		return fmt.Errorf("client: address %q: %s; want host:port, http://host:port or https://host:port: %w",
			address, why, ErrAddress)
	}
	scheme, rest, found := strings.Cut(address, "://")
	if !found {
		scheme, rest = "", address
	}
	u, perr := url.Parse("x://" + rest)
	switch {
	case perr != nil:
		return "", false, bad("not an address")
	case u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return "", false, bad("not an address")
	}
	loopback := IsLoopback(u.Hostname())
	switch scheme {
	case "http":
	case "https":
		secure = true
	case "":
		secure = !loopback && !insecure
	default:
		return "", false, bad("unknown scheme " + scheme)
	}
	if !secure && !loopback && !insecure {
		return "", false, fmt.Errorf("client: address %q is beyond loopback: use https, or allow it with insecure: %w",
			address, ErrInsecure)
	}
	port := u.Port()
	switch {
	case port != "":
	case scheme == "https":
		port = "443"
	case scheme == "http":
		port = "80"
	default:
		return "", false, bad("no port")
	}
	return net.JoinHostPort(u.Hostname(), port), secure, nil
}

// IsLoopback tells whether a host name or address means this machine only.
func IsLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && ip.Unmap().IsLoopback()
}

// failover dials the target that answered last, then the others in turn.
type failover struct {
	targets []string
	dialer  net.Dialer
	tls     *tls.Config
	// authorities, if set, change what tls trusts.
	authorities *tlsfile.Authorities
	last        atomic.Int64
}

func (f *failover) plain(ctx context.Context, _, _ string) (net.Conn, error) {
	return f.each(func(target string) (net.Conn, error) {
		return f.dialer.DialContext(ctx, "tcp", target)
	})
}

func (f *failover) secure(ctx context.Context, _, _ string) (net.Conn, error) {
	return f.each(func(target string) (net.Conn, error) {
		conf := f.tls.Clone()
		if conf.ServerName == "" {
			conf.ServerName, _, _ = net.SplitHostPort(target)
		}
		if f.authorities != nil {
			conf.RootCAs = f.authorities.Pool()
		}
		d := tls.Dialer{NetDialer: &f.dialer, Config: conf}
		return d.DialContext(ctx, "tcp", target)
	})
}

func (f *failover) each(dial func(string) (net.Conn, error)) (net.Conn, error) {
	first := int(f.last.Load())
	var errs []error
	for i := range f.targets {
		k := (first + i) % len(f.targets)
		conn, err := dial(f.targets[k])
		if err == nil {
			f.last.Store(int64(k))
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}
