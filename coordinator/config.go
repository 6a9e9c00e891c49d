package coordinator

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/espalier-ml/espalier/client"
	"github.com/espalier-ml/espalier/coordinator/api"
	"github.com/espalier-ml/espalier/coordinator/certs"
	"github.com/espalier-ml/espalier/job"
)

// ErrConfig marks a configuration that cannot work. Errors of the parts' own configurations keep their own sentinels.
var ErrConfig = errors.New("invalid server configuration")

// Config says where a replica keeps its state and where it listens.
type Config struct {
	// Dir holds everything that the replica keeps; it is made if absent. Required.
	Dir string
	// Listen is the address of the API; "" means 127.0.0.1:0, a free port on loopback. Beyond loopback it needs a certificate
	// and a token, or Insecure.
	Listen string
	// BrokerListen is the address of the broker; "" means 127.0.0.1:0.
	BrokerListen string
	// Advertise and BrokerAdvertise are the addresses that others are told; "" means those listened on.
	Advertise, BrokerAdvertise string
	// CertFile and KeyFile name the PEM files of the certificate; both or neither.
	CertFile, KeyFile string
	// CAFile names the PEM file of the authorities that the other replicas' certificates are checked against; "" means the
	// system's.
	CAFile string
	// Tokens are what clients, workers and other replicas show; none asks for none.
	Tokens certs.Tokens
	// Insecure allows listening beyond loopback without certificate and token.
	Insecure bool
	// ReplicaID names the replica in its cluster for ever; "" takes the folder's own id, or a new one.
	ReplicaID string
	// RaftListen is where the other replicas connect, host:port; "" is a replica alone, which listens nowhere and cannot
	// be joined. RaftAdvertise is what they are told instead.
	RaftListen, RaftAdvertise string
	// BrokerCluster is where the other replicas' brokers connect; "" means 127.0.0.1:0. BrokerClusterAdvertise is what they
	// are told instead. BrokerRoutes are further brokers to look for. All need RaftListen.
	BrokerCluster, BrokerClusterAdvertise string
	BrokerRoutes                          []string
	// Join names API addresses of replicas of a cluster that this one is or becomes a member of. Without it a new folder
	// begins a cluster of its own.
	Join []string
	// Known is what a job may ask for by name. Required.
	Known job.Names
	// Version is this build's.
	Version string
	// Lease is how long a lease stands without a heartbeat; 0 means 30 s.
	Lease time.Duration
	// ScrubEvery is the time between two scrubs, which read all files and compare them with their hashes; 0 means 24 h.
	ScrubEvery time.Duration
	// ScrubRate bounds a scrub's reading, in bytes per second; 0 means 20 MB/s.
	ScrubRate int64
	// NoSync leaves out fsync: for tests and benchmarks of other things.
	NoSync bool
	Logger zerolog.Logger

	// sweepPause and sweepInterval are the least and the most time between two looks at the records of files. Tests do not
	// wait as long as others.
	sweepPause, sweepInterval time.Duration
}

func (c Config) withDefaults() Config {
	c.ScrubEvery = cmp.Or(c.ScrubEvery, 24*time.Hour)
	c.ScrubRate = cmp.Or(c.ScrubRate, 20_000_000)
	c.sweepPause, c.sweepInterval = cmp.Or(c.sweepPause, sweepPause), cmp.Or(c.sweepInterval, sweepInterval)
	c.Listen = cmp.Or(c.Listen, "127.0.0.1:0")
	c.BrokerListen = cmp.Or(c.BrokerListen, "127.0.0.1:0")
	if c.RaftListen != "" {
		c.BrokerCluster = cmp.Or(c.BrokerCluster, "127.0.0.1:0")
	}
	c.Version = cmp.Or(c.Version, "unknown")
	return c
}

// Validate reports the first field that cannot work: an ErrConfig, or an api.ErrInsecure.
func (c Config) Validate() error {
	switch {
	case c.Dir == "":
		return fmt.Errorf("%w: Dir is empty, it must name a folder", ErrConfig)
	case (c.CertFile == "") != (c.KeyFile == ""):
		return fmt.Errorf("%w: CertFile is %q and KeyFile %q, both or neither must be set", ErrConfig, c.CertFile, c.KeyFile)
	case c.Lease < 0:
		return fmt.Errorf("%w: Lease is %v, it must not be negative", ErrConfig, c.Lease)
	case c.ScrubEvery < 0 || c.ScrubRate < 0:
		return fmt.Errorf("%w: ScrubEvery is %v and ScrubRate %d, they must not be negative", ErrConfig, c.ScrubEvery, c.ScrubRate)
	}
	if c.RaftListen == "" && (len(c.Join) > 0 || c.RaftAdvertise != "" || c.BrokerCluster != "" || len(c.BrokerRoutes) > 0) {
		return fmt.Errorf("%w: Join, RaftAdvertise, BrokerCluster and BrokerRoutes need RaftListen, the address for the other replicas", ErrConfig)
	}
	for _, j := range c.Join {
		if err := c.checkJoin(j); err != nil {
			return err
		}
	}
	d := c.withDefaults()
	addresses := []string{d.Listen, d.BrokerListen}
	if d.RaftListen != "" {
		addresses = append(addresses, d.RaftListen, d.BrokerCluster)
		if d.CertFile != "" && d.CAFile == "" {
			return fmt.Errorf("%w: CAFile is empty: replicas check each other's certificates by it", ErrConfig)
		}
	}
	for _, address := range addresses {
		if err := api.CheckAddress(address, d.CertFile != "", len(d.Tokens) > 0, d.Insecure); err != nil {
			return err
		}
	}
	return nil
}

// checkJoin refuses what is no address, and to send the token to another machine in the clear.
func (c Config) checkJoin(address string) error {
	_, bare, found := strings.Cut(address, "://")
	if !found {
		bare = address
	}
	host, port, err := net.SplitHostPort(bare)
	if err != nil || host == "" || port == "" {
		return fmt.Errorf("%w: Join is %q, want host:port of a replica's API", ErrConfig, address)
	}
	if c.CertFile == "" && !c.Insecure && !client.IsLoopback(host) {
		return fmt.Errorf("%w: Join is %q, beyond this machine: that needs TLS and a token, or Insecure", ErrConfig, address)
	}
	return nil
}
