package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/rs/zerolog"
	"google.golang.org/protobuf/encoding/protowire"

	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// fill gives a store a job with finished, failed and running trials.
func fill(t testing.TB, s applies, job string, trials int32) {
	t.Helper()
	must(t, s, submit(1000, job, "local", "pi4"))
	must(t, s, worker(1001, "w", "s"))
	must(t, s, lease(1002, job+"/baseline", "b-"+job, "w", "s"))
	must(t, s, reportBaseline(1003, job+"/baseline", 1, "w", "s"))
	for n := int32(1); n <= trials; n++ {
		task := TaskID(job, kindTrial, n, "")
		must(t, s, newTrial(int64(2000+n), job, n, fmt.Sprintf("t-%s-%d", job, n), "w", "s"))
		switch n % 4 {
		case 0:
			must(t, s, reportFailure(int64(3000+n), task, 1, "w", "s", true))
		case 1:
		default:
			must(t, s, reportTrial(int64(3000+n), task, 1, "w", "s", n, 0.5+float64(n%7)/20, int64(100+n%5)))
			measure := TaskID(job, kindMeasure, n, "local")
			must(t, s, lease(int64(4000+n), measure, fmt.Sprintf("m-%s-%d", job, n), "w", "s"))
			must(t, s, reportMeasure(int64(5000+n), measure, 1, "w", "s", "local", n, int64(100+n%5), int64(10+n%3)))
		}
	}
}

func closeStore(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// copyDir copies a store's folder: what a crash at this moment would leave.
func copyDir(t testing.TB, from string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

func TestInUse(t *testing.T) {
	cfg := testConfig(t.TempDir())
	open(t, cfg)
	_, err := Open(t.Context(), cfg)
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), cfg.Dir) {
		t.Fatalf("%v, want ErrInUse naming %s", err, cfg.Dir)
	}
}

func TestReplicaID(t *testing.T) {
	cfg := testConfig(t.TempDir())
	cfg.ID = ""
	s := open(t, cfg)
	id := s.ID()
	if leader, ok := s.Leader(); !ok || leader != id || id == "" {
		t.Errorf("leader %q, %t, want %q", leader, ok, id)
	}
	closeStore(t, s)
	cfg.ID = "other"
	if _, err := Open(t.Context(), cfg); !errors.Is(err, ErrConfig) {
		t.Errorf("another id: %v, want ErrConfig", err)
	}
	cfg.ID = id
	if s := open(t, cfg); s.ID() != id {
		t.Errorf("id %q, want %q", s.ID(), id)
	}
}

// TestFullLog: the log may not grow. What was acknowledged stays; the store says why
// it stopped, and goes on when it is opened with room.
func TestFullLog(t *testing.T) {
	cfg := testConfig(t.TempDir())
	cfg.MaxLogBytes = 128 << 10
	s := open(t, cfg)
	var acknowledged []string
	var failure error
	for i := 0; i < 10_000 && failure == nil; i++ {
		id := fmt.Sprint("job-", i)
		_, err := s.Apply(t.Context(), submit(1, id, "local"))
		if err != nil {
			failure = err
			break
		}
		acknowledged = append(acknowledged, id)
	}
	if !errors.Is(failure, ErrUncertain) || !errors.Is(failure, ErrFull) {
		t.Fatalf("%v, want ErrUncertain and ErrFull", failure)
	}
	<-s.Failed()
	if err := s.Err(); !errors.Is(err, ErrFailed) || !errors.Is(err, ErrFull) {
		t.Errorf("Err %v, want ErrFailed and ErrFull", err)
	}
	if _, err := s.Apply(t.Context(), submit(1, "more", "local")); !errors.Is(err, ErrNotLeader) {
		t.Errorf("apply afterwards: %v, want ErrNotLeader", err)
	}
	closeStore(t, s)
	cfg.MaxLogBytes = 0
	s = open(t, cfg)
	err := s.View(func(v *View) error {
		for _, id := range acknowledged {
			if v.Job(id) == nil {
				t.Errorf("%s was acknowledged and is lost", id)
			}
		}
		return nil
	})
	if err != nil || len(acknowledged) == 0 {
		t.Fatalf("%d acknowledged, %v", len(acknowledged), err)
	}
	must(t, s, submit(1, "more", "local"))
}

// TestFailingState: the state file cannot be written any more. Nothing of the entry is
// there half, and all of it after opening again.
func TestFailingState(t *testing.T) {
	cfg := testConfig(t.TempDir())
	s := open(t, cfg)
	fill(t, s, "j", 4)
	before := digest(t, s)
	s.fsm.db.MaxSize = 1 // any growth fails
	var err error
	for i := 0; i < 10_000 && err == nil; i++ {
		before = digest(t, s)
		_, err = s.Apply(t.Context(), submit(1, fmt.Sprint("job-", i), "local"))
	}
	if !errors.Is(err, ErrUncertain) || !errors.Is(err, ErrFull) {
		t.Fatalf("%v, want ErrUncertain and ErrFull", err)
	}
	if got := digest(t, s); got != before {
		t.Error("a failed entry changed the state")
	}
	closeStore(t, s)
	s = open(t, cfg)
	if got := digest(t, s); got == before {
		t.Error("the committed entry is lost")
	}
}

