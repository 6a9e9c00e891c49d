package worker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/rs/zerolog"

	"github.com/espalier-ml/espalier/worker/link"
	"github.com/espalier-ml/espalier/worker/lock"
)

const (
	// hostPoll is how often a process looks for the wishes of others on its host.
	hostPoll = 5 * time.Millisecond
	// hostPatience is how long a measurement waits for the other workers of the
	// host to pause.
	hostPatience = 20 * time.Second
)

// errNotQuiet says that another worker of the host did not pause.
var errNotQuiet = errors.New("host does not get quiet")

// hostQuiet spreads the quiet of a measurement over the workers of a host, of
// which one measures. Two locks do it. A worker that does not measure shares
// `noise` for as long as it may make some. The one that measures first takes `wish`
// alone, which the others watch; each pauses, gives up its share of the noise, and
// waits until nobody wishes for quiet. So when the one that measures has `noise`
// alone, all others are paused. Who dies loses its locks.
type hostQuiet struct {
	wish, noise string
}

func newHostQuiet(hostLock string) hostQuiet {
	return hostQuiet{wish: hostLock + ".wish", noise: hostLock + ".noise"}
}

// hostGate is the gate of the worker that measures: its quiet is the host's.
type hostGate struct {
	*Gate
	host hostQuiet
}

// Quiet implements task.Gate.
func (g hostGate) Quiet(ctx context.Context) (release func(), err error) {
	releaseOwn, err := g.Gate.Quiet(ctx)
	if err != nil {
		return nil, err
	}
	releaseHost, err := g.host.quiet(ctx)
	if err != nil {
		releaseOwn()
		return nil, err
	}
	return func() { releaseHost(); releaseOwn() }, nil
}

// quiet waits until the other workers of the host have paused.
func (h hostQuiet) quiet(ctx context.Context) (release func(), err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, hostPatience, errNotQuiet)
	defer cancel()
	who := fmt.Sprintf("process %d, which measures", os.Getpid())
	wish, err := poll(ctx, func() (*lock.Lock, error) { return lock.Acquire(h.wish, who) })
	if err != nil {
		return nil, fmt.Errorf("ask the host for quiet: %w", err)
	}
	noise, err := poll(ctx, func() (*lock.Lock, error) { return lock.Acquire(h.noise, who) })
	if err != nil {
		return nil, errors.Join(fmt.Errorf("wait for a quiet host: %w", err), wish.Release())
	}
	return func() { _, _ = noise.Release(), wish.Release() }, nil
}

// heed makes a gate quiet while another worker of the host measures, until ctx
// ends.
func (h hostQuiet) heed(ctx context.Context, g *Gate, log zerolog.Logger) {
	for ctx.Err() == nil {
		if err := h.follow(ctx, g); err != nil && ctx.Err() == nil {
			log.Warn().Err(err).Msg("cannot heed the measurements of other workers on this host")
			link.NewBackoff(time.Second).Sleep(ctx)
		}
	}
}

// follow is quiet until this worker shares the noise, noisy until somebody wishes
// for quiet, and so on.
func (h hostQuiet) follow(ctx context.Context, g *Gate) error {
	release, err := g.Quiet(ctx)
	for err == nil {
		var noise *lock.Lock
		noise, err = poll(ctx, h.share)
		release()
		if err != nil {
			break
		}
		for ctx.Err() == nil && !h.wished() {
			link.NewBackoff(hostPoll).Sleep(ctx)
		}
		release, err = g.Quiet(ctx)
		if lost := noise.Release(); lost != nil && err == nil {
			release()
			err = lost
		}
	}
	return err
}

// share takes part in the noise, if nobody wishes for quiet.
func (h hostQuiet) share() (*lock.Lock, error) {
	wish, err := lock.Share(h.wish)
	if err != nil {
		return nil, err
	}
	noise, err := lock.Share(h.noise)
	return noise, errors.Join(err, wish.Release())
}

// wished tells whether somebody wishes for quiet.
func (h hostQuiet) wished() bool {
	l, err := lock.Share(h.wish)
	if err != nil {
		return true
	}
	return l.Release() != nil
}

// poll tries to take a lock until it is free or ctx ends.
func poll(ctx context.Context, take func() (*lock.Lock, error)) (*lock.Lock, error) {
	for {
		l, err := take()
		if !errors.Is(err, lock.ErrHeld) {
			return l, err
		}
		if !link.NewBackoff(hostPoll).Sleep(ctx) {
			return nil, context.Cause(ctx)
		}
	}
}
