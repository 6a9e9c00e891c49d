package coordinator

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/rs/zerolog"

	"github.com/espalier-ml/espalier/coordinator/api"
	"github.com/espalier-ml/espalier/coordinator/broker"
	"github.com/espalier-ml/espalier/coordinator/dispatch"
	"github.com/espalier-ml/espalier/coordinator/files"
	"github.com/espalier-ml/espalier/coordinator/files/peer"
	"github.com/espalier-ml/espalier/coordinator/leader"
	"github.com/espalier-ml/espalier/coordinator/store"
)

// Server is a running replica.
type Server struct {
	cfg Config
	log zerolog.Logger

	files    *files.Store
	replica  *files.Replicator
	peers    *broker.Peers
	peerHTTP *http.Client
	store    *store.Store
	broker   *broker.Broker
	leader   *leader.Leader
	janitor  *janitor
	dispatch *dispatch.Dispatcher
	api      *api.Server
	listener net.Listener
	address  string

	failed chan error
	// stops undo what Start did, last first.
	stops []func(context.Context) error
	once  sync.Once
	err   error
}

// Start starts a replica and returns when it answers clients and knows a leader, or after a while without one. ctx bounds the start only. On an error
// everything that was started is stopped again.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg.withDefaults(), log: cfg.Logger, failed: make(chan error, 1)}
	// This is the order of the start; Close goes through it backwards.
	for _, step := range []struct {
		name  string
		start func(context.Context) (stop func(context.Context) error, err error)
	}{
		{"files", s.startFiles},
		{"store", s.startStore},
		{"broker", s.startBroker},
		{"replication", s.startReplication},
		{"dispatch", s.startDispatch}, // leads only when the store says so, and drains before the broker goes
		{"janitor", s.startJanitor},   // tells dispatch of files that were lost
		{"api", s.startAPI},           // after all that it answers for
		{"membership", s.startMember}, // last: the others reach what they ask of a member
	} {
		stop, err := step.start(ctx)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("start %s: %w", step.name, err), s.Close(ctx))
		}
		s.stops = append(s.stops, stop)
	}
	s.awaitLeader(ctx)
	s.log.Info().Str("address", s.address).Str("broker", s.broker.URL()).Str("replica", s.store.ID()).Msg("server started")
	return s, nil
}

// Close stops the replica: no new requests, the lead given up, then the broker, the store and the files. Requests under way
// may finish until ctx ends. Further calls return the first one's error.
func (s *Server) Close(ctx context.Context) error {
	s.once.Do(func() {
		for i := len(s.stops) - 1; i >= 0; i-- {
			s.err = errors.Join(s.err, s.stops[i](ctx))
		}
	})
	return s.err
}

// leaderPatience is how long Start waits for a leader. A replica alone leads well before.
const leaderPatience = 3 * time.Second

func (s *Server) awaitLeader(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, leaderPatience)
	defer cancel()
	for {
		if _, known := s.store.Leader(); known {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Address returns the API's address, host:port.
func (s *Server) Address() string { return s.address }

// BrokerURL returns the address of the broker.
func (s *Server) BrokerURL() string { return s.broker.URL() }

// Failed gives the error with which the store has stopped by itself: then the server is of no more use and should be closed.
func (s *Server) Failed() <-chan error { return s.failed }

func (s *Server) startFiles(context.Context) (func(context.Context) error, error) {
	var err error
	s.files, err = files.Open(files.Config{Dir: filepath.Join(s.cfg.Dir, "files"), NoSync: s.cfg.NoSync, Logger: s.log})
	return func(context.Context) error { return nil }, err
}

func (s *Server) startStore(ctx context.Context) (func(context.Context) error, error) {
	var err error
	cfg := store.Config{
		Dir: filepath.Join(s.cfg.Dir, "raft"), ID: s.cfg.ReplicaID, Address: s.cfg.RaftListen, Advertise: s.cfg.RaftAdvertise,
		Bootstrap: len(s.cfg.Join) == 0, BeforeVote: s.equip, NoSync: s.cfg.NoSync, Logger: s.log,
	}
	if s.cfg.RaftListen != "" && s.cfg.CertFile != "" {
		serve, client, err := s.loadTLS()
		if err != nil {
			return nil, err
		}
		cfg.TLS = serve
		cfg.TLS.RootCAs, cfg.TLS.ClientCAs, cfg.TLS.ClientAuth = client.RootCAs, client.RootCAs, tls.RequireAndVerifyClientCert
	}
	s.store, err = store.Open(ctx, cfg)
	return func(context.Context) error { return s.store.Close() }, err
}

func (s *Server) startBroker(ctx context.Context) (func(context.Context) error, error) {
	cfg := broker.Config{
		Name: s.store.ID(), Listen: s.cfg.BrokerListen, Advertise: s.cfg.BrokerAdvertise, Token: s.cfg.Token,
		Insecure: s.cfg.Insecure, Logger: s.log,
	}
	if s.cfg.CertFile != "" {
		cfg.TLS = &broker.TLS{CertFile: s.cfg.CertFile, KeyFile: s.cfg.KeyFile, CAFile: s.cfg.CAFile}
	}
	if s.cfg.RaftListen != "" {
		routes, err := s.routes(ctx)
		if err != nil {
			return nil, err
		}
		cfg.Cluster = &broker.Cluster{Name: clusterName, Listen: s.cfg.BrokerCluster, Advertise: s.cfg.BrokerClusterAdvertise,
			Routes: routes, Secret: s.cfg.Token, TLS: cfg.TLS}
	}
	var err error
	s.broker, err = broker.Start(ctx, cfg)
	return func(context.Context) error {
		s.broker.Shutdown()
		return nil
	}, err
}

// startReplication tells the other replicas of this one, and moves files between them. The API's address must be known by
// now, so its listener is opened here.
func (s *Server) startReplication(context.Context) (stop func(context.Context) error, err error) {
	if s.listener, err = net.Listen("tcp", s.cfg.Listen); err != nil {
		return nil, err
	}
	s.address = cmp.Or(s.cfg.Advertise, s.listener.Addr().String())
	undo := []func() error{func() error {
		if err := s.listener.Close(); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	}}
	stop = func(context.Context) (err error) {
		for i := len(undo) - 1; i >= 0; i-- {
			err = errors.Join(err, undo[i]())
		}
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, stop(context.Background()))
		}
	}()
	if s.peerHTTP, err = s.newPeerHTTP(); err != nil {
		return nil, err
	}
	undo = append(undo, func() error { s.peerHTTP.CloseIdleConnections(); return nil })
	nc, err := s.broker.Connect("peers " + s.store.ID())
	if err != nil {
		return nil, err
	}
	undo = append(undo, func() error { nc.Close(); return nil })
	route := cmp.Or(s.cfg.BrokerClusterAdvertise, s.broker.ClusterAddress())
	if s.peers, err = broker.Announce(nc, broker.Peer{ID: s.store.ID(), API: s.address, Route: route}); err != nil {
		return nil, err
	}
	undo = append(undo, s.peers.Close)
	if s.cfg.RaftListen != "" {
		undo = append(undo, s.startSeeking())
	}
	s.replica, err = files.NewReplicator(files.ReplicatorConfig{Store: s.files, Self: s.address, Peers: s.others, Logger: s.log})
	if err != nil {
		return nil, err
	}
	undo = append(undo, func() error { s.replica.Close(); return nil })
	return stop, nil
}

