package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"github.com/rs/zerolog"
)

const (
	// transportPool is how many idle connections are kept to each replica.
	transportPool = 3
	// transportTimeout bounds one exchange; snapshots get more, by their size.
	transportTimeout = 10 * time.Second
	// localAddress is that of a replica that listens nowhere.
	localAddress = "local"
)

// openTransport listens, or makes the transport of a replica that listens nowhere.
func (s *Store) openTransport() (transport, error) {
	if s.cfg.Address == "" {
		_, t := raft.NewInmemTransport(localAddress)
		return t, nil
	}
	layer, err := listen(s.cfg.Address, s.cfg.Advertise, s.cfg.TLS, s.identity, s.log)
	if err != nil {
		return nil, err
	}
	s.layer = layer
	layer.dialled = s.cfg.dialled
	return network{elect: &s.handovers.elect, confirmed: &s.confirmed, NetworkTransport: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: layer, MaxPool: transportPool, Timeout: transportTimeout,
		Logger: newRaftLog(s.log).Named("transport"),
	})}, nil
}

// streams is the connections of a network transport. Closing it closes them all, so
// that nothing leaves a replica that has stopped.
type streams struct {
	listener  net.Listener
	tls       func() *tls.Config // nil for plain TCP
	advertise address
	identity  *identity
	log       zerolog.Logger
	// dialled, if set, is given each connection that this replica makes: see Config.
	dialled func(to string, c net.Conn) net.Conn
	// ctx ends with Close, and with it what is being dialled.
	ctx    context.Context
	cancel context.CancelFunc

	mu     sync.Mutex
	open   map[net.Conn]struct{}
	closed bool
	// at is who answered at each address, as far as they say who they are.
	at map[raft.ServerAddress]string
	// refused is when each remote host was last told that it is of another cluster: it calls again and again.
	refused map[string]time.Time
}

var _ raft.StreamLayer = (*streams)(nil)

// address is what other replicas dial: a name, not yet resolved.
type address string

func (a address) Network() string { return "tcp" }
func (a address) String() string  { return string(a) }

func listen(bind, advertise string, conf func() *tls.Config, id *identity, log zerolog.Logger) (*streams, error) {
	l, err := net.Listen("tcp", bind)
	if err != nil {
		return nil, fmt.Errorf("listen for replicas: %w", err)
	}
	s := &streams{
		listener: l, tls: conf, advertise: address(advertise), identity: id, log: log, open: map[net.Conn]struct{}{},
		at: map[raft.ServerAddress]string{}, refused: map[string]time.Time{},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if host, port, err := net.SplitHostPort(advertise); err == nil && port == "0" {
		_, actual, err := net.SplitHostPort(l.Addr().String())
		if err != nil {
			return nil, errors.Join(err, l.Close())
		}
		s.advertise = address(net.JoinHostPort(host, actual))
	}
	return s, nil
}

// Accept waits for a replica's connection. The TLS handshake happens with the first
// read, so that a silent peer holds up nobody else.
func (s *streams) Accept() (net.Conn, error) {
	c, err := s.listener.Accept()
	if err != nil {
		return nil, err
	}
	if s.tls != nil {
		c = tls.Server(c, s.tls())
	}
	return s.track(&greeted{Conn: c, streams: s})
}

// Dial connects to a replica.
func (s *streams) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.ctx, timeout)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "tcp", string(to))
	if err != nil {
		return nil, err
	}
	if s.tls != nil {
		if c, err = s.handshake(ctx, c, string(to)); err != nil {
			return nil, err
		}
	}
	if err := s.greet(ctx, c, to); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if s.dialled != nil {
		c = s.dialled(string(to), c)
	}
	return s.track(c)
}

func (s *streams) handshake(ctx context.Context, c net.Conn, to string) (net.Conn, error) {
	conf := s.tls().Clone()
	if conf.ServerName == "" {
		host, _, err := net.SplitHostPort(to)
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
		conf.ServerName = host
	}
	t := tls.Client(c, conf)
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("tls with replica %s: %w", to, err), c.Close())
	}
	return t, nil
}

// track remembers a connection until it is closed.
func (s *streams) track(c net.Conn) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errors.Join(net.ErrClosed, c.Close())
	}
	s.open[c] = struct{}{}
	return &tracked{Conn: c, streams: s}, nil
}

// tracked is a connection that tells when it is closed.
type tracked struct {
	net.Conn
	streams *streams
}

func (t *tracked) Close() error {
	t.streams.mu.Lock()
	delete(t.streams.open, t.Conn)
	t.streams.mu.Unlock()
	return t.Conn.Close()
}

// Close stops listening and closes every connection.
func (s *streams) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.cancel()
	for c := range s.open {
		_ = c.Close() // the peer may have closed it already
	}
	return s.listener.Close()
}

// Addr is what the other replicas are told.
func (s *streams) Addr() net.Addr { return s.advertise }
