package worker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
	"google.golang.org/protobuf/proto"

	"github.com/espalier-ml/espalier/client"
)

const (
	// notLeaderLimit is how many replies in a row may say "not leader" before the
	// worker connects to another replica's broker.
	notLeaderLimit = 6
	// connectTimeout bounds one attempt to reach one broker.
	connectTimeout = 2 * time.Second
)

// link is the connection to the broker. It reconnects by itself, asks the API
// for the brokers' addresses again when that takes long, and moves to another
// replica when its own has no leader on its side.
type link struct {
	api   *client.Client
	cfg   client.Config
	log   zerolog.Logger
	waits waits

	mu        sync.Mutex
	nc        *nats.Conn
	notLeader int
	downSince time.Time
	broken    context.Context // ends when the connection breaks
	breaking  context.CancelFunc
	again     chan struct{} // closed at the next connection
}

// connect asks where the broker is, until ctx ends, and connects.
func (l *link) connect(ctx context.Context) error {
	for wait := newBackoff(l.waits.retry); ; {
		err := l.refresh(ctx)
		if err == nil {
			return nil
		}
		l.log.Warn().Err(err).Strs("server", l.cfg.Addresses).Msg("no connection to the cluster yet")
		if !wait.sleep(ctx) {
			return context.Cause(ctx)
		}
	}
}

// refresh connects to the brokers that the API names now, and drops the old
// connection if there was one.
func (l *link) refresh(ctx context.Context) error {
	info, err := l.api.Info(ctx)
	if err != nil {
		return fmt.Errorf("ask for the broker: %w", err)
	}
	urls := info.GetBrokerUrls()
	if len(urls) == 0 {
		return errors.New("ask for the broker: the server names none")
	}
	nc, err := nats.Connect(strings.Join(urls, ","), l.options()...)
	if err != nil {
		return fmt.Errorf("connect to the broker at %s: %w", strings.Join(urls, ", "), err)
	}
	l.mu.Lock()
	old := l.nc
	l.nc, l.notLeader = nc, 0
	l.connected()
	l.mu.Unlock()
	if old != nil {
		old.Close()
	}
	return nil
}

func (l *link) options() []nats.Option {
	opts := []nats.Option{
		nats.Name("espalier worker"),
		nats.Timeout(connectTimeout),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectJitter(250*time.Millisecond, 250*time.Millisecond),
		// A request made while the connection is down fails at once and is made again.
		nats.ReconnectBufSize(-1),
		nats.PingInterval(5 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.DisconnectErrHandler(l.onDisconnect),
		nats.ReconnectHandler(l.onReconnect),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			l.log.Warn().Err(err).Msg("broker error")
		}),
	}
	if l.cfg.Token != "" {
		opts = append(opts, nats.Token(l.cfg.Token))
	}
	if l.cfg.TLS != nil {
		opts = append(opts, nats.Secure(l.cfg.TLS))
	}
	return opts
}

// connected starts a stretch of being connected. The caller holds mu.
func (l *link) connected() {
	if l.breaking != nil {
		l.breaking()
	}
	l.broken, l.breaking = context.WithCancel(context.Background())
	l.downSince = time.Time{}
	if l.again != nil {
		close(l.again)
	}
	l.again = make(chan struct{})
}

// onDisconnect ends the requests that wait: their replies will not come.
func (l *link) onDisconnect(nc *nats.Conn, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if nc != l.nc {
		return
	}
	if err != nil {
		l.log.Warn().Err(err).Msg("connection to the broker lost")
	}
	l.breaking()
}

// onReconnect wakes those who wait to make a request again.
func (l *link) onReconnect(nc *nats.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if nc != l.nc {
		return
	}
	l.log.Info().Str("broker", nc.ConnectedUrlRedacted()).Msg("connected to the broker again")
	l.connected()
}

// pause waits before a request is made again: the backoff's time, or until the
// next connection, or until ctx ends.
func (l *link) pause(ctx context.Context, b *backoff) {
	l.mu.Lock()
	again := l.again
	l.mu.Unlock()
	b.wait(ctx, again)
}

// keep watches the connection until ctx ends.
func (l *link) keep(ctx context.Context) {
	tick := time.NewTicker(l.waits.refresh / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !l.downTooLong() {
			continue
		}
		if err := l.refresh(ctx); err != nil && ctx.Err() == nil {
			l.log.Warn().Err(err).Msg("no connection to the cluster")
		}
	}
}

// downTooLong tells whether the brokers' addresses should be asked for again.
func (l *link) downTooLong() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.nc.IsConnected():
		l.downSince = time.Time{}
		return false
	case l.downSince.IsZero():
		l.downSince = time.Now()
		return false
	default:
		return time.Since(l.downSince) > l.waits.refresh
	}
}

func (l *link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.nc != nil {
		l.nc.Close()
		l.breaking()
	}
}

// request sends in and reads the reply into out. The error is nats.ErrNoResponders
// when nobody leads.
func (l *link) request(ctx context.Context, subject string, in, out proto.Message, timeout time.Duration) error {
	data, err := proto.Marshal(in)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	l.mu.Lock()
	nc, broken := l.nc, l.broken
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	defer context.AfterFunc(broken, cancel)()
	msg, err := nc.RequestWithContext(ctx, subject, data)
	if err != nil {
		return err
	}
	if err := proto.Unmarshal(msg.Data, out); err != nil {
		return fmt.Errorf("decode reply: %w", err)
	}
	return nil
}

// heard counts replies that say "not leader". After too many in a row it moves
// to another broker: this one may be cut off from the leader.
func (l *link) heard(notLeader bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !notLeader {
		l.notLeader = 0
		return
	}
	l.notLeader++
	if l.notLeader < notLeaderLimit {
		return
	}
	l.notLeader = 0
	l.log.Warn().Str("broker", l.nc.ConnectedUrlRedacted()).Msg("this replica does not lead; connecting to another")
	// The client takes the next address of its pool, and this one last.
	if err := l.nc.ForceReconnect(); err != nil {
		l.log.Warn().Err(err).Msg("not reconnected")
	}
}

// backoff waits longer each time, with jitter.
type backoff struct{ first, next, most time.Duration }

func newBackoff(first time.Duration) *backoff {
	return &backoff{first: first, next: first, most: 5 * time.Second}
}

// reset starts again with the shortest wait.
func (b *backoff) reset() { b.next = b.first }

// sleep waits and tells whether ctx still stands.
func (b *backoff) sleep(ctx context.Context) bool { return b.wait(ctx, nil) }

// wait is sleep that wake ends early, and starts over.
func (b *backoff) wait(ctx context.Context, wake <-chan struct{}) bool {
	d := b.next/2 + rand.N(b.next/2+1)
	b.next = min(2*b.next, max(b.most, b.first))
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-wake:
		b.reset()
		return true
	case <-ctx.Done():
		return false
	}
}
