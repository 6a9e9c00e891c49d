package client

import (
	"context"
	"time"

	"connectrpc.com/connect"
	"github.com/rs/zerolog"

	"github.com/espalier-ml/espalier/proto/trace"
)

// tracing sends the ids of the context with every request, and logs it. A request of a context without an id gets one of its
// own, the same in this process's log and in the servers'.
type tracing struct{ log zerolog.Logger }

var _ connect.Interceptor = tracing{}

// ids are those of the context.
func (t tracing) ids(ctx context.Context) trace.IDs {
	ids := trace.From(ctx)
	if ids.Request == "" {
		ids.Request = trace.NewID()
	}
	return ids
}

func (t tracing) done(ids trace.IDs, procedure string, begin time.Time, err error) {
	e := t.log.Debug().Fields(ids.Fields()).Str("method", procedure).Dur("took", time.Since(begin))
	if err != nil {
		e = e.Err(err)
	}
	e.Msg("request sent")
}

// WrapUnary implements connect.Interceptor.
func (t tracing) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		ids, begin := t.ids(ctx), time.Now()
		ids.Set(req.Header())
		resp, err := next(ctx, req)
		t.done(ids, req.Spec().Procedure, begin, err)
		return resp, err
	}
}

// WrapStreamingClient implements connect.Interceptor.
func (t tracing) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		ids, begin := t.ids(ctx), time.Now()
		conn := next(ctx, spec)
		ids.Set(conn.RequestHeader())
		t.done(ids, spec.Procedure, begin, nil)
		return conn
	}
}

// WrapStreamingHandler implements connect.Interceptor.
func (t tracing) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}
