package broker

import (
	"fmt"
	"net"
	"strings"
)

// text writes the server's configuration. It is text, as in a file, and not options
// set in code, because the server completes a clustered configuration while it reads it.
// Values are checked by Validate to need no escaping.
func (c Config) text() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("server_name: \"%s\"", c.Name)
	line("listen: \"%s\"", natsAddress(c.Listen))
	if c.Advertise != "" {
		line("client_advertise: \"%s\"", c.Advertise)
	}
	line("max_payload: %d", MaxMessageBytes)
	line("max_pending: %d", 8*MaxMessageBytes)
	line("ping_interval: \"5s\"")
	line("ping_max: 2")
	line("write_deadline: \"10s\"")
	if len(c.Tokens) > 0 {
		line("authorization { token: \"%s\" }", c.Tokens.Shown())
	}
	if c.TLS != nil {
		line("tls {\n%s}", c.TLS.text(c.TLS.Verify))
	}
	if c.Cluster != nil {
		line("cluster {\n%s}", c.Cluster.text())
	}
	return b.String()
}

func (t *TLS) text(verify bool) string {
	s := fmt.Sprintf("  cert_file: \"%s\"\n  key_file: \"%s\"\n", t.CertFile, t.KeyFile)
	if t.CAFile != "" {
		s += fmt.Sprintf("  ca_file: \"%s\"\n", t.CAFile)
	}
	return s + fmt.Sprintf("  verify: %t\n  timeout: 5\n", verify)
}

// routeUser is the name under which brokers show their secret.
const routeUser = "replica"

func (c *Cluster) text() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, "  "+format+"\n", args...) }
	line("name: \"%s\"", c.Name)
	line("listen: \"%s\"", natsAddress(c.Listen))
	if c.Advertise != "" {
		line("cluster_advertise: \"%s\"", c.Advertise)
	}
	user := ""
	if secret := c.Secrets.Shown(); secret != "" {
		line("authorization { user: \"%s\", password: \"%s\", timeout: 5 }", routeUser, secret)
		user = routeUser + ":" + urlEscape(secret) + "@"
	}
	if c.TLS != nil {
		line("tls {\n%s}", c.TLS.text(true))
	}
	line("routes: [")
	for _, r := range c.Routes {
		line("  \"nats-route://%s%s\"", user, r)
	}
	line("]")
	// A route that is down is tried for ever.
	line("connect_retries: 1000000")
	line("ping_interval: \"2s\"")
	return b.String()
}

// urlEscape escapes what words allows and a URL's user part does not.
func urlEscape(s string) string { return strings.ReplaceAll(s, "/", "%2F") }

// natsAddress turns port 0 into the server's own word for a free port.
func natsAddress(a string) string {
	host, port, err := net.SplitHostPort(a)
	if err == nil && port == "0" {
		port = "-1"
	}
	return net.JoinHostPort(host, port)
}
