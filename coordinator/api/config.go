package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/espalier-ml/espalier/client"
	"github.com/espalier-ml/espalier/coordinator/certs"
	"github.com/espalier-ml/espalier/coordinator/store"
	"github.com/espalier-ml/espalier/job"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/tlsfile"
)

// Errors of this package.
var (
	// ErrConfig marks a configuration that cannot work.
	ErrConfig = errors.New("invalid API configuration")
	// ErrInsecure says that an address beyond loopback would be served without TLS and a token.
	ErrInsecure = errors.New("not secure")
)

// Store is what the API needs of the replicated store.
type Store interface {
	// Apply commits the commands as one entry and returns a result for each.
	Apply(ctx context.Context, cmds ...*v1.Command) ([]store.Result, error)
	// View runs f on one consistent local snapshot.
	View(f func(*store.View) error) error
	// Linearizable returns once a View sees everything that was committed before the call.
	Linearizable(ctx context.Context) error
	// Subscribe tells of changes until cancel is called; what a slow reader misses is merged.
	Subscribe() (changes <-chan store.Change, cancel func())
	IsLeader() bool
	Term() uint64
}

// Dispatch shows what runs. Only the leader's has anything to show.
type Dispatch interface {
	// Running returns the leases of a job with their progress, of all jobs for "".
	Running(job string) []*v1.RunningTask
	// Seen returns when workers were last heard of.
	Seen() map[string]time.Time
}

// Files keeps immutable files by hash on this replica.
type Files interface {
	// Stat tells whether the file is here, and how far an unfinished upload got.
	Stat(hash string) (*v1.FileStat, error)
	// Upload appends what r gives from offset on, and returns once the file is complete, checked and on a majority of
	// replicas.
	Upload(ctx context.Context, file *v1.FileRef, offset int64, r io.Reader) error
	// Open opens a file, wherever in the cluster it is.
	Open(ctx context.Context, hash string) (f io.ReadSeekCloser, size int64, err error)
	// Missing returns those of the files that a majority of replicas does not hold.
	Missing(ctx context.Context, files []*v1.FileRef) ([]string, error)
}

// Cluster tells where things are.
type Cluster interface {
	// BrokerURLs returns the addresses of the brokers, this replica's first.
	BrokerURLs() []string
	// Leader returns the API address of the leader, "" if there is none.
	Leader() string
	// Replicas returns the API addresses of all replicas.
	Replicas() []string
	// Address returns the API address of one replica, "" if it is not known.
	Address(id string) string
	// Version returns the build that a replica runs, "" if it is not known.
	Version(id string) string
	// Ask asks another replica for what it knows of itself.
	Ask(ctx context.Context, id string) (*v1.ReplicaReport, error)
	// Disk tells how many files this replica has, their bytes, and the bytes that their disk has left, -1 if that is not known.
	Disk() (files, bytes, free int64, err error)
	// BrokerRoutes returns where the brokers connect to each other.
	BrokerRoutes() []string
}

// PeerHandler is a handler and the path that it is mounted at.
type PeerHandler struct {
	Path    string
	Handler http.Handler
}

// FileError is an error of Files and the code that tells clients of it.
type FileError struct {
	Err  error
	Code connect.Code
}

// Config says how the API works.
type Config struct {
	Store    Store
	Dispatch Dispatch
	Files    Files
	Cluster  Cluster
	Members  Members
	// Peer, if set, answers other replicas, at its path.
	Peer  PeerHandler
	Known job.Names // what a job may ask for by name
	// FileErrors gives the errors of Files their codes.
	FileErrors []FileError
	// Version is this build's.
	Version string
	// Tokens, if there are any, are asked of every request but the health checks.
	Tokens certs.Tokens
	// Metrics is registered besides what the API exports itself.
	Metrics []prometheus.Collector
	// TLS, if set, serves over TLS; then the leader's certificate is checked against Authorities, nil for the system's.
	TLS         *tls.Config
	Authorities *tlsfile.Authorities
	// Interval is the least time between two messages of a watch; 0 means 200 ms.
	Interval time.Duration
	Log      zerolog.Logger
}

// Validate reports the first field that cannot work, as an ErrConfig.
func (c Config) Validate() error {
	if c.Store == nil || c.Dispatch == nil || c.Files == nil || c.Cluster == nil || c.Members == nil {
		return fmt.Errorf("%w: store, dispatch, files, cluster and members must be set", ErrConfig)
	}
	if c.Interval < 0 {
		return fmt.Errorf("%w: interval %v must not be negative", ErrConfig, c.Interval)
	}
	return nil
}

// CheckAddress refuses, as an ErrInsecure, to serve beyond loopback without TLS and a token unless insecure is set.
func CheckAddress(address string, withTLS, withToken, insecure bool) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%w: address %q: %w", ErrConfig, address, err)
	}
	if insecure || withTLS && withToken || client.IsLoopback(host) {
		return nil
	}
	return fmt.Errorf("%w: address %q is open to other machines: give TLS and a token, or allow it with --insecure", ErrInsecure, address)
}
