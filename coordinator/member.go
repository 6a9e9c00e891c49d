package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/espalier-ml/espalier/coordinator/broker"
	"github.com/espalier-ml/espalier/coordinator/store"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/proto/espalier/v1/espalierv1connect"
)

var (
	// ErrRemoved says that this replica was removed from its cluster: its folder is of no more use.
	ErrRemoved = errors.New("this replica was removed from its cluster")
	// ErrMember says that a replica of this name is a member already, with another folder.
	ErrMember = errors.New("a replica of this name is a member already")
	// errNoLeader says that nobody who was asked knows a leader that answers.
	errNoLeader = errors.New("no leader answers")
)

const (
	// joinTimeout bounds the wait for membership.
	joinTimeout = 2 * time.Minute
	// memberInterval is how often a replica looks whether it is still one.
	memberInterval = time.Second
	// askTimeout bounds a question to one replica.
	askTimeout = 2 * time.Second
)

// clusterClient asks the replica at an API address.
func (s *Server) clusterClient(address string) espalierv1connect.ClusterServiceClient {
	return espalierv1connect.NewClusterServiceClient(s.peerHTTP, s.url(address), s.withToken())
}

// withToken shows the cluster's token to other replicas.
func (s *Server) withToken() connect.ClientOption {
	return connect.WithInterceptors(connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			req.Header().Set("Authorization", "Bearer "+s.cfg.Tokens.Shown())
			return next(ctx, req)
		}
	}))
}

// recorded is what the records hold of a replica; nil if nothing.
func (s *Server) recorded(id string) (r *v1.Replica) {
	_ = s.store.View(func(v *store.View) error { // closing: nothing
		r = v.Replica(id)
		return nil
	})
	return r
}

// known is what a replica tells of itself, or else what the records hold of it; nil if neither.
func (s *Server) known(id string) *v1.Replica {
	if s.peers != nil { // the records are there before it is
		if p, told := s.peers.Get(id); told {
			return asReplica(p)
		}
	}
	return s.recorded(id)
}

// asReplica is what a replica tells of itself, as it is recorded.
func asReplica(p broker.Peer) *v1.Replica {
	return &v1.Replica{Id: p.ID, RaftAddress: p.Raft, ApiAddress: p.API, BrokerAddress: p.Route, Version: p.Version, Commands: p.Commands}
}

// knownAddresses lists API addresses at which other replicas may answer: those named at the start, those heard of, those recorded.
func (s *Server) knownAddresses() []string {
	out := slices.Clone(s.cfg.Join)
	if s.store == nil {
		return out
	}
	members, _ := s.store.Members() // none while closing
	for _, m := range members {
		if m.ID == s.store.ID() {
			continue
		}
		address := s.known(m.ID).GetApiAddress()
		if address != "" && !slices.Contains(out, address) {
			out = append(out, address)
		}
	}
	return out
}

// askLeader asks the cluster's leader for the members: who else answers is only asked where the leader is.
func (s *Server) askLeader(ctx context.Context) (*v1.ReplicasResponse, string, error) {
	err := errNoLeader
	ask := func(address string) *v1.ReplicasResponse {
		asking, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		r, e := s.clusterClient(address).Replicas(asking, &v1.ReplicasRequest{})
		if e != nil {
			err = fmt.Errorf("%w: %s: %w", errNoLeader, address, e)
		}
		return r
	}
	for _, address := range s.knownAddresses() {
		r := ask(address)
		if r == nil {
			continue
		}
		if r.GetId() == r.GetLeader() {
			return r, address, nil
		}
		for _, m := range r.GetReplicas() {
			if m.GetLeader() && m.GetApiAddress() != "" {
				if l := ask(m.GetApiAddress()); l != nil && l.GetId() == l.GetLeader() {
					return l, m.GetApiAddress(), nil
				}
			}
		}
	}
	return nil, "", err
}

// admit is asked before a fresh replica listens. It waits until the cluster answers, and refuses a name that has a vote
// there: such a replica would have forgotten what it acknowledged.
func (s *Server) admit(ctx context.Context) func(id string) error {
	return func(id string) error {
		for {
			r, _, err := s.askLeader(ctx)
			if err == nil {
				s.joining = r
				return s.checkName(r, id)
			}
			s.log.Warn().Err(err).Strs("join", s.cfg.Join).Msg("the cluster does not answer yet, trying again")
			select {
			case <-ctx.Done():
				return fmt.Errorf("join %s: %w: %w", strings.Join(s.cfg.Join, ", "), ctx.Err(), err)
			case <-time.After(retryLead):
			}
		}
	}
}

func (s *Server) checkName(r *v1.ReplicasResponse, id string) error {
	for _, m := range r.GetReplicas() {
		if m.GetId() == id && m.GetVoter() {
			return fmt.Errorf("%w: the cluster has replica %s at %s, but folder %s is new: start with the folder it had; or, if that is lost, "+
				"`espalier cluster remove %s` first; or choose another id", ErrMember, id, m.GetRaftAddress(), s.cfg.Dir, id)
		}
	}
	return nil
}

// routes are where the brokers of the other replicas may be: as told at the start, as recorded, and as those who answer say.
// A replica that is a member starts without when nobody answers: after all were down the first one must come up alone.
func (s *Server) routes(ctx context.Context) []string {
	out := slices.Clone(s.cfg.BrokerRoutes)
	add := func(address string) {
		if address != "" && !slices.Contains(out, address) {
			out = append(out, address)
		}
	}
	members, _ := s.store.Members()
	for _, m := range members {
		if m.ID != s.store.ID() {
			add(s.recorded(m.ID).GetBrokerAddress())
		}
	}
	for _, address := range s.knownAddresses() {
		for _, r := range s.askRoutes(ctx, address) {
			add(r)
		}
	}
	return out
}

