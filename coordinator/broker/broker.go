package broker

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/espalier-ml/espalier/coordinator/certs"
)

// startTimeout bounds the wait for a server that comes up.
const startTimeout = 10 * time.Second

// Broker is a running server.
type Broker struct {
	cfg  Config
	srv  *server.Server
	log  *serverLog
	once sync.Once
	// routing guards routes, the brokers that this one connects to.
	routing sync.Mutex
	routes  []string
}

// Start starts the server and waits until it takes connections. Errors: ErrConfig,
// ErrStart with the cause.
func Start(ctx context.Context, cfg Config) (*Broker, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	opts, err := cfg.options()
	if err != nil {
		return nil, fmt.Errorf("%w: read its configuration: %w", ErrStart, err)
	}
	srv, err := server.NewServer(opts)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStart, err)
	}
	log := &serverLog{z: cfg.Logger}
	srv.SetLoggerV2(log, cfg.Logger.GetLevel() <= zerolog.DebugLevel, false, false)
	b := &Broker{cfg: cfg, srv: srv, log: log}
	if cfg.Cluster != nil {
		b.routes = cfg.Cluster.Routes
	}
	go srv.Start() // returns by itself; Shutdown waits for what it started
	if err := b.ready(ctx); err != nil {
		b.Shutdown()
		return nil, err
	}
	return b, nil
}

// options are the server's, from text, with the certificates as they are now.
func (c Config) options() (*server.Options, error) {
	opts := &server.Options{}
	if err := opts.ProcessConfigString(c.text()); err != nil {
		return nil, err
	}
	// These two have no words in the configuration language: signals and output are
	// the program's.
	opts.NoSigs, opts.NoLog = true, true
	// Nor has it a second token or secret: a check takes the place of what the text says.
	if len(c.Tokens) > 1 {
		opts.CustomClientAuthentication = &tokenCheck{c.Tokens}
	}
	if c.Cluster != nil && len(c.Cluster.Secrets) > 1 {
		opts.CustomRouterAuthentication = &secretCheck{c.Cluster.Secrets}
	}
	return opts, nil
}

// tokenCheck and secretCheck let in clients and brokers. They are no functions, since the server compares its options at a
// reload, and functions are never equal.
type (
	tokenCheck  struct{ tokens certs.Tokens }
	secretCheck struct{ secrets certs.Tokens }
)

// Check implements server.Authentication.
func (t *tokenCheck) Check(c server.ClientAuthentication) bool {
	return t.tokens.Has(c.GetOpts().Token)
}

// Check implements server.Authentication.
func (s *secretCheck) Check(c server.ClientAuthentication) bool {
	return c.GetOpts().Username == routeUser && s.secrets.Has(c.GetOpts().Password)
}

// AddRoutes connects to further brokers of the cluster, from now on for ever; those known already and this one are passed over.
func (b *Broker) AddRoutes(routes []string) error {
	if b.cfg.Cluster == nil {
		return fmt.Errorf("%w: a broker without a cluster has no routes", ErrConfig)
	}
	b.routing.Lock()
	defer b.routing.Unlock()
	own := cmp.Or(b.cfg.Cluster.Advertise, b.ClusterAddress())
	all := slices.Clone(b.routes)
	for _, r := range routes {
		if r != "" && r != own && !slices.Contains(all, r) {
			all = append(all, r)
		}
	}
	if len(all) == len(b.routes) {
		return nil
	}
	cluster := *b.cfg.Cluster
	cluster.Routes = all
	cfg := b.cfg
	cfg.Cluster = &cluster
	err := cfg.Validate()
	if err == nil {
		err = b.reload(cfg)
	}
	if err != nil {
		return fmt.Errorf("add routes %s: %w", strings.Join(routes, ", "), err)
	}
	b.routes = all
	return nil
}

// reload gives the running server another configuration.
func (b *Broker) reload(cfg Config) error {
	opts, err := cfg.options()
	if err != nil {
		return err
	}
	return b.srv.ReloadOptions(opts)
}

