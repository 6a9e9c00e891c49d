package store

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/rs/zerolog"
)

// Config says where a store lives and how it talks to the other replicas.
type Config struct {
	// Dir holds the log, the state and the snapshots. Made if absent.
	Dir string
	// ID names the replica among the others, for ever. Empty: the folder's own id,
	// or a new random one for a new folder.
	ID string
	// Address is where Raft listens, as host:port. Empty: a single replica that
	// listens nowhere.
	Address string
	// Advertise is the address that the other replicas are told. Empty: Address.
	Advertise string
	// TLS secures Raft's connections in both directions, with client certificates. It is asked
	// for each connection, so that certificates may change. Nil: plain TCP.
	TLS func() *tls.Config
	// Bootstrap makes a new folder the first replica of a new cluster. A folder that
	// has a log already is opened as it is. Without it a new folder waits to be added.
	Bootstrap bool
	// Admit, if set, is asked with the replica's id before a fresh folder, one that was never part of a cluster, listens
	// to others; its error ends Open.
	Admit func(id string) error
	// Logger takes the store's and Raft's messages. The zero value logs nothing.
	Logger zerolog.Logger
	// BeforeVote, if set, is asked before a replica that has caught up gets a vote: it returns
	// when all that a voter counts for is there. Add gives its error back.
	BeforeVote func(ctx context.Context, id string) error
	// NoSync skips fsync: for tests and benchmarks, nothing else.
	NoSync bool
	// SnapshotEvery is how many log entries make a snapshot due. 0: 8192.
	SnapshotEvery uint64
	// SnapshotInterval is how often that is looked at, give or take. 0: 20 s.
	SnapshotInterval time.Duration
	// SnapshotBytes is how many bytes of entries make a snapshot due at once, or an eighth of
	// the state if that is more. 0: 8 MiB.
	SnapshotBytes int64
	// TrailingLogs is how many entries stay in the log after a snapshot, so that a
	// replica that was away catches up from the log; fewer if they are large, as
	// SnapshotBytes says. 0: 4096.
	TrailingLogs uint64
	// Election is how long a replica hears nothing from the leader before it stands
	// for election. 0: 500 ms, and 50 ms for a single replica that listens nowhere.
	Election time.Duration
	// Late is called when commands were applied whose caller had given up waiting: what
	// follows the results of Apply has missed these. It must not wait. Nil: nobody asks.
	Late func()
	// MaxLogBytes bounds the log file; writes beyond it fail as on a full disk. 0: no
	// bound but the disk.
	MaxLogBytes int

	// dialled stands in for each connection that the replica makes: for tests of a network that holds back and loses.
	dialled func(to string, c net.Conn) net.Conn
}

// defaultSnapshotBytes of entries are applied again in about a second.
const defaultSnapshotBytes = 8 << 20

// Limits of Config's fields.
const (
	minElection = 20 * time.Millisecond
	maxElection = time.Minute
)

func (c Config) withDefaults() Config {
	if c.SnapshotEvery == 0 {
		c.SnapshotEvery = 8192
	}
	if c.SnapshotInterval == 0 {
		c.SnapshotInterval = 20 * time.Second
	}
	if c.SnapshotBytes == 0 {
		c.SnapshotBytes = defaultSnapshotBytes
	}
	if c.TrailingLogs == 0 {
		c.TrailingLogs = 4096
	}
	if c.Advertise == "" {
		c.Advertise = c.Address
	}
	if c.Election == 0 {
		c.Election = 500 * time.Millisecond
		if c.Address == "" {
			c.Election = 50 * time.Millisecond
		}
	}
	return c
}

// Validate checks the fields; its errors wrap ErrConfig.
func (c Config) Validate() error {
	bad := func(field string, value any, want string) error {
		return fmt.Errorf("%w: %s is %v, want %s", ErrConfig, field, value, want)
	}
	c = c.withDefaults()
	if c.Dir == "" {
		return bad("Dir", `""`, "a folder")
	}
	if c.ID != "" {
		if err := checkID("ID", c.ID); err != nil {
			return bad("ID", fmt.Sprintf("%q", c.ID), "at most 200 bytes without slashes or control characters")
		}
	}
	for _, a := range []struct{ field, value string }{{"Address", c.Address}, {"Advertise", c.Advertise}} {
		if a.value == "" {
			continue
		}
		if _, _, err := net.SplitHostPort(a.value); err != nil {
			return bad(a.field, fmt.Sprintf("%q", a.value), "host:port")
		}
	}
	switch {
	case c.Address == "" && c.Advertise != "":
		return bad("Advertise", c.Advertise, "nothing without Address")
	case c.Address == "" && c.TLS != nil:
		return bad("TLS", "set", "nothing without Address")
	case c.Election < minElection || c.Election > maxElection:
		return bad("Election", c.Election, fmt.Sprintf("%s to %s", minElection, maxElection))
	case c.SnapshotInterval < 5*time.Millisecond:
		return bad("SnapshotInterval", c.SnapshotInterval, "at least 5ms")
	case c.SnapshotBytes < 1:
		return bad("SnapshotBytes", c.SnapshotBytes, "1 or more")
	case c.MaxLogBytes < 0:
		return bad("MaxLogBytes", c.MaxLogBytes, "0 or more")
	}
	return nil
}
