package coordinator

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/espalier-ml/espalier/coordinator/store"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

const (
	// seekInterval is the time between two looks for brokers that are not connected.
	seekInterval = time.Second
	// seekTimeout bounds the question to one replica.
	seekTimeout = 2 * time.Second
)

// startSeeking runs seek until the returned function is called.
func (s *Server) startSeeking() (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() { s.seek(ctx) })
	return func() error {
		cancel()
		work.Wait()
		return nil
	}
}

// seek connects this broker to the other replicas' whenever one is missing, until ctx ends. At the start there may be
// nobody to ask: after a power cut all replicas start at once, none answers the others, and what is recorded of them is
// only known when they have a leader. Their brokers must find each other all the same, since workers and files go that way.
func (s *Server) seek(ctx context.Context) {
	tick := time.NewTicker(seekInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		members, err := s.store.Members()
		if err != nil {
			continue // closing
		}
		if stats, err := s.broker.Stats(); err != nil || stats.Routes >= len(members)-1 {
			continue
		}
		apis, routes := s.whereabouts(members)
		for _, a := range apis {
			routes = append(routes, s.askRoutes(ctx, a)...)
		}
		if err := s.broker.AddRoutes(routes); err != nil {
			s.log.Warn().Err(err).Strs("routes", routes).Msg("brokers not connected, trying again")
		}
	}
}

// whereabouts lists where the other members' APIs and brokers may be: as told at the start, as heard of, as recorded.
func (s *Server) whereabouts(members []store.Member) (apis, routes []string) {
	apis = slices.Clone(s.cfg.Join)
	_ = s.store.View(func(v *store.View) error { // closing: nothing is recorded
		for _, m := range members {
			if m.ID == s.store.ID() {
				continue
			}
			p, _ := s.peers.Get(m.ID)
			r := v.Replica(m.ID)
			apis = append(apis, p.API, r.GetApiAddress())
			routes = append(routes, p.Route, r.GetBrokerAddress())
		}
		return nil
	})
	slices.Sort(apis)
	return slices.DeleteFunc(slices.Compact(apis), func(a string) bool { return a == "" || a == s.address }), routes
}

// askRoutes asks a replica where the brokers are that it knows; none if it does not answer.
func (s *Server) askRoutes(ctx context.Context, address string) []string {
	ctx, cancel := context.WithTimeout(ctx, seekTimeout)
	defer cancel()
	info, err := s.clusterClient(address).Info(ctx, &v1.InfoRequest{})
	if err != nil {
		s.log.Debug().Err(err).Str("address", address).Msg("replica does not tell where brokers are")
	}
	return info.GetBrokerRoutes()
}
