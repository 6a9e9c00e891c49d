package api

import (
	"context"

	"github.com/espalier-ml/espalier/coordinator/clock"
	"github.com/espalier-ml/espalier/coordinator/store"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// Info implements ClusterService. Every replica answers it for itself.
func (s *service) Info(context.Context, *v1.InfoRequest) (*v1.InfoResponse, error) {
	return &v1.InfoResponse{
		Version: s.cfg.Version, BrokerUrls: s.cfg.Cluster.BrokerURLs(), Leader: s.cfg.Cluster.Leader(),
		IsLeader: s.cfg.Store.IsLeader(), Replicas: s.cfg.Cluster.Replicas(), BrokerRoutes: s.cfg.Cluster.BrokerRoutes(),
	}, nil
}

// Workers implements ClusterService. It may be stale.
func (s *service) Workers(context.Context, *v1.WorkersRequest) (*v1.WorkersResponse, error) {
	out := &v1.WorkersResponse{}
	now := s.now()
	seen := s.cfg.Dispatch.Seen()
	running := map[string][]*v1.RunningTask{}
	for _, r := range s.cfg.Dispatch.Running("") {
		running[r.GetTask().GetWorker()] = append(running[r.GetTask().GetWorker()], r)
	}
	err := s.cfg.Store.View(func(v *store.View) error {
		for _, w := range v.Workers() {
			st := &v1.WorkerStatus{Worker: w, LastSeenMs: w.GetSessionMs(), Running: running[w.GetInfo().GetName()]}
			if at, ok := seen[w.GetInfo().GetName()]; ok {
				st.LastSeenMs, st.Connected = clock.Milli(at), now.Sub(at) < awayAfter
			}
			out.Workers = append(out.Workers, st)
		}
		return nil
	})
	return out, wrap(err)
}

// Devices implements ClusterService. It may be stale.
func (s *service) Devices(context.Context, *v1.DevicesRequest) (*v1.DevicesResponse, error) {
	out := &v1.DevicesResponse{}
	err := s.cfg.Store.View(func(v *store.View) error {
		workers := map[string][]string{}
		for _, w := range v.Workers() {
			if d := w.GetInfo().GetDevice(); d != "" {
				workers[d] = append(workers[d], w.GetInfo().GetName())
			}
		}
		for _, d := range v.Devices() {
			out.Devices = append(out.Devices, &v1.DeviceStatus{
				Device: d, Workers: workers[d.GetName()],
				WaitingMeasures: int32(v.PendingCount(v1.TaskKind_TASK_KIND_MEASURE, d.GetName())),
			})
		}
		return nil
	})
	return out, wrap(err)
}
