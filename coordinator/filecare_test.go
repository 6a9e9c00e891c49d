package coordinator_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/espalier-ml/espalier/client/clienttest"
	"github.com/espalier-ml/espalier/coordinator"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// caring is a cluster that looks after its files often.
type caring struct {
	t       *testing.T
	dirs    []string
	servers []*coordinator.Server
	users   []*user
}

func newCaring(t *testing.T, n int) *caring {
	t.Helper()
	c := &caring{t: t}
	for range n {
		c.add()
	}
	return c
}

func (c *caring) add() {
	c.t.Helper()
	cfg := coordinator.Config{Dir: c.t.TempDir(), ReplicaID: string(rune('a' + len(c.dirs))), RaftListen: clienttest.Unused(c.t), NoSync: true,
		Version: "test", Lease: 4 * time.Second, ScrubEvery: 200 * time.Millisecond}
	coordinator.FastSweeps(&cfg)
	if len(c.servers) > 0 {
		cfg.Join = []string{c.servers[0].Address()}
	}
	s, err := coordinator.Start(c.t.Context(), cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { stop(c.t, s) })
	u := dial(s.Address())
	c.t.Cleanup(u.transport.CloseIdleConnections)
	c.dirs, c.servers, c.users = append(c.dirs, cfg.Dir), append(c.servers, s), append(c.users, u)
}

func (c *caring) path(replica int, hash string) string {
	return filepath.Join(c.dirs[replica], "files", hash[:2], hash[2:4], hash)
}

// holders counts the replicas that have the very content.
func (c *caring) holders(hash, content string) (n int) {
	for i := range c.dirs {
		if b, err := os.ReadFile(c.path(i, hash)); err == nil && string(b) == content {
			n++
		}
	}
	return n
}

func (c *caring) content(hash string) string {
	c.t.Helper()
	for i := range c.dirs {
		if b, err := os.ReadFile(c.path(i, hash)); err == nil {
			return string(b)
		}
	}
	c.t.Fatalf("%s is nowhere", hash)
	return ""
}

// remove takes a file from all replicas.
func (c *caring) remove(hash string) {
	c.t.Helper()
	for i := range c.dirs {
		if err := os.Remove(c.path(i, hash)); err != nil && !errors.Is(err, os.ErrNotExist) {
			c.t.Fatal(err)
		}
	}
}

func (c *caring) front(ctx context.Context) *v1.Front {
	c.t.Helper()
	got, err := c.users[0].jobs.Front(ctx, &v1.FrontRequest{Job: "job"})
	if err != nil {
		c.t.Fatal(err)
	}
	return got.GetFront()
}

func (c *caring) notes(ctx context.Context) string {
	got, err := c.users[0].jobs.Get(ctx, &v1.GetRequest{Job: "job"})
	if err != nil {
		return err.Error()
	}
	return strings.Join(got.GetStatus().GetNotes(), "\n")
}

// voters is the least number of voters with a known address that a replica knows.
func (c *caring) voters(ctx context.Context) int {
	least := len(c.users)
	for _, u := range c.users {
		n := 0
		got, err := u.cluster.Replicas(ctx, &v1.ReplicasRequest{})
		for _, r := range got.GetReplicas() {
			if err == nil && r.GetVoter() && r.GetApiAddress() != "" {
				n++
			}
		}
		least = min(least, n)
	}
	return least
}

// TestFilesAreCaredFor: a file that is damaged or missing on one replica comes from another one. One that all lost is made
// again: the same, or another one beside the record, and that is said; no trial counts twice and the front stays. A replica
// that joins late gets all files.
func TestFilesAreCaredFor(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: long: three replicas with a job")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	c := newCaring(t, 3)
	eventually(t, "three voters that know each other's addresses", func() bool { return c.voters(ctx) == 3 })
	dismiss := crew(t, c.servers[1], c.users[1], 2)
	job := submit(ctx, t, c.users[0], 12)
	settle(ctx, t, c.users[0], job.GetId())
	before := c.front(ctx)
	if len(before.GetMembers()) < 2 {
		t.Fatalf("%d members, want 2 or more", len(before.GetMembers()))
	}
	dismiss()
	first, second := before.GetMembers()[0].GetArtifact(), before.GetMembers()[1].GetArtifact()
	content, other := c.content(first), c.content(second)
	everywhere := func(what, hash, content string) {
		t.Helper()
		eventually(t, what, func() bool { return c.holders(hash, content) == len(c.dirs) })
	}
	everywhere("the first file on all replicas", first, content)
	everywhere("the second file on all replicas", second, other)

	for i := range c.dirs {
		if err := os.WriteFile(c.path(i, first), []byte(strings.ToUpper(content)), 0o600); err != nil {
			t.Fatal(err)
		}
		everywhere(fmt.Sprintf("a file damaged on replica %d from another one", i), first, content)
		if err := os.Remove(c.path(i, first)); err != nil {
			t.Fatal(err)
		}
		everywhere(fmt.Sprintf("a file missing on replica %d from another one", i), first, content)
	}
	if n := c.notes(ctx); n != "" {
		t.Errorf("notes of files that came from other replicas: %s", n)
	}

	// A replica that misses it at once may still get it from one that does not: so it is removed again and again.
	lost := func(what, hash string) {
		t.Helper()
		eventually(t, what, func() bool {
			c.remove(hash)
			return strings.Contains(c.notes(ctx), "lost on all replicas")
		})
	}
	lost("a file that all lost is said to be lost", first)
	dismiss = crew(t, c.servers[1], c.users[1], 2)
	everywhere("a file that all lost made again", first, content)
	eventually(t, "that is said", func() bool { return strings.Contains(c.notes(ctx), "with the same checksum") })
	dismiss()

	lost("the second one is said to be lost", second)
	dismiss = crewOf(t, c.servers[1], c.users[1], 1, "another build")
	eventually(t, "another file is made instead, and said", func() bool { return strings.Contains(c.notes(ctx), "with other checksums") })
	dismiss()
	if n := c.holders(second, other); n != 0 {
		t.Errorf("%d replicas have the lost file", n)
	}

	after := c.front(ctx)
	noted := 0
	for _, m := range after.GetMembers() {
		if m.GetNote() != "" {
			noted++
		}
		m.Note = ""
	}
	for _, m := range before.GetMeasured() {
		m.Note = ""
	}
	for _, m := range after.GetMeasured() {
		m.Note = ""
	}
	if noted != 2 || !proto.Equal(before, after) {
		t.Errorf("%d members with a note; before\n%v\nafter\n%v", noted, before, after)
	}
	got, err := c.users[0].jobs.Get(ctx, &v1.GetRequest{Job: "job"})
	if err != nil {
		t.Fatal(err)
	}
	if j := got.GetStatus().GetJob(); j.GetCompleted() != 12 || j.GetFailed() != 0 || j.GetLastTrial() != 12 || j.GetState() != v1.JobState_JOB_STATE_DONE || j.GetRemaking() != 0 {
		t.Errorf("afterwards %v, %d completed, %d failed, %d made again", j.GetState(), j.GetCompleted(), j.GetFailed(), j.GetRemaking())
	}
	c.add() // returns when it has a vote
	if n := c.holders(first, content); n != 4 {
		t.Errorf("%d of 4 voters have a file, want all", n)
	}
}
