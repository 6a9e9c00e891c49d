package coordinator_test

import (
	"context"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/espalier-ml/espalier/client/clienttest"
	"github.com/espalier-ml/espalier/coordinator"
	"github.com/espalier-ml/espalier/coordinator/store"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// replicas starts a cluster of n.
func replicas(t *testing.T, n int) []*coordinator.Server {
	t.Helper()
	var out []*coordinator.Server
	for i := range n {
		cfg := coordinator.Config{Dir: t.TempDir(), ReplicaID: string(rune('a' + i)), RaftListen: clienttest.Unused(t), NoSync: true,
			Version: "test", Lease: 4 * time.Second}
		if i > 0 {
			cfg.Join = []string{out[0].Address()}
		}
		s, err := coordinator.Start(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { stop(t, s) })
		out = append(out, s)
	}
	return out
}

// eventually waits until ok, which must come about soon.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come about", what)
		}
	}
}

// TestThreeReplicas: any replica answers for the leader; when the leader goes away in mid-search another one goes on, and
// every trial counts once.
func TestThreeReplicas(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: long: replicas in one process")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	all := replicas(t, 3)
	users := make([]*user, len(all))
	for i, s := range all {
		users[i] = dial(s.Address())
		defer users[i].transport.CloseIdleConnections()
	}
	eventually(t, "three voters that know each other's addresses", func() bool {
		for _, u := range users {
			got, err := u.cluster.Replicas(ctx, &v1.ReplicasRequest{})
			if err != nil || len(got.GetReplicas()) != 3 || got.GetLeader() == "" {
				return false
			}
			for _, r := range got.GetReplicas() {
				if !r.GetVoter() || r.GetApiAddress() == "" {
					return false
				}
			}
		}
		return true
	})
	for _, s := range all {
		eventually(t, "each replica's record of which commands the others know", func() bool {
			for _, id := range []string{"a", "b", "c"} {
				if s.CommandsOf(id) != store.Commands {
					return false
				}
			}
			return true
		})
	}
	// Workers and user know the second and the third replica only.
	dismiss := crew(t, all[2], users[1], 3)
	defer dismiss()
	job := submit(ctx, t, users[2], 60)
	completed := func(u *user) int32 {
		got, err := u.jobs.Get(ctx, &v1.GetRequest{Job: job.GetId()})
		if err != nil && connect.CodeOf(err) != connect.CodeUnavailable {
			t.Fatal(err)
		}
		return got.GetStatus().GetJob().GetCompleted()
	}
	eventually(t, "20 trials", func() bool { return completed(users[1]) >= 20 })
	stop(t, all[0]) // the first one leads: it began the cluster
	eventually(t, "all trials after the leader has gone", func() bool { return completed(users[1]) == 60 })
	eventually(t, "all measures", func() bool {
		got, err := users[2].jobs.Get(ctx, &v1.GetRequest{Job: job.GetId()})
		return err == nil && got.GetStatus().GetPendingMeasures() == 0 && len(got.GetStatus().GetRunning()) == 0
	})
	got, err := users[1].jobs.Front(ctx, &v1.FrontRequest{Job: job.GetId()})
	if err != nil {
		t.Fatal(err)
	}
	if f := got.GetFront(); len(f.GetMeasured()) != 60 || len(f.GetMembers()) == 0 {
		t.Errorf("%d measured, %d members", len(f.GetMeasured()), len(f.GetMembers()))
	}
	// What the first replica alone was told is on the others too.
	for _, m := range got.GetFront().GetMembers() {
		st, err := users[1].files.Stat(ctx, &v1.StatRequest{Hashes: []string{m.GetArtifact()}})
		if err != nil {
			t.Fatal(err)
		}
		down, err := users[2].files.Download(ctx, &v1.DownloadRequest{Hash: m.GetArtifact()})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for down.Receive() {
			n += len(down.Msg().GetData())
		}
		if down.Err() != nil || int64(n) != m.GetSizeBytes() {
			t.Errorf("artifact of trial %d: %d of %d bytes, %v; the other replica says %v", m.GetTrial(), n, m.GetSizeBytes(), down.Err(), st.GetFiles())
		}
	}
}

// TestAllAtOnce: after a power cut no replica finds another one at its start, and the one that the others were told of comes
// up last. All find each other, brokers too: a request through any is answered, and each knows where the others are.
func TestAllAtOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: replicas without a leader wait for one")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	var configs []coordinator.Config
	for i := range 3 {
		configs = append(configs, coordinator.Config{Dir: t.TempDir(), ReplicaID: string(rune('a' + i)), Listen: clienttest.Unused(t),
			BrokerListen: clienttest.Unused(t), RaftListen: clienttest.Unused(t), BrokerCluster: clienttest.Unused(t), NoSync: true, Version: "test", Lease: 4 * time.Second})
		if i > 0 {
			configs[i].Join = []string{configs[0].Listen}
		}
	}
	begin := func(order ...int) (all []*coordinator.Server) {
		for _, i := range order {
			s, err := coordinator.Start(t.Context(), configs[i])
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { stop(t, s) })
			all = append(all, s)
		}
		return all
	}
	for _, s := range begin(0, 1, 2) {
		stop(t, s)
	}
	all := begin(2, 1, 0)
	for _, s := range all {
		u := dial(s.Address())
		defer u.transport.CloseIdleConnections()
		eventually(t, "a replica that knows all others", func() bool {
			info, err := u.cluster.Info(ctx, &v1.InfoRequest{})
			if err != nil || len(info.GetReplicas()) != 3 || len(info.GetBrokerUrls()) != 3 {
				return false
			}
			_, err = u.cluster.Workers(ctx, &v1.WorkersRequest{}) // which the leader answers
			return err == nil
		})
	}
}
