package coordinator

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"github.com/rs/zerolog"

	"github.com/espalier-ml/espalier/coordinator/api"
	"github.com/espalier-ml/espalier/coordinator/backup"
	"github.com/espalier-ml/espalier/coordinator/broker"
	"github.com/espalier-ml/espalier/coordinator/dispatch"
	"github.com/espalier-ml/espalier/coordinator/files"
	"github.com/espalier-ml/espalier/coordinator/files/peer"
	"github.com/espalier-ml/espalier/coordinator/leader"
	"github.com/espalier-ml/espalier/coordinator/store"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/tlsfile"
)

// Server is a running replica.
type Server struct {
	cfg Config
	log zerolog.Logger

	// pair is nil without TLS, authorities without CAFile.
	pair        *tlsfile.Pair
	authorities *tlsfile.Authorities

	files    *files.Store
	disk     diskUsage
	replica  *files.Replicator
	peers    *broker.Peers
	peerHTTP *http.Client
	store    *store.Store
	broker   *broker.Broker
	leader   *leader.Leader
	janitor  *janitor
	dispatch *dispatch.Dispatcher
	// assigns is dispatch, for those who run before it is there.
	assigns  atomic.Pointer[dispatch.Dispatcher]
	api      *api.Server
	listener net.Listener
	address  string

	// joining is what the cluster said when this fresh replica asked to join; else nil.
	joining *v1.ReplicasResponse

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
	if err := backup.Unfinished(cfg.Dir); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg.withDefaults(), log: cfg.Logger, failed: make(chan error, 1)}
	// This is the order of the start; Close goes through it backwards.
	for _, step := range []struct {
		name  string
		start func(context.Context) (stop func(context.Context) error, err error)
	}{
		{"connections", s.startConnections},
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

// Failed gives the error with which the store has stopped by itself, or ErrRemoved, or store.ErrOtherCluster: then the server is
// of no more use and should be closed.
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
		Bootstrap: len(s.cfg.Join) == 0, BeforeVote: s.equip, NoSync: s.cfg.NoSync, Logger: s.log, Late: s.late,
	}
	if !cfg.Bootstrap {
		cfg.Admit = s.admit(ctx)
	}
	if s.cfg.RaftListen != "" && s.cfg.CertFile != "" {
		cfg.TLS = func() *tls.Config { return tlsfile.Mutual(s.pair, s.authorities) }
	}
	s.store, err = store.Open(ctx, cfg)
	return func(context.Context) error { return s.store.Close() }, err
}

// late passes on that a command was applied whose caller had given up: a client that submitted a job and went away.
func (s *Server) late() {
	if d := s.assigns.Load(); d != nil {
		d.Late()
	}
}

func (s *Server) startBroker(ctx context.Context) (func(context.Context) error, error) {
	cfg := broker.Config{
		Name: s.store.ID(), Listen: s.cfg.BrokerListen, Advertise: s.cfg.BrokerAdvertise, Tokens: s.cfg.Tokens,
		Insecure: s.cfg.Insecure, Logger: s.log,
	}
	if s.cfg.CertFile != "" {
		cfg.TLS = &broker.TLS{CertFile: s.cfg.CertFile, KeyFile: s.cfg.KeyFile, CAFile: s.cfg.CAFile}
	}
	if s.cfg.RaftListen != "" {
		cfg.Cluster = &broker.Cluster{Name: s.clusterName(), Listen: s.cfg.BrokerCluster, Advertise: s.cfg.BrokerClusterAdvertise,
			Routes: s.routes(ctx), Secrets: s.cfg.Tokens, TLS: cfg.TLS}
	}
	var err error
	if s.broker, err = broker.Start(ctx, cfg); err != nil {
		return nil, err
	}
	stop := s.watchCertificates()
	return func(context.Context) error {
		stop()
		s.broker.Shutdown()
		return nil
	}, nil
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
	nc, err := s.broker.Connect("peers " + s.store.ID())
	if err != nil {
		return nil, err
	}
	undo = append(undo, func() error { nc.Close(); return nil })
	route := cmp.Or(s.cfg.BrokerClusterAdvertise, s.broker.ClusterAddress())
	if s.peers, err = broker.Announce(nc, broker.Peer{
		ID: s.store.ID(), API: s.address, Route: route, Raft: s.store.Address(), Version: s.cfg.Version, Commands: store.Commands,
	}); err != nil {
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
	s.assigns.Store(s.dispatch)
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
	answering := peer.Service{Files: s.files, Replica: s.replica, Peer: s.peerAt}
	path, handler := answering.Handler()
	var err error
	s.api, err = api.New(api.Config{
		Store: telling{s.store, s.dispatch.Changed}, Dispatch: s.dispatch, Files: s.replicated(), Cluster: cluster{s},
		Known: s.cfg.Known, Version: s.cfg.Version, Tokens: s.cfg.Tokens, TLS: s.serverTLS(), Authorities: s.authorities, Log: s.log,
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
	{Err: errSilent, Code: connect.CodeUnavailable},
	{Err: files.ErrFull, Code: connect.CodeResourceExhausted},
}
