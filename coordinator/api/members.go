package api

import (
	"context"
	"io"

	"connectrpc.com/connect"

	"github.com/espalier-ml/espalier/coordinator/store"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// Members is the store as those see it who look after the cluster.
type Members interface {
	// Add makes a started replica a member, and returns when it has caught up.
	Add(ctx context.Context, id, address string) error
	// Remove takes a member out, unless no majority would be left that answers; force does it all the same.
	Remove(ctx context.Context, id string, force bool) error
	Transfer(ctx context.Context, id string) error
	Status() store.Status
	// Ready tells how many committed entries this replica lacks, and as an error why it cannot serve.
	Ready() (behind uint64, err error)
	// Cluster is the cluster's id.
	Cluster() string
	// Backup writes a copy of the records and returns the last log index in it.
	Backup(ctx context.Context, w io.Writer) (applied uint64, err error)
}

// Replicas implements ClusterService.
func (s *service) Replicas(ctx context.Context, req *v1.ReplicasRequest) (*v1.ReplicasResponse, error) {
	st := s.cfg.Members.Status()
	out := &v1.ReplicasResponse{
		Id: st.ID, Leader: st.Leader, Term: st.Term, CommitIndex: st.CommitIndex, AppliedIndex: st.AppliedIndex,
		LogBytes: st.LogBytes, StateBytes: st.StateBytes, SinceLeaderMs: st.SinceLeader.Milliseconds(),
		ClusterId: s.cfg.Members.Cluster(), Report: s.report(st),
	}
	for _, m := range st.Members {
		out.Replicas = append(out.Replicas, &v1.ReplicaStatus{
			Id: m.ID, RaftAddress: m.Address, ApiAddress: s.cfg.Cluster.Address(m.ID), Voter: m.Voter, Leader: m.Leader,
			Version: s.cfg.Cluster.Version(m.ID),
		})
	}
	if req.GetAll() {
		s.askAll(ctx, out)
	}
	if !req.GetDigest() {
		return out, nil
	}
	err := s.cfg.Store.View(func(v *store.View) error {
		out.Digest, out.DigestIndex = v.Digest(), v.AppliedIndex()
		return nil
	})
	return out, wrap(err)
}

// AddReplica implements ClusterService.
func (s *service) AddReplica(ctx context.Context, req *v1.AddReplicaRequest) (*v1.AddReplicaResponse, error) {
	err := s.cfg.Members.Add(ctx, req.GetId(), req.GetRaftAddress())
	if err == nil {
		s.log(ctx).Info().Str("replica", req.GetId()).Str("address", req.GetRaftAddress()).Msg("replica added")
	}
	return &v1.AddReplicaResponse{}, wrap(err)
}

// RemoveReplica implements ClusterService.
func (s *service) RemoveReplica(ctx context.Context, req *v1.RemoveReplicaRequest) (*v1.RemoveReplicaResponse, error) {
	err := s.cfg.Members.Remove(ctx, req.GetId(), req.GetForce())
	if err == nil {
		s.log(ctx).Info().Str("replica", req.GetId()).Bool("force", req.GetForce()).Msg("replica removed")
	}
	return &v1.RemoveReplicaResponse{}, wrap(err)
}

// TransferLead implements ClusterService.
func (s *service) TransferLead(ctx context.Context, req *v1.TransferLeadRequest) (*v1.TransferLeadResponse, error) {
	err := s.cfg.Members.Transfer(ctx, req.GetId())
	if err == nil {
		s.log(ctx).Info().Str("replica", req.GetId()).Msg("lead given to another")
	}
	return &v1.TransferLeadResponse{}, wrap(err)
}

// Backup implements ClusterService. The copy has everything that was committed before the call.
func (s *service) Backup(ctx context.Context, _ *v1.BackupRequest, stream *connect.ServerStream[v1.BackupResponse]) error {
	if err := s.cfg.Store.Linearizable(ctx); err != nil {
		return wrap(err)
	}
	applied, err := s.cfg.Members.Backup(ctx, backupWriter{stream})
	if err != nil {
		return wrap(err)
	}
	return stream.Send(&v1.BackupResponse{AppliedIndex: applied})
}

// backupWriter sends what is written in messages of bounded size.
type backupWriter struct {
	stream *connect.ServerStream[v1.BackupResponse]
}

// Write implements io.Writer.
func (w backupWriter) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		part := p[:min(len(p), chunkBytes)]
		if err := w.stream.Send(&v1.BackupResponse{Data: part}); err != nil {
			return n, err
		}
		n += len(part)
		p = p[len(part):]
	}
	return n, nil
}