// raftAddress is where the other replicas find this one.
func (s *Server) raftAddress() string { return cmp.Or(s.cfg.RaftAdvertise, s.cfg.RaftListen) }

// startDispatch makes what only the leader runs, and follows the store's transitions.
func (s *Server) startDispatch(context.Context) (func(context.Context) error, error) {
	var err error
	told := telling{s.store, func(job string) { s.dispatch.Changed(job) }}
	if s.leader, err = leader.New(leader.Config{Store: told, Log: s.log}); err != nil {
		return nil, err
	}
	s.dispatch, err = dispatch.New(dispatch.Config{
		Store: s.store, Proposer: s.leader, Files: s.replicated(), Lease: s.cfg.Lease, Log: s.log,
	})
	if err != nil {
		return nil, err
	}
	nc, err := s.broker.Connect("replica " + s.store.ID())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() {
		s.followLead(ctx, func(ctx context.Context, term uint64) error { return s.dispatch.Lead(ctx, nc, term) })
	})
	return func(context.Context) error {
		cancel()
		work.Wait()
		nc.Close()
		return nil
	}, nil
}

func (s *Server) startAPI(context.Context) (func(context.Context) error, error) {
	serve, client, err := s.loadTLS()
	if err != nil {
		return nil, err
	}
	answering := peer.Service{Files: s.files, Replica: s.replica, Peer: s.peerAt}
	path, handler := answering.Handler()
	s.api, err = api.New(api.Config{
		Store: telling{s.store, s.dispatch.Changed}, Dispatch: s.dispatch, Files: s.replicated(), Cluster: cluster{s},
		Known: s.cfg.Known, Version: s.cfg.Version, Token: s.cfg.Token, TLS: serve, ClientTLS: client, Log: s.log,
		FileErrors: fileErrors, Members: s.store, Metrics: s.collectors(), Peer: api.PeerHandler{Path: path, Handler: handler},
	})
	if err != nil {
		return nil, err
	}
	s.api.Serve(s.listener)
	return s.api.Close, nil
}

// fileErrors are the codes of the file store's errors.
var fileErrors = []api.FileError{
	{Err: files.ErrNotFound, Code: connect.CodeNotFound},
	{Err: files.ErrHash, Code: connect.CodeInvalidArgument},
	{Err: files.ErrHashMismatch, Code: connect.CodeDataLoss},
	{Err: files.ErrOffset, Code: connect.CodeOutOfRange},
	{Err: files.ErrTooLarge, Code: connect.CodeInvalidArgument},
	{Err: errNotSpread, Code: connect.CodeUnavailable},
	{Err: files.ErrFull, Code: connect.CodeResourceExhausted},
}

func (s *Server) loadTLS() (serve, client *tls.Config, err error) {
	if s.cfg.CertFile == "" {
		return nil, nil, nil
	}
	cert, err := tls.LoadX509KeyPair(s.cfg.CertFile, s.cfg.KeyFile)
	if err != nil {
		return nil, nil, fmt.Errorf("load certificate: %w", err)
	}
	client = &tls.Config{MinVersion: tls.VersionTLS12}
	if s.cfg.CAFile != "" {
		pem, err := os.ReadFile(s.cfg.CAFile)
		if err != nil {
			return nil, nil, fmt.Errorf("load authorities: %w", err)
		}
		client.RootCAs = x509.NewCertPool()
		if !client.RootCAs.AppendCertsFromPEM(pem) {
			return nil, nil, fmt.Errorf("load authorities: %w: CAFile %s holds no PEM certificate", ErrConfig, s.cfg.CAFile)
		}
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}, client, nil
}
