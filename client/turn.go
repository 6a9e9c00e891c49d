package client

import (
	"context"
	"net/http"
	"sync/atomic"

	"connectrpc.com/connect"
)

// turning sends requests over one of several transports, each of which begins with another address: a connection that
// stands says nothing about whether the replica at its other end still hears from a leader.
type turning struct {
	transports []*http.Transport
	now        atomic.Int64
}

var _ http.RoundTripper = (*turning)(nil)

func newTurning(targets []string, secure bool, cfg Config) *turning {
	t := &turning{}
	for i := range targets {
		from := append(append([]string{}, targets[i:]...), targets[:i]...)
		t.transports = append(t.transports, newTransport(from, secure, cfg))
	}
	return t
}

// RoundTrip implements http.RoundTripper.
func (t *turning) RoundTrip(r *http.Request) (*http.Response, error) {
	return t.transports[t.now.Load()%int64(len(t.transports))].RoundTrip(r)
}

func (t *turning) turn() { t.now.Add(1) }

// CloseIdleConnections drops connections that no request uses.
func (t *turning) CloseIdleConnections() {
	for _, transport := range t.transports {
		transport.CloseIdleConnections()
	}
}

// elsewhere turns to the next address when a replica answers that it is unavailable.
type elsewhere struct{ transport *turning }

var _ connect.Interceptor = elsewhere{}

func (e elsewhere) heed(err error) error {
	if connect.IsWireError(err) && connect.CodeOf(err) == connect.CodeUnavailable {
		e.transport.turn()
	}
	return err
}

// WrapUnary implements connect.Interceptor.
func (e elsewhere) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		res, err := next(ctx, req)
		return res, e.heed(err)
	}
}

// WrapStreamingClient implements connect.Interceptor.
func (e elsewhere) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		return &heeding{next(ctx, spec), e}
	}
}

// WrapStreamingHandler implements connect.Interceptor.
func (e elsewhere) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// heeding is a stream whose errors are heeded.
type heeding struct {
	connect.StreamingClientConn
	elsewhere elsewhere
}

func (h *heeding) Receive(m any) error { return h.elsewhere.heed(h.StreamingClientConn.Receive(m)) }
