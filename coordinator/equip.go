package coordinator

import (
	"context"
	"fmt"
	"time"

	"github.com/espalier-ml/espalier/coordinator/files"
	"github.com/espalier-ml/espalier/coordinator/store"
)

// equipPoll is the time between two questions to a replica that is not ready.
const equipPoll = 100 * time.Millisecond

// equip returns when a replica that joins holds all recorded files: as soon as it has a vote it counts for the majority that
// keeps them. Files that are lost are not waited for.
func (s *Server) equip(ctx context.Context, id string) error {
	for {
		missing, err := s.lacking(ctx, id)
		if err == nil && missing == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			if err != nil {
				return fmt.Errorf("%w: %w", ctx.Err(), err)
			}
			return fmt.Errorf("%w: it lacks %d files", ctx.Err(), missing)
		case <-time.After(equipPoll):
		}
	}
}

// lacking has a replica fetch what it lacks from this one, and counts what it still lacks.
func (s *Server) lacking(ctx context.Context, id string) (missing int, err error) {
	p, known := s.peers.Get(id)
	if !known {
		return 0, fmt.Errorf("replica %s: %w", id, errSilent)
	}
	to := s.peerAt(p.API)
	for after, more := "", true; more; {
		var refs []files.Ref
		err := s.store.View(func(v *store.View) error {
			records := v.Files(after, sweepPage)
			more = len(records) == sweepPage
			for _, r := range records {
				after = r.GetFile().GetHash()
				if r.GetDroppedMs() == 0 && r.GetLostMs() == 0 {
					refs = append(refs, files.Ref{Hash: after, SizeBytes: r.GetFile().GetSizeBytes()})
				}
			}
			return nil
		})
		if err != nil || len(refs) == 0 {
			return missing, err
		}
		still, err := to.Hold(ctx, refs, s.address)
		if err != nil {
			return missing, err
		}
		missing += len(still)
	}
	return missing, nil
}
