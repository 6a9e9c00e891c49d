// Package link is a worker's connection to the cluster's broker: it finds the brokers, reconnects by itself, moves to another
// replica when its own has no leader on its side, and tells when a request is worth making again.
package link

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
	"google.golang.org/protobuf/proto"

	"github.com/espalier-ml/espalier/client"
	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/proto/subject"
)

// ErrNoLeader says that nobody leads, as far as the broker knows: the request arrived nowhere.
var ErrNoLeader = errors.New("no replica leads")

const (
	// notLeaderLimit is how many replies in a row may say "not leader" before the
	// link connects to another replica's broker.
	notLeaderLimit = 6
	// connectTimeout bounds one attempt to reach one broker.
	connectTimeout = 2 * time.Second
)

// Config says how a Link connects.
type Config struct {
	// API is asked for the brokers' addresses. Required.
	API *client.Client
	// Server is what API was made from: its token and TLS are the brokers' too.
	Server client.Config
	// Name is shown to the broker's operators.
	Name string
	// Retry is the first delay before Connect tries again. 0: 100 ms.
	Retry time.Duration
	// Refresh is how long the connection may be down before the addresses are asked for
	// again. 0: 2 s.
	Refresh time.Duration
	Logger  zerolog.Logger
}

// Link is a connection that lasts. Its methods may be called concurrently, after Connect.
type Link struct {
	cfg Config
	log zerolog.Logger

	mu        sync.Mutex
	nc        *nats.Conn
	notLeader int
	downSince time.Time
	// aloneSince is since when no request has found a leader; zero if the last one did.
	aloneSince time.Time
	broken     context.Context // ends when replies that are waited for will not come
	breaking   context.CancelFunc
	again      chan struct{} // closed when requests are worth making again
}

// New returns a Link that is not connected.
func New(cfg Config) *Link {
	if cfg.Retry == 0 {
		cfg.Retry = 100 * time.Millisecond
	}
	if cfg.Refresh == 0 {
		cfg.Refresh = 2 * time.Second
	}
	return &Link{cfg: cfg, log: cfg.Logger}
}

// Connect asks where the brokers are and connects. It tries until ctx ends, and then returns ctx's cause.
func (l *Link) Connect(ctx context.Context) error {
	for wait := NewBackoff(l.cfg.Retry); ; {
		err := l.refresh(ctx)
		if err == nil {
			return nil
		}
		l.log.Warn().Err(err).Strs("server", l.cfg.Server.Addresses).Msg("no connection to the cluster yet")
		if !wait.Sleep(ctx) {
			return context.Cause(ctx)
		}
	}
}

// refresh connects to the brokers that the API names now, and drops the old
// connection if there was one.
func (l *Link) refresh(ctx context.Context) error {
	info, err := l.info(ctx)
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
	if _, err := nc.Subscribe(subject.Lead, func(*nats.Msg) { l.onLead(nc) }); err != nil {
		nc.Close()
		return fmt.Errorf("listen for the leader: %w", err)
	}
	l.mu.Lock()
	old := l.nc
	l.nc, l.notLeader, l.aloneSince = nc, 0, time.Time{}
	l.renew()
	l.mu.Unlock()
	if old != nil {
		old.Close()
	}
	return nil
}

// info asks the replicas for the brokers until one of them knows a leader: one that does not may be cut off from the others.
// While nobody does, the last answer counts.
func (l *Link) info(ctx context.Context) (info *espalierv1.InfoResponse, err error) {
	for range len(l.cfg.Server.Addresses) {
		info, err = l.cfg.API.Info(ctx)
		if err == nil && info.GetLeader() != "" {
			return info, nil
		}
		l.cfg.API.Elsewhere()
	}
	return info, err
}