// startMember makes a fresh replica a member of the cluster that Join names, and then looks after the membership. Its
// end gives the lead away, before anything else stops, so that a restart costs no election.
func (s *Server) startMember(ctx context.Context) (func(context.Context) error, error) {
	if s.cfg.RaftListen == "" {
		return func(context.Context) error { return nil }, nil
	}
	if s.joining != nil {
		if err := s.join(ctx); err != nil {
			return nil, err
		}
	}
	keeping, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() { s.keepMember(keeping) })
	return func(context.Context) error {
		cancel()
		work.Wait()
		s.store.HandOver()
		return nil
	}, nil
}

// join asks the leader to add this replica, until it has a vote.
func (s *Server) join(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	for {
		_, leader, err := s.askLeader(ctx)
		if err == nil {
			_, err = s.clusterClient(leader).AddReplica(ctx, s.asMember())
		}
		if err == nil {
			return nil
		}
		if code := connect.CodeOf(err); code == connect.CodeAlreadyExists || code == connect.CodeInvalidArgument {
			return fmt.Errorf("join %s: %w", strings.Join(s.cfg.Join, ", "), err)
		}
		s.log.Warn().Err(err).Strs("join", s.cfg.Join).Msg("not a member yet, trying again")
		select {
		case <-ctx.Done():
			return fmt.Errorf("join %s: %w", strings.Join(s.cfg.Join, ", "), err)
		case <-time.After(retryLead):
		}
	}
}

func (s *Server) asMember() *v1.AddReplicaRequest {
	return &v1.AddReplicaRequest{Id: s.store.ID(), RaftAddress: s.store.Address()}
}

// keepMember looks after the membership until ctx ends: a replica that hears of no leader may have come back at another
// address, or have been removed while it was away.
func (s *Server) keepMember(ctx context.Context) {
	tick := time.NewTicker(memberInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if s.settled() {
			continue
		}
		if err := s.settle(ctx); err != nil {
			s.fail(err)
			return
		}
	}
}

// fail tells the server's owner to close it; the first reason counts.
func (s *Server) fail(err error) {
	select {
	case s.failed <- err:
	default:
	}
}

// settled tells whether this replica is a voter at its address, as far as it knows, and hears from a leader.
func (s *Server) settled() bool {
	if _, known := s.store.Leader(); !known {
		return false
	}
	members, err := s.store.Members()
	if err != nil {
		return true // closing
	}
	return slices.ContainsFunc(members, func(m store.Member) bool {
		return m.ID == s.store.ID() && m.Voter && m.Address == s.store.Address()
	})
}

// settle asks the leader what this replica is to the cluster. An error is for good.
func (s *Server) settle(ctx context.Context) error {
	r, leader, err := s.askLeader(ctx)
	if err != nil {
		return nil // nobody can tell; asked again
	}
	if r.GetClusterId() != s.store.Cluster() {
		return fmt.Errorf("%w: folder %s is of cluster %q, at %s is cluster %q: start with a new folder to join it", store.ErrOtherCluster,
			s.cfg.Dir, s.store.Cluster(), leader, r.GetClusterId())
	}
	for _, m := range r.GetReplicas() {
		if m.GetId() != s.store.ID() {
			continue
		}
		if m.GetVoter() && m.GetRaftAddress() == s.store.Address() {
			return nil // it will be heard of here soon
		}
		s.log.Info().Str("from", m.GetRaftAddress()).Str("to", s.store.Address()).Bool("voter", m.GetVoter()).Msg("telling the cluster of this replica")
		if _, err := s.clusterClient(leader).AddReplica(ctx, s.asMember()); err != nil {
			s.log.Warn().Err(err).Msg("not told, trying again")
		}
		return nil
	}
	return fmt.Errorf("%w: %s, folder %s; to add it anew, start it with another folder", ErrRemoved, s.store.ID(), s.cfg.Dir)
}

// recordReplicas keeps, while this replica leads, the records of where replicas are in line with what they tell: they find
// each other by them after a restart.
func (s *Server) recordReplicas(ctx context.Context) {
	tick := time.NewTicker(memberInterval)
	defer tick.Stop()
	for {
		if cmds := s.replicaChanges(); len(cmds) > 0 {
			if _, err := s.store.Apply(ctx, cmds...); err != nil && ctx.Err() == nil {
				s.log.Debug().Err(err).Msg("addresses of replicas not recorded, trying again")
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// replicaChanges are the commands that the records lack.
func (s *Server) replicaChanges() (cmds []*v1.Command) {
	members, err := s.store.Members()
	if err != nil {
		return nil // closing
	}
	now := time.Now()
	is := map[string]bool{}
	for _, m := range members {
		is[m.ID] = true
		p, known := s.peers.Get(m.ID)
		if !known || m.ID != s.store.ID() && now.Sub(p.Heard) > 5*memberInterval {
			continue
		}
		next := asReplica(p)
		next.RaftAddress = m.Address // where the others reach it
		if old := s.recorded(m.ID); !proto.Equal(old, next) {
			cmds = append(cmds, &v1.Command{TimeMs: now.UnixMilli(), Op: &v1.Command_PutReplica{PutReplica: &v1.PutReplica{Replica: next}}})
		}
	}
	_ = s.store.View(func(v *store.View) error { // closing: nothing
		for _, r := range v.Replicas() {
			if !is[r.GetId()] {
				cmds = append(cmds, &v1.Command{TimeMs: now.UnixMilli(), Op: &v1.Command_DropReplica{DropReplica: &v1.DropReplica{Id: r.GetId()}}})
			}
		}
		return nil
	})
	return cmds
}
