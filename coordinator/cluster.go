package coordinator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/espalier-ml/espalier/client"
	"github.com/espalier-ml/espalier/coordinator/api"
	"github.com/espalier-ml/espalier/coordinator/files"
	"github.com/espalier-ml/espalier/coordinator/files/peer"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// clusterName is the same on all replicas' brokers.
const clusterName = "espalier"

// cluster tells the API where things are.
type cluster struct{ s *Server }

var _ api.Cluster = cluster{}

// BrokerURLs implements api.Cluster.
func (c cluster) BrokerURLs() []string { return c.s.broker.URLs() }

// Address implements api.Cluster.
func (c cluster) Address(id string) string {
	if id == c.s.store.ID() {
		return c.s.address
	}
	p, _ := c.s.peers.Get(id)
	return p.API
}

// Leader implements api.Cluster.
func (c cluster) Leader() string {
	id, known := c.s.store.Leader()
	if !known {
		return ""
	}
	return c.Address(id)
}

// Replicas implements api.Cluster.
func (c cluster) Replicas() []string {
	var out []string
	for _, p := range c.s.peers.List() {
		out = append(out, p.API)
	}
	return out
}

// BrokerRoutes implements api.Cluster.
func (c cluster) BrokerRoutes() []string {
	var out []string
	for _, p := range c.s.peers.List() {
		if p.Route != "" {
			out = append(out, p.Route)
		}
	}
	return out
}

// url is an API address with its scheme.
func (s *Server) url(address string) string {
	switch {
	case strings.Contains(address, "://"):
		return address
	case s.cfg.CertFile != "":
		return "https://" + address
	}
	return "http://" + address
}

// others lists the other voters, which count for majorities; those that have not told where they are cannot be asked.
func (s *Server) others() []files.Peer {
	members, err := s.store.Members()
	if err != nil {
		return nil // closing
	}
	var out []files.Peer
	for _, m := range members {
		if m.ID == s.store.ID() || !m.Voter {
			continue
		}
		if p, known := s.peers.Get(m.ID); known {
			out = append(out, peer.NewClient(s.peerHTTP, m.ID, s.url(p.API), s.cfg.Token))
		} else {
			out = append(out, silent(m.ID))
		}
	}
	return out
}

// peerAt returns the replica with an API address, nil if there is none.
func (s *Server) peerAt(address string) files.Peer {
	for _, p := range s.peers.List() {
		if p.API == address && p.ID != s.store.ID() {
			return peer.NewClient(s.peerHTTP, p.ID, s.url(p.API), s.cfg.Token)
		}
	}
	return nil
}

// silent is a replica that has not told its address.
type silent string

var errSilent = errors.New("its address is not known yet")

// ID implements files.Peer.
func (p silent) ID() string { return string(p) }

// Hold implements files.Peer.
func (p silent) Hold(context.Context, []files.Ref, string) ([]string, error) {
	return nil, fmt.Errorf("replica %s: %w", string(p), errSilent)
}

// Fetch implements files.Peer.
func (p silent) Fetch(context.Context, string, int64) (io.ReadCloser, error) {
	return nil, fmt.Errorf("replica %s: %w", string(p), errSilent)
}

// newPeerHTTP speaks HTTP/2 to other replicas.
func (s *Server) newPeerHTTP() (*http.Client, error) {
	_, conf, err := s.loadTLS()
	if err != nil {
		return nil, err
	}
	t := &http.Transport{Protocols: new(http.Protocols), TLSClientConfig: conf, IdleConnTimeout: time.Minute,
		HTTP2: &http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: 5 * time.Second}}
	if conf == nil {
		t.Protocols.SetUnencryptedHTTP2(true)
	} else {
		t.Protocols.SetHTTP2(true)
	}
	return &http.Client{Transport: t}, nil
}

// dialJoin connects to the cluster that Join names.
func (s *Server) dialJoin(patience time.Duration) (*client.Client, error) {
	_, conf, err := s.loadTLS()
	if err != nil {
		return nil, err
	}
	return client.New(client.Config{Addresses: s.cfg.Join, Token: s.cfg.Token, TLS: conf, Insecure: s.cfg.Insecure, Patience: patience})
}

// routes asks the cluster where its brokers are. A replica that is a member already starts without, when nobody answers:
// after all replicas were down the first one must come up alone.
func (s *Server) routes(ctx context.Context) ([]string, error) {
	if len(s.cfg.Join) == 0 {
		return s.cfg.BrokerRoutes, nil
	}
	c, err := s.dialJoin(-1)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	for {
		info, err := c.Info(ctx)
		if err == nil {
			return append(s.cfg.BrokerRoutes, info.GetBrokerRoutes()...), nil
		}
		if members, _ := s.store.Members(); len(members) > 0 {
			s.log.Warn().Err(err).Strs("join", s.cfg.Join).Msg("no other replica answers, starting without")
			return s.cfg.BrokerRoutes, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("join %s: %w: %w", strings.Join(s.cfg.Join, ", "), ctx.Err(), err)
		case <-time.After(retryLead):
		}
	}
}

// joinTimeout bounds the wait for membership.
const joinTimeout = time.Minute

// startMember makes this replica a member of the cluster that Join names, unless it is one.
func (s *Server) startMember(ctx context.Context) (func(context.Context) error, error) {
	nothing := func(context.Context) error { return nil }
	if len(s.cfg.Join) == 0 {
		return nothing, nil
	}
	members, err := s.store.Members()
	if err != nil {
		return nil, err
	}
	for _, m := range members {
		if m.ID == s.store.ID() && m.Voter {
			return nothing, nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	c, err := s.dialJoin(joinTimeout)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	for {
		_, err := c.Cluster.AddReplica(ctx, &v1.AddReplicaRequest{Id: s.store.ID(), RaftAddress: s.raftAddress()})
		if err == nil {
			return nothing, nil
		}
		s.log.Warn().Err(err).Strs("join", s.cfg.Join).Msg("not a member yet, trying again")
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("join %s: %w", strings.Join(s.cfg.Join, ", "), err)
		case <-time.After(retryLead):
		}
	}
}
