package coordinator

import (
	"context"
	"sync"
	"time"

	"github.com/espalier-ml/espalier/coordinator/store"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// retryLead is the wait before leading is tried again within a term.
const retryLead = 200 * time.Millisecond

// serving answers the workers' requests for a term until ctx ends.
type serving func(ctx context.Context, term uint64) error

// followLead leads while the store says so. Every transition ends the reign before it, so that a lead that is lost and
// regained at once stops and starts.
func (s *Server) followLead(ctx context.Context, serve serving) {
	var reign sync.WaitGroup
	stop := func() {}
	end := func() {
		stop()
		reign.Wait()
	}
	defer func() { end() }()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.store.Failed():
			end()
			s.fail(s.store.Err())
			<-ctx.Done()
			return
		case turn, open := <-s.store.Leadership():
			end()
			if !open {
				return
			}
			s.log.Info().Bool("leader", turn.Leader).Uint64("term", turn.Term).Msg("leadership")
			if turn.Leader {
				reigning, cancel := context.WithCancel(ctx)
				stop = cancel
				reign.Go(func() { s.reign(reigning, serve, turn.Term) })
			}
		}
	}
}

// reign does what the leader does, from the moment when the store has applied all that was committed before, until ctx
// ends.
func (s *Server) reign(ctx context.Context, serve serving, term uint64) {
	for ctx.Err() == nil {
		if err := s.lead(ctx, serve, term); err != nil && ctx.Err() == nil {
			s.log.Warn().Err(err).Uint64("term", term).Msg("not leading yet")
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryLead):
		}
	}
}

func (s *Server) lead(ctx context.Context, serve serving, term uint64) error {
	if err := s.store.Barrier(ctx); err != nil {
		return err
	}
	s.leader.Reset()
	defer s.leader.Reset()
	changes, cancel := s.store.Subscribe()
	defer cancel()
	ctx, stop := context.WithCancel(ctx)
	var work sync.WaitGroup
	work.Go(func() { s.leader.Run(ctx, changes) })
	work.Go(func() { s.recordReplicas(ctx) })
	defer work.Wait()
	defer stop()
	return serve(ctx, term)
}

// telling is the store for those whose commands change jobs behind dispatch's back.
type telling struct {
	*store.Store
	changed func(job string)
}

// Apply tells dispatch which jobs the commands changed.
func (t telling) Apply(ctx context.Context, cmds ...*v1.Command) ([]store.Result, error) {
	results, err := t.Store.Apply(ctx, cmds...)
	for _, r := range results {
		if r.Err == nil && r.Job != nil {
			t.changed(r.Job.GetId())
		}
	}
	return results, err
}
