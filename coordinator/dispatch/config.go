package dispatch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"

	"github.com/espalier-ml/espalier/coordinator/store"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// ErrConfig marks a configuration that cannot work.
var ErrConfig = errors.New("invalid dispatch configuration")

// Store is what dispatch needs of the replicated store.
type Store interface {
	// Apply commits the commands as one entry and returns a result for each.
	Apply(ctx context.Context, cmds ...*v1.Command) ([]store.Result, error)
	// View runs f on one consistent local snapshot.
	View(f func(*store.View) error) error
}

// Proposer creates trials. It reads a snapshot and changes nothing.
type Proposer interface {
	// Propose returns up to n new trials of the job, numbered from the job's last + 1; none when it should have none now.
	Propose(job string, n int) ([]*v1.NewTrial, error)
	// Measured is told of a trial that was measured on a further device.
	Measured(trial *v1.Trial)
}

// Files tells where files are.
type Files interface {
	// Missing returns those of the files that a majority of replicas does not hold.
	Missing(ctx context.Context, files []*v1.FileRef) ([]string, error)
}

// Clock tells the time. Its times carry a monotonic reading, or behave as if they did.
type Clock interface{ Now() time.Time }

// SystemClock is the machine's clock.
type SystemClock struct{}

// Now implements Clock.
func (SystemClock) Now() time.Time { return time.Now() }

// Config says how a Dispatcher works.
type Config struct {
	Store    Store
	Proposer Proposer
	Files    Files
	// Clock defaults to SystemClock.
	Clock Clock
	// Lease is how long a lease stands without a heartbeat; 0 means 30 s.
	Lease time.Duration
	// Heartbeat is how often workers shall send one; 0 means a sixth of Lease.
	Heartbeat time.Duration
	// MaxWait bounds how long a claim is held; 0 means 20 s.
	MaxWait time.Duration
	Log     zerolog.Logger
}

func (c Config) withDefaults() Config {
	if c.Clock == nil {
		c.Clock = SystemClock{}
	}
	if c.Lease == 0 {
		c.Lease = 30 * time.Second
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = c.Lease / 6
	}
	if c.MaxWait == 0 {
		c.MaxWait = 20 * time.Second
	}
	return c
}

// Validate reports the first field that cannot work, as an ErrConfig.
func (c Config) Validate() error {
	switch {
	case c.Store == nil || c.Proposer == nil || c.Files == nil:
		return fmt.Errorf("%w: store, proposer and files must be set", ErrConfig)
	case c.Lease < 0 || c.MaxWait < 0:
		return fmt.Errorf("%w: lease %v and max wait %v must be positive", ErrConfig, c.Lease, c.MaxWait)
	case c.Heartbeat < 0 || c.withDefaults().Heartbeat > c.withDefaults().Lease/2:
		return fmt.Errorf("%w: heartbeat %v must be positive and at most half the lease %v", ErrConfig, c.Heartbeat, c.withDefaults().Lease)
	}
	return nil
}