func (l *Link) options() []nats.Option {
	opts := []nats.Option{
		nats.Name(l.cfg.Name),
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
	if l.cfg.Server.Token != "" {
		opts = append(opts, nats.Token(l.cfg.Server.Token))
	}
	if l.cfg.Server.TLS != nil {
		opts = append(opts, nats.Secure(l.cfg.Server.TLS))
	}
	if trusted := l.cfg.Server.Authorities; trusted != nil {
		opts = append(opts, func(o *nats.Options) error {
			o.RootCAsCB = func() (*x509.CertPool, error) { return trusted.Pool(), nil }
			return nil
		})
	}
	return opts
}

// renew ends the requests that wait, and wakes those who wait to make one again. The caller holds mu.
func (l *Link) renew() {
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
func (l *Link) onDisconnect(nc *nats.Conn, err error) {
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
func (l *Link) onReconnect(nc *nats.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if nc != l.nc {
		return
	}
	l.log.Info().Str("broker", nc.ConnectedUrlRedacted()).Msg("connected to the broker again")
	l.renew()
}

// onLead hears that another replica leads now. What was asked of the one before, which may be gone without a word, is asked
// again at once; requests may be repeated, so no harm is done if it did answer.
func (l *Link) onLead(nc *nats.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if nc == l.nc {
		l.notLeader = 0
		l.renew()
	}
}

// Turn is closed when requests that fail from now on are worth making again: the connection is there again, or another
// replica leads. Take it before the request, so that nothing is missed between its failure and Pause.
func (l *Link) Turn() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.again
}

// Pause waits before a request is made again: the backoff's time, or until turn, or until ctx ends.
func (l *Link) Pause(ctx context.Context, b *Backoff, turn <-chan struct{}) { b.wait(ctx, turn) }

// Keep watches the connection until ctx ends.
func (l *Link) Keep(ctx context.Context) {
	tick := time.NewTicker(l.cfg.Refresh / 4)
	defer tick.Stop()
	for wait := NewBackoff(l.cfg.Refresh / 4); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		switch {
		case l.downTooLong():
		case l.aloneTooLong():
			l.log.Warn().Str("broker", l.broker()).Msg("no leader on this broker's side, looking for it elsewhere")
		default:
			wait.Reset()
			continue
		}
		if err := l.refresh(ctx); err != nil && ctx.Err() == nil {
			l.log.Warn().Err(err).Msg("no connection to the cluster")
			wait.Sleep(ctx)
		}
	}
}

// downTooLong tells whether the brokers' addresses should be asked for again.
func (l *Link) downTooLong() bool {
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
		return time.Since(l.downSince) > l.cfg.Refresh
	}
}

// aloneTooLong tells whether the leader should be looked for elsewhere: longer than an election takes, no request has
// found one here. It says so once in that time.
func (l *Link) aloneTooLong() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.aloneSince.IsZero() || time.Since(l.aloneSince) < 2*l.cfg.Refresh {
		return false
	}
	l.aloneSince = time.Now()
	return true
}

// alone notes whether a request found a leader.
func (l *Link) alone(none bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case !none:
		l.aloneSince = time.Time{}
	case l.aloneSince.IsZero():
		l.aloneSince = time.Now()
	}
}

// broker is the address of the one connected.
func (l *Link) broker() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.nc.ConnectedUrlRedacted()
}

// Close ends the connection and the requests that wait.
func (l *Link) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.nc != nil {
		l.nc.Close()
		l.breaking()
	}
}

// Request sends in and reads the reply into out. Errors: ErrNoLeader, or what kept the reply from coming; then the request
// may have arrived.
func (l *Link) Request(ctx context.Context, subject string, in, out proto.Message, timeout time.Duration) error {
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
	if errors.Is(err, nats.ErrNoResponders) {
		l.alone(true)
		return ErrNoLeader
	}
	if err != nil {
		return err
	}
	l.alone(false)
	if err := proto.Unmarshal(msg.Data, out); err != nil {
		return fmt.Errorf("decode reply: %w", err)
	}
	return nil
}

// Heard counts replies that say "not leader". After too many in a row the link moves
// to another broker: this one may be cut off from the leader.
func (l *Link) Heard(notLeader bool) {
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
