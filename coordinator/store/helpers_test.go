package store

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// checkBolt runs bbolt's own consistency check on a closed file.
func checkBolt(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		return
	}
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second})
	if err != nil {
		t.Errorf("check %s: %v", path, err)
		return
	}
	defer db.Close()
	err = db.View(func(tx *bolt.Tx) error {
		for err := range tx.Check() {
			t.Errorf("check %s: %v", path, err)
		}
		return nil
	})
	if err != nil {
		t.Errorf("check %s: %v", path, err)
	}
}

// testConfig is a single replica that is quick to elect itself.
func testConfig(dir string) Config {
	return Config{Dir: dir, ID: "one", Bootstrap: true, NoSync: true, Election: 20 * time.Millisecond}
}

// open opens a store, waits until it leads, and checks its files at the end.
func open(t testing.TB, cfg Config) *Store {
	t.Helper()
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if tt, ok := t.(*testing.T); ok {
			checkBolt(tt, filepath.Join(cfg.Dir, "raft.db"))
			checkBolt(tt, filepath.Join(cfg.Dir, "state.db"))
		}
	})
	lead(t, s)
	return s
}

// lead waits until s leads and has applied all that was committed before.
func lead(t testing.TB, s *Store) {
	t.Helper()
	eventually(t, "the replica to lead", func() bool { return s.IsLeader() && s.Barrier(t.Context()) == nil })
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func openLocal(t testing.TB) *Local {
	t.Helper()
	l, err := OpenLocal(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if tt, ok := t.(*testing.T); ok {
			checkBolt(tt, l.fsm.path)
		}
	})
	return l
}

// applies is what Store and Local share.
type applies interface {
	Apply(ctx context.Context, cmds ...*v1.Command) ([]Result, error)
	View(fn func(*View) error) error
}

var (
	_ applies = (*Store)(nil)
	_ applies = (*Local)(nil)
)

// do applies one command; a refusal comes back in the result.
func do(t testing.TB, s applies, cmd *v1.Command) Result {
	t.Helper()
	r, err := s.Apply(t.Context(), cmd)
	if err != nil {
		t.Fatal(err)
	}
	return r[0]
}

// must applies one command that is not to be refused.
func must(t testing.TB, s applies, cmd *v1.Command) {
	t.Helper()
	r := do(t, s, cmd)
	if r.Err != nil {
		t.Fatal(r.Err)
	}
}

func digest(t testing.TB, s applies) (d string) {
	t.Helper()
	if err := s.View(func(v *View) error { d = v.Digest(); return nil }); err != nil {
		t.Fatal(err)
	}
	return d
}

// Commands, short.

func submit(at int64, id string, devices ...string) *v1.Command {
	return &v1.Command{TimeMs: at, Op: &v1.Command_SubmitJob{SubmitJob: &v1.SubmitJob{
		Id: id, RequestId: "submit-" + id, Spec: &v1.JobSpec{Name: id}, Devices: devices,
	}}}
}

func worker(at int64, name, session string) *v1.Command {
	return &v1.Command{TimeMs: at, Op: &v1.Command_PutWorker{PutWorker: &v1.PutWorker{
		Worker: &v1.WorkerInfo{Name: name, Session: session, Slots: 2},
	}}}
}

func lease(at int64, task, request, name, session string) *v1.Command {
	return &v1.Command{TimeMs: at, Op: &v1.Command_LeaseTask{LeaseTask: &v1.LeaseTask{
		Task: task, RequestId: request, Worker: name, Session: session,
	}}}
}

func newTrial(at int64, job string, number int32, request, name, session string) *v1.Command {
	c := lease(at, "", request, name, session)
	c.GetLeaseTask().Trial = &v1.NewTrial{
		Job: job, Number: number, Config: &v1.TrialConfig{Strategy: "magnitude", WeightSparsity: 0.5},
	}
	return c
}

func endLease(at int64, task string, attempt int32) *v1.Command {
	return &v1.Command{TimeMs: at, Op: &v1.Command_EndLease{EndLease: &v1.EndLease{Task: task, Attempt: attempt, Reason: "expired"}}}
}

func setState(at int64, job string, state v1.JobState) *v1.Command {
	return &v1.Command{TimeMs: at, Op: &v1.Command_SetJobState{SetJobState: &v1.SetJobState{Job: job, State: state, Reason: "because"}}}
}

func stop(at int64, job string) *v1.Command {
	return &v1.Command{TimeMs: at, Op: &v1.Command_StopJob{StopJob: &v1.StopJob{Job: job, Reason: "trials"}}}
}

func report(at int64, task string, attempt int32, name, session string) (*v1.Command, *v1.ReportRequest) {
	r := &v1.ReportRequest{Task: task, Attempt: attempt, Worker: name, Session: session}
	return &v1.Command{TimeMs: at, Op: &v1.Command_Report{Report: r}}, r
}

// artifactHash is the made-up hash of a trial's file.
func artifactHash(trial int32) string { return fmt.Sprintf("%064x", trial+1) }

func artifacts(trial int32, bytes int64) []*v1.FileRef {
	return []*v1.FileRef{{Hash: artifactHash(trial), SizeBytes: bytes, Format: "esp"}}
}

func reportBaseline(at int64, task string, attempt int32, name, session string) *v1.Command {
	c, r := report(at, task, attempt, name, session)
	r.Outcome = &v1.ReportRequest_Baseline{Baseline: &v1.Baseline{Accuracy: 0.95, Artifacts: artifacts(0, 1000)}}
	return c
}

func reportTrial(at int64, task string, attempt int32, name, session string, trial int32, accuracy float64, bytes int64) *v1.Command {
	c, r := report(at, task, attempt, name, session)
	r.Outcome = &v1.ReportRequest_Trial{Trial: &v1.TrialResult{Accuracy: accuracy, Artifacts: artifacts(trial, bytes)}}
	return c
}

func reportMeasure(at int64, task string, attempt int32, name, session, device string, trial int32, bytes, p50 int64) *v1.Command {
	c, r := report(at, task, attempt, name, session)
	r.Outcome = &v1.ReportRequest_Measurement{Measurement: &v1.Measurement{
		Device: device, Format: "esp", Artifact: artifactHash(trial), SizeBytes: bytes, P50Ns: p50, P95Ns: 2 * p50,
	}}
	return c
}

func reportFailure(at int64, task string, attempt int32, name, session string, permanent bool) *v1.Command {
	c, r := report(at, task, attempt, name, session)
	r.Outcome = &v1.ReportRequest_Failure{Failure: &v1.Failure{Reason: "it broke", Permanent: permanent}}
	return c
}

func handBack(at int64, task string, attempt int32, name, session string) *v1.Command {
	c, r := report(at, task, attempt, name, session)
	r.Outcome = &v1.ReportRequest_HandBack{HandBack: &v1.HandBack{Reason: "draining"}}
	return c
}

func bytesReader(b []byte) io.Reader { return bytes.NewReader(b) }

// ActiveTasks lists what EachActive gives.
func (v *View) ActiveTasks() (out []*v1.Task) {
	v.EachActive(func(t *v1.Task) { out = append(out, t) })
	return out
}
