package client

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"

	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/proto/trace"
)

// NewRequestID returns a fresh random id for requests that must take effect once.
func NewRequestID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it never fails
	return hex.EncodeToString(b[:])
}

// Submit records a job: once, although the request is repeated with the same id
// while no leader answers. The id is the context's (see package trace), or a new one. local stands for the device `local`; nil if the spec
// does not name it.
func (c *Client) Submit(ctx context.Context, spec *espalierv1.JobSpec, local *espalierv1.Fingerprint) (*espalierv1.Job, error) {
	return c.SubmitAs(ctx, cmp.Or(trace.From(ctx).Request, NewRequestID()), spec, local)
}

// SubmitAs is Submit with the caller's request id: the same id, also from another
// process, returns the job that it made first.
func (c *Client) SubmitAs(ctx context.Context, id string, spec *espalierv1.JobSpec, local *espalierv1.Fingerprint) (*espalierv1.Job, error) {
	req := &espalierv1.SubmitRequest{RequestId: id, Spec: spec, Local: local}
	return again(ctx, c.patience, func() (*espalierv1.Job, error) {
		res, err := c.Jobs.Submit(ctx, req)
		if err != nil {
			return nil, err
		}
		return res.GetJob(), nil
	})
}

// Job returns the status of the job with this id, unique prefix or name.
func (c *Client) Job(ctx context.Context, job string) (*espalierv1.JobStatus, error) {
	return again(ctx, c.patience, func() (*espalierv1.JobStatus, error) {
		res, err := c.Jobs.Get(ctx, &espalierv1.GetRequest{Job: job})
		if err != nil {
			return nil, err
		}
		return res.GetStatus(), nil
	})
}

// Ended tells whether a job in this state will have no more trials.
func Ended(s espalierv1.JobState) bool {
	switch s {
	case espalierv1.JobState_JOB_STATE_DONE, espalierv1.JobState_JOB_STATE_FAILED, espalierv1.JobState_JOB_STATE_CANCELLED:
		return true
	default:
		return false
	}
}

// Watch calls see with the job's status, now and after each change, until the job
// has ended, and returns its last status. A stream that breaks is opened again,
// for as long as ctx stands; lost is told of each break and may be nil. An error
// of see ends the watch and is returned as it is.
func (c *Client) Watch(ctx context.Context, job string, see func(*espalierv1.JobStatus) error, lost func(error)) (*espalierv1.JobStatus, error) {
	var last *espalierv1.JobStatus
	var wait backoff
	for {
		var refused error
		err := c.watchOnce(ctx, job, func(s *espalierv1.JobStatus) bool {
			last = s
			wait.reset()
			refused = see(s)
			return refused == nil
		})
		switch {
		case refused != nil:
			return last, refused
		case Ended(last.GetJob().GetState()):
			return last, nil
		case ctx.Err() != nil:
			return last, ctx.Err()
		case err != nil && !Temporary(err):
			return last, fmt.Errorf("watch %s: %w", job, err)
		case err != nil && lost != nil:
			lost(err)
		}
		if !wait.sleep(ctx) {
			return last, ctx.Err()
		}
	}
}

// watchOnce follows one stream to its end, or until see returns false.
func (c *Client) watchOnce(ctx context.Context, job string, see func(*espalierv1.JobStatus) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := c.Jobs.Watch(ctx, &espalierv1.WatchRequest{Job: job})
	if err != nil {
		cancel()
		return err
	}
	defer stream.Close()
	defer cancel()
	for stream.Receive() {
		if !see(stream.Msg().GetStatus()) {
			return nil
		}
	}
	return stream.Err()
}