func TestGroupCommit(t *testing.T) {
	cfg := testConfig(t.TempDir())
	cfg.NoSync = false // the time of an fsync is what calls gather in
	s := open(t, cfg)
	before := s.logs.last
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			id := fmt.Sprint("j", i)
			r, err := s.Apply(t.Context(), submit(1, id, "local"), submit(2, id, "local"))
			if err != nil || len(r) != 2 || r[0].Job.GetId() != id || len(r[0].Created) != 1 || r[1].Job.GetId() != id || len(r[1].Created) != 0 {
				t.Errorf("%s: %+v, %v: want one job, made once", id, r, err)
			}
		})
	}
	wg.Wait()
	if n := s.logs.last - before; n >= 200 {
		t.Errorf("200 concurrent calls made %d entries", n)
	}
}

func TestApplyContext(t *testing.T) {
	s := open(t, testConfig(t.TempDir()))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Apply(ctx, submit(1, "j", "local")); !errors.Is(err, context.Canceled) || errors.Is(err, ErrUncertain) {
		t.Errorf("canceled before: %v", err)
	}
	if r, err := s.Apply(t.Context()); r != nil || err != nil {
		t.Errorf("no commands: %v, %v", r, err)
	}
}

func TestNotLeader(t *testing.T) {
	cfg := testConfig(t.TempDir())
	cfg.Bootstrap = false
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer closeStore(t, s)
	_, err = s.Apply(t.Context(), submit(1, "j", "local"))
	for what, err := range map[string]error{"apply": err, "barrier": s.Barrier(t.Context()), "linearizable": s.Linearizable(t.Context())} {
		if !errors.Is(err, ErrNotLeader) {
			t.Errorf("%s: %v, want ErrNotLeader", what, err)
		}
	}
}

