package coordinator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/espalier-ml/espalier/coordinator/api"
	"github.com/espalier-ml/espalier/coordinator/files"
	"github.com/espalier-ml/espalier/coordinator/files/peer"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// clusterName is the same on all replicas' brokers, and another one in every other cluster: brokers of different
// clusters do not mix.
func (s *Server) clusterName() string {
	id := s.store.Cluster()
	if s.store.Fresh() {
		id = s.joining.GetClusterId()
	}
	if id == "" { // a cluster that began before clusters had ids
		return "espalier"
	}
	return "espalier-" + id
}

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
	return c.s.known(id).GetApiAddress()
}

// Version implements api.Cluster.
func (c cluster) Version(id string) string {
	return c.s.known(id).GetVersion()
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
func (c cluster) Replicas() []string { return c.each(c.Address) }

// BrokerRoutes implements api.Cluster.
func (c cluster) BrokerRoutes() []string {
	return c.each(func(id string) string { return c.s.known(id).GetBrokerAddress() })
}

// each collects what is known of every member, this one included.
func (c cluster) each(of func(id string) string) []string {
	out := []string{}
	add := func(id string) {
		if v := of(id); v != "" && !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	add(c.s.store.ID())
	members, _ := c.s.store.Members() // none while closing
	for _, m := range members {
		add(m.ID)
	}
	return out
}

// Ask implements api.Cluster.
func (c cluster) Ask(ctx context.Context, id string) (*v1.ReplicaReport, error) {
	address := c.Address(id)
	if address == "" {
		return nil, fmt.Errorf("replica %s: %w", id, errSilent)
	}
	got, err := c.s.clusterClient(address).Replicas(ctx, &v1.ReplicasRequest{})
	if err != nil {
		return nil, fmt.Errorf("ask replica %s at %s: %w", id, address, err)
	}
	if got.GetReport() == nil {
		return nil, fmt.Errorf("ask replica %s at %s: its build tells nothing of itself", id, address)
	}
	return got.GetReport(), nil
}

// Disk implements api.Cluster.
func (c cluster) Disk() (count, bytes, free int64, err error) {
	u, err := c.s.disk.of(c.s.files)
	return int64(u.Files), u.Bytes, u.FreeBytes, err
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
		// Just after a start the records know where the others are before they have told.
		if address := (cluster{s}).Address(m.ID); address != "" {
			out = append(out, peer.NewClient(s.peerHTTP, m.ID, s.url(address), s.cfg.Tokens.Shown()))
		} else {
			out = append(out, silent(m.ID))
		}
	}
	return out
}

// peerAt returns the replica with an API address, nil if there is none.
func (s *Server) peerAt(address string) files.Peer {
	members, _ := s.store.Members() // none while closing
	for _, m := range members {
		if m.ID != s.store.ID() && (cluster{s}).Address(m.ID) == address {
			return peer.NewClient(s.peerHTTP, m.ID, s.url(address), s.cfg.Tokens.Shown())
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
func (s *Server) newPeerHTTP() *http.Client {
	t := &http.Transport{Protocols: new(http.Protocols), IdleConnTimeout: time.Minute,
		HTTP2: &http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: 5 * time.Second}}
	if s.pair == nil {
		t.Protocols.SetUnencryptedHTTP2(true)
	} else {
		t.Protocols.SetHTTP2(true)
		t.DialTLSContext = s.authorities.Dial
	}
	return &http.Client{Transport: t}
}
