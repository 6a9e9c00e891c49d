package api

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"

	"github.com/espalier-ml/espalier/coordinator/clock"
	"github.com/espalier-ml/espalier/coordinator/store"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// invalid says which field of a request is wrong: its value, and what would be right.
func invalid(field string, value any, want string) error {
	text := fmt.Sprint(value)
	if len(text) > 100 {
		text = text[:100] + "…"
	}
	e := connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("%s is %q: it must be %s", field, text, want))
	return withDetail(e, &v1.ErrorDetail{Field: field, Value: text, Want: want})
}

func withDetail(e *connect.Error, d *v1.ErrorDetail) error {
	if detail, err := connect.NewErrorDetail(d); err == nil {
		e.AddDetail(detail)
	}
	return e
}

// codes translate the store's errors.
var codes = []struct {
	err  error
	code connect.Code
}{
	{store.ErrNotLeader, connect.CodeUnavailable},
	{store.ErrUncertain, connect.CodeUnavailable},
	{store.ErrClosed, connect.CodeUnavailable},
	{store.ErrFull, connect.CodeResourceExhausted},
	{store.ErrConfig, connect.CodeInvalidArgument},
	{store.ErrInvalid, connect.CodeInvalidArgument},
	{store.ErrNotFound, connect.CodeNotFound},
	{store.ErrExists, connect.CodeAlreadyExists},
	{store.ErrState, connect.CodeFailedPrecondition},
	{store.ErrOlder, connect.CodeFailedPrecondition},
	{store.ErrOtherCluster, connect.CodeFailedPrecondition},
	{store.ErrUnreachable, connect.CodeFailedPrecondition},
	{context.Canceled, connect.CodeCanceled},
	{context.DeadlineExceeded, connect.CodeDeadlineExceeded},
}

// wrap gives an error its code.
func wrap(err error) error {
	if err == nil || errors.As(err, new(*connect.Error)) {
		return err
	}
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return connect.NewError(c.code, err)
		}
	}
	return connect.NewError(connect.CodeInternal, err)
}

// apply commits one command.
func (s *service) apply(ctx context.Context, cmd *v1.Command) (store.Result, error) {
	cmd.TimeMs = clock.Milli(s.now())
	results, err := s.cfg.Store.Apply(ctx, cmd)
	if err != nil {
		return store.Result{}, wrap(err)
	}
	r := results[0]
	if r.Err != nil {
		return r, wrap(r.Err)
	}
	return r, nil
}