func TestClosed(t *testing.T) {
	s := open(t, testConfig(t.TempDir()))
	changes, _ := s.Subscribe()
	closeStore(t, s)
	closeStore(t, s)
	if _, ok := <-changes; ok {
		t.Error("changes after Close")
	}
	for range s.Leadership() {
		continue // ends, since it is closed
	}
	if err := s.View(func(*View) error { return nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("view: %v, want ErrClosed", err)
	}
	if err := s.Barrier(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("barrier: %v, want ErrClosed", err)
	}
	if _, err := s.Apply(t.Context(), submit(1, "j", "local")); err == nil {
		t.Error("apply after Close")
	}
}

// TestLinearizable: what was applied before is seen after, also when the last entries
// are none that the state knows of.
func TestLinearizable(t *testing.T) {
	s := open(t, testConfig(t.TempDir()))
	for i := range 20 {
		id := fmt.Sprint("j", i)
		must(t, s, submit(1, id, "local"))
		if i%3 == 0 {
			if err := s.Barrier(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Linearizable(t.Context()); err != nil {
			t.Fatal(err)
		}
		err := s.View(func(v *View) error {
			if v.Job(id) == nil {
				t.Errorf("%s is not seen", id)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestSubscribe(t *testing.T) {
	s := open(t, testConfig(t.TempDir()))
	changes, cancel := s.Subscribe()
	for _, id := range []string{"b", "a", "c", "a"} {
		must(t, s, submit(1, id, "local"))
	}
	must(t, s, worker(1, "w", "s"))
	if c := <-changes; !slices.Equal(c.Jobs, []string{"a", "b", "c"}) || c.Index != s.AppliedIndex() || !c.Cluster {
		t.Errorf("%+v: want a, b, c up to %d", c, s.AppliedIndex())
	}
	must(t, s, submit(1, "d", "local"))
	if c := <-changes; !slices.Equal(c.Jobs, []string{"d"}) || c.Cluster {
		t.Errorf("%+v: want d alone", c)
	}
	cancel()
	cancel()
	if _, ok := <-changes; ok {
		t.Error("a change after cancel")
	}
}

// TestUndecodableEntry: other replicas have these bytes too; going on would make the
// states differ.
func TestUndecodableEntry(t *testing.T) {
	l := openLocal(t)
	defer func() {
		if r := recover(); r == nil || !strings.Contains(fmt.Sprint(r), "entry 77") {
			t.Errorf("recovered %v, want a panic naming entry 77", r)
		}
	}()
	l.fsm.Apply(&raft.Log{Index: 77, Type: raft.LogCommand, Data: []byte{0xff, 0xff}})
}

// newerCommand is of a kind that this build does not know.
func newerCommand() *v1.Command {
	c := &v1.Command{TimeMs: 1}
	c.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 9999, protowire.VarintType), 1))
	return c
}

// TestNewerCommand: a command that only a newer build knows stops the replica, with
// nothing of its entry done; an upgraded one goes on.
func TestNewerCommand(t *testing.T) {
	s := open(t, testConfig(t.TempDir()))
	must(t, s, submit(1, "a", "local"))
	before := digest(t, s)
	_, err := s.commits.apply(t.Context(), []*v1.Command{submit(2, "b", "local"), newerCommand()}) // past the gate
	if !errors.Is(err, ErrUncertain) || !errors.Is(err, ErrNewer) {
		t.Fatalf("%v, want ErrUncertain and ErrNewer", err)
	}
	<-s.Failed()
	if err := s.Err(); !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), "entry ") {
		t.Errorf("%v, want ErrNewer naming the entry", err)
	}
	if got := digest(t, s); got != before {
		t.Error("a part of the entry was applied")
	}
}

// TestBarrierBehindFailure: an entry before the barrier could not be applied. The state lacks it, so whoever reads next must
// not take it for all that was committed.
func TestBarrierBehindFailure(t *testing.T) {
	s := open(t, testConfig(t.TempDir()))
	tx, err := s.fsm.db.Begin(true) // holds the state up
	if err != nil {
		t.Fatal(err)
	}
	appended := func(f func()) {
		t.Helper()
		last, err := s.logs.LastIndex()
		if err != nil {
			t.Fatal(err)
		}
		go f()
		eventually(t, "an entry more", func() bool {
			now, err := s.logs.LastIndex()
			return err == nil && now > last
		})
	}
	applied, passed := make(chan error, 1), make(chan error, 1)
	appended(func() {
		_, err := s.commits.apply(t.Context(), []*v1.Command{newerCommand()})
		applied <- err
	})
	appended(func() { passed <- s.Barrier(t.Context()) })
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := <-applied; !errors.Is(err, ErrNewer) {
		t.Errorf("apply: %v, want ErrNewer", err)
	}
	if err := <-passed; err == nil {
		t.Error("the barrier was passed")
	}
}

func TestEntryAppliedOnce(t *testing.T) {
	l := openLocal(t)
	data, err := entryOf([]*call{{cmds: []*v1.Command{submit(1, "a", "local"), worker(1, "w", "s")}}})
	if err != nil {
		t.Fatal(err)
	}
	lease1, err := entryOf([]*call{{cmds: []*v1.Command{lease(1, "a/baseline", "r", "w", "s")}}})
	if err != nil {
		t.Fatal(err)
	}
	end, err := entryOf([]*call{{cmds: []*v1.Command{endLease(1, "a/baseline", 1)}}})
	if err != nil {
		t.Fatal(err)
	}
	logs := []*raft.Log{
		{Index: 5, Type: raft.LogCommand, Data: data},
		{Index: 6, Type: raft.LogCommand, Data: lease1},
		{Index: 7, Type: raft.LogConfiguration},
		{Index: 8, Type: raft.LogCommand, Data: end},
	}
	l.fsm.ApplyBatch(logs)
	want := digest(t, l)
	for _, entry := range logs {
		l.fsm.Apply(entry)
	}
	l.fsm.ApplyBatch(logs)
	if got := digest(t, l); got != want || l.fsm.applied.get() != 8 {
		t.Errorf("entries applied twice: applied %d", l.fsm.applied.get())
	}
}

func TestConfig(t *testing.T) {
	cases := []struct {
		cfg  Config
		want string
	}{
		{Config{}, "Dir"},
		{Config{Dir: "x", ID: "a/b"}, "ID"},
		{Config{Dir: "x", Address: "nonsense"}, "Address"},
		{Config{Dir: "x", Advertise: "host:1"}, "Advertise"},
		{Config{Dir: "x", Election: time.Microsecond}, "Election"},
		{Config{Dir: "x", SnapshotInterval: time.Microsecond}, "SnapshotInterval"},
		{Config{Dir: "x", MaxLogBytes: -1}, "MaxLogBytes"},
	}
	for _, c := range cases {
		if err := c.cfg.Validate(); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want ErrConfig naming %s", c.cfg, err, c.want)
		}
	}
	if err := (Config{Dir: "x", Address: "127.0.0.1:0"}).Validate(); err != nil {
		t.Error(err)
	}
}

func TestRaftLog(t *testing.T) {
	var b bytes.Buffer
	l := newRaftLog(zerolog.New(&b).Level(zerolog.InfoLevel)).Named("part").With("term", 3)
	l.Info("too small")
	l.Warn("it happened", "error", errors.New("because"), "n", 5)
	if want := `{"level":"warn","from":"raft.part","term":"3","error":"because","n":"5","message":"it happened"}`; strings.TrimSpace(b.String()) != want {
		t.Errorf("%s, want %s", b.String(), want)
	}
}
