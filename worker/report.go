package worker

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/espalier-ml/espalier/client"
	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/proto/subject"
	"github.com/espalier-ml/espalier/proto/trace"
	"github.com/espalier-ml/espalier/worker/cache"
	"github.com/espalier-ml/espalier/worker/link"
)

// report sends a report until the leader has said what became of it, uploading
// what the leader misses of files. Status UNSPECIFIED means that ctx ended first or
// that the leader will not have such a report; the error then says so.
func (w *Worker) report(ctx context.Context, req *espalierv1.ReportRequest, files []*cache.File) (espalierv1.ReportReply_Status, error) {
	const none = espalierv1.ReportReply_STATUS_UNSPECIFIED
	wait := link.NewBackoff(w.cfg.waits.retry)
	for ctx.Err() == nil {
		turn := w.link.Turn()
		var reply espalierv1.ReportReply
		err := w.link.Request(ctx, subject.Report, req, &reply, w.cfg.waits.report)
		if err != nil {
			w.log.Debug().Err(err).Str("task", req.GetTask()).Int32("attempt", req.GetAttempt()).Msg("report not answered")
			w.link.Pause(ctx, wait, turn)
			continue
		}
		e := reply.GetError()
		w.link.Heard(e.GetCode() == espalierv1.DispatchError_CODE_NOT_LEADER)
		switch {
		case e == nil && reply.GetStatus() != none:
			return reply.GetStatus(), nil
		case e.GetCode() == espalierv1.DispatchError_CODE_INVALID:
			return none, fmt.Errorf("report refused: %s", e.GetMessage())
		case e.GetCode() == espalierv1.DispatchError_CODE_FILES_MISSING:
			if err := w.uploadMissing(ctx, e.GetFiles(), files); err != nil {
				return none, err
			}
		}
		w.link.Pause(ctx, wait, turn)
	}
	return none, context.Cause(ctx)
}

// uploadMissing uploads those of files that the leader names.
func (w *Worker) uploadMissing(ctx context.Context, missing []string, files []*cache.File) error {
	var named []*cache.File
	for _, hash := range missing {
		known := false
		for _, f := range files {
			if f.Ref.GetHash() == hash {
				named, known = append(named, f), true
			}
		}
		if !known {
			return fmt.Errorf("the leader misses file %s, which this task did not make", hash)
		}
	}
	return w.upload(ctx, named)
}

// upload sends files that the cluster lacks. It goes on through lost connections
// until ctx ends.
func (w *Worker) upload(ctx context.Context, files []*cache.File) error {
	for _, file := range files {
		wait := link.NewBackoff(w.cfg.waits.retry)
		for {
			turn := w.link.Turn()
			err := w.uploadFile(ctx, file)
			if err == nil {
				w.log.Info().Fields(trace.From(ctx).Fields()).Str("file", file.Ref.GetHash()).Str("format", file.Ref.GetFormat()).
					Int64("bytes", file.Ref.GetSizeBytes()).Msg("file uploaded")
				break
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if !client.Temporary(err) {
				return fmt.Errorf("upload %s file: %w", file.Ref.GetFormat(), err)
			}
			w.log.Warn().Err(err).Fields(trace.From(ctx).Fields()).Msg("upload interrupted; going on")
			w.link.Pause(ctx, wait, turn)
		}
	}
	return nil
}

func (w *Worker) uploadFile(ctx context.Context, file *cache.File) error {
	f, err := os.Open(file.Path)
	if err != nil {
		return errors.Join(errors.New("file kept for upload is gone"), err)
	}
	defer f.Close()
	return w.api.Upload(ctx, file.Ref, f)
}
