package coordinator

import (
	"context"
	"errors"
	"time"

	"github.com/espalier-ml/espalier/coordinator/files"
	"github.com/espalier-ml/espalier/coordinator/store"
)

const (
	// sweepInterval is the time between two looks for files that were dropped, unless records of files change before.
	sweepInterval = time.Minute
	// sweepPause is the least time between two looks.
	sweepPause = 5 * time.Second
	// sweepPage is how many records are read at once.
	sweepPage = 500
)

// startJanitor brings this replica's disk in line with the records: what garbage collection dropped goes, what is missing is
// fetched from other replicas.
func (s *Server) startJanitor(context.Context) (func(context.Context) error, error) {
	ctx, cancel := context.WithCancel(context.Background())
	changes, unsubscribe := s.store.Subscribe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.janitor(ctx, changes)
	}()
	return func(context.Context) error {
		cancel()
		unsubscribe()
		<-done
		return nil
	}, nil
}

func (s *Server) janitor(ctx context.Context, changes <-chan store.Change) {
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for due := true; ; {
		if due {
			if err := s.sweep(ctx); err != nil && ctx.Err() == nil {
				s.log.Warn().Err(err).Msg("dropped files not removed, trying again")
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(sweepPause):
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			due = true
		case c, open := <-changes:
			if !open {
				return
			}
			due = c.Cluster || c.All
		}
	}
}

// sweep removes the files that are recorded as dropped and still lie here, and fetches those that do not.
func (s *Server) sweep(ctx context.Context) error {
	var failed error
	for after := ""; ; {
		var wanted []files.Ref
		var dropped []string
		n := 0
		err := s.store.View(func(v *store.View) error {
			records := v.Files(after, sweepPage)
			n = len(records)
			for _, r := range records {
				after = r.GetFile().GetHash()
				if r.GetDroppedMs() > 0 {
					dropped = append(dropped, after)
				} else {
					wanted = append(wanted, files.Ref{Hash: after, SizeBytes: r.GetFile().GetSizeBytes()})
				}
			}
			return nil
		})
		if err != nil {
			return errors.Join(failed, err)
		}
		if _, err := s.replica.Sync(ctx, wanted, dropped); err != nil {
			failed = errors.Join(failed, err)
		}
		if n < sweepPage || ctx.Err() != nil {
			return failed
		}
	}
}