// Reload reads the certificate files again, for connections that come from now on. If that fails, the old ones stay.
func (b *Broker) Reload() error {
	b.routing.Lock()
	defer b.routing.Unlock()
	cfg := b.cfg
	if cfg.Cluster != nil {
		cluster := *cfg.Cluster
		cluster.Routes = b.routes
		cfg.Cluster = &cluster
	}
	if err := b.reload(cfg); err != nil {
		return fmt.Errorf("reload broker: %w", err)
	}
	return nil
}

func (b *Broker) ready(ctx context.Context) error {
	deadline := time.Now().Add(startTimeout)
	for !b.srv.ReadyForConnections(20 * time.Millisecond) {
		if err := b.log.fatal(); err != nil {
			return fmt.Errorf("%w: %w", ErrStart, err)
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%w: %w", ErrStart, err)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%w: listen on %s: not ready within %s", ErrStart, b.cfg.Listen, startTimeout)
		}
	}
	return nil
}

// Shutdown closes all connections and waits for the server's goroutines. Safe to call
// more than once.
func (b *Broker) Shutdown() {
	b.once.Do(func() {
		b.srv.Shutdown()
		b.srv.WaitForShutdown()
	})
}

// URL is what this broker's clients connect to, without the token.
func (b *Broker) URL() string {
	scheme := "nats"
	if b.cfg.TLS != nil {
		scheme = "tls"
	}
	if b.cfg.Advertise != "" {
		return scheme + "://" + b.cfg.Advertise
	}
	return scheme + "://" + b.srv.Addr().String()
}

// URLs is URL, and those of the other brokers of the cluster, as far as they are known.
func (b *Broker) URLs() []string {
	urls := []string{b.URL()}
	v, err := b.srv.Varz(nil)
	if err != nil {
		return urls
	}
	scheme, own, _ := strings.Cut(urls[0], "://")
	for _, u := range v.ClientConnectURLs {
		if u != own {
			urls = append(urls, scheme+"://"+u)
		}
	}
	return urls
}

// ClusterAddress is where the other brokers connect; empty without a cluster.
func (b *Broker) ClusterAddress() string {
	if b.cfg.Cluster == nil {
		return ""
	}
	if a := b.srv.ClusterAddr(); a != nil {
		return a.String()
	}
	return ""
}

// Stats is what the broker counts, for metrics.
type Stats struct {
	Clients int
	// Routes counts the other brokers that are connected.
	Routes                           int
	InMessages, OutMessages          int64
	InBytes, OutBytes, SlowConsumers int64
}

// Stats reads the counters. ErrClosed after Shutdown.
func (b *Broker) Stats() (Stats, error) {
	v, err := b.srv.Varz(nil)
	if err != nil {
		return Stats{}, fmt.Errorf("%w: %w", ErrClosed, err)
	}
	remotes := 0
	if b.cfg.Cluster != nil {
		routes, err := b.srv.Routez(nil)
		if err != nil {
			return Stats{}, fmt.Errorf("%w: %w", ErrClosed, err)
		}
		seen := map[string]bool{}
		for _, r := range routes.Routes {
			seen[r.RemoteID] = true
		}
		remotes = len(seen)
	}
	return Stats{
		Clients: v.Connections, Routes: remotes,
		InMessages: v.InMsgs, OutMessages: v.OutMsgs, InBytes: v.InBytes, OutBytes: v.OutBytes, SlowConsumers: v.SlowConsumers,
	}, nil
}

// Connect makes a connection inside the process: the leader's. It shows the token and
// lasts until it or the broker is closed.
func (b *Broker) Connect(name string) (*nats.Conn, error) {
	nc, err := nats.Connect("", nats.InProcessServer(inProcess{b.srv}), nats.Name(name), nats.Token(b.cfg.Tokens.Shown()),
		nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond), nats.Timeout(startTimeout))
	if err != nil {
		return nil, fmt.Errorf("connect to own broker: %w", err)
	}
	return nc, nil
}

// inProcess dials the server without a socket.
type inProcess struct{ srv *server.Server }

func (p inProcess) InProcessConn() (net.Conn, error) { return p.srv.InProcessConn() }
