package client

import (
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"time"

	"connectrpc.com/connect"
)

// Temporary tells whether the same idempotent request may succeed a little later:
// no server answered, the connection broke, or the one that answered has no leader
// now.
func Temporary(err error) bool {
	var ce *connect.Error
	if !errors.As(err, &ce) {
		return false
	}
	if connect.IsWireError(err) {
		return ce.Code() == connect.CodeUnavailable || ce.Code() == connect.CodeAborted
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return false
	}
	switch ce.Code() {
	case connect.CodeUnavailable, connect.CodeAborted, connect.CodeUnknown, connect.CodeInternal, connect.CodeCanceled:
		return true
	default:
		return false
	}
}

// again repeats an idempotent request while its error is temporary, no longer
// than patience.
func again[T any](ctx context.Context, patience time.Duration, request func() (T, error)) (T, error) {
	deadline := time.Now().Add(patience)
	var wait backoff
	for {
		res, err := request()
		if err == nil || !Temporary(err) || ctx.Err() != nil {
			return res, err
		}
		if time.Now().After(deadline) || !wait.sleep(ctx) {
			return res, err
		}
	}
}

// backoff waits longer each time, from 50 ms to 2 s, with jitter. The zero value
// is ready.
type backoff struct{ next time.Duration }

func (b *backoff) reset() { b.next = 0 }

// sleep waits and tells whether ctx still stands.
func (b *backoff) sleep(ctx context.Context) bool {
	if b.next == 0 {
		b.next = 50 * time.Millisecond
	}
	d := b.next/2 + rand.N(b.next/2)
	b.next = min(2*b.next, 2*time.Second)
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
