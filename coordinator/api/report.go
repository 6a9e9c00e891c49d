package api

import (
	"context"
	"sync"
	"time"

	"github.com/espalier-ml/espalier/coordinator/store"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// askTimeout bounds the question to another replica.
const askTimeout = 2 * time.Second

// report is what this replica knows of itself.
func (s *service) report(st store.Status) *v1.ReplicaReport {
	ready := s.readiness()
	out := &v1.ReplicaReport{
		Version: s.cfg.Version, Term: st.Term, CommitIndex: st.CommitIndex, AppliedIndex: st.AppliedIndex, Behind: ready.Behind,
		LogBytes: st.LogBytes, StateBytes: st.StateBytes, SinceLeaderMs: st.SinceLeader.Milliseconds(),
		Ready: ready.Ready, Reason: ready.Reason,
	}
	var err error
	if out.Files, out.FileBytes, out.FreeBytes, err = s.cfg.Cluster.Disk(); err != nil {
		s.cfg.Log.Warn().Err(err).Msg("files not counted")
		out.Files, out.FileBytes, out.FreeBytes = -1, -1, -1
	}
	return out
}

// askAll adds to out what each replica says of itself.
func (s *service) askAll(ctx context.Context, out *v1.ReplicasResponse) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var asked sync.WaitGroup
	for _, r := range out.GetReplicas() {
		if r.GetId() == out.GetId() {
			r.Report = out.GetReport()
			continue
		}
		asked.Go(func() {
			var err error
			if r.Report, err = s.cfg.Cluster.Ask(ctx, r.GetId()); err != nil {
				r.Problem = err.Error()
			}
		})
	}
	asked.Wait()
}
