package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/espalier-ml/espalier/client"
	"github.com/espalier-ml/espalier/client/clienttest"
	"github.com/espalier-ml/espalier/coordinator"
	"github.com/espalier-ml/espalier/job"
	"github.com/espalier-ml/espalier/model/bench"
	"github.com/espalier-ml/espalier/model/data"
	"github.com/espalier-ml/espalier/model/zoo"
	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/proto/trace"
	"github.com/espalier-ml/espalier/search/sampler"
	"github.com/espalier-ml/espalier/worker"
)

// logbook keeps the lines of one process's log.
type logbook struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// grep returns the messages of the lines with a word, in their order, each once.
func (l *logbook) grep(t *testing.T, word string) (messages []string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	seen := map[string]bool{}
	for line := range strings.Lines(l.b.String()) {
		if !strings.Contains(line, word) {
			continue
		}
		var fields struct{ Message string }
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if !seen[fields.Message] {
			seen[fields.Message] = true
			messages = append(messages, fields.Message)
		}
	}
	return messages
}

func (l *logbook) wants(t *testing.T, who, word string, messages ...string) {
	t.Helper()
	for _, m := range messages {
		// Some lines come a moment after what they tell of.
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
			got := l.grep(t, word)
			if slices.Contains(got, m) {
				break
			}
			if time.Now().After(deadline) {
				t.Errorf("%s with %s: %q is not among: %s", who, word, m, strings.Join(got, "; "))
				break
			}
		}
	}
}

// traced is three replicas and a worker in this process, each with a log of its own.
type traced struct {
	logs    map[string]*logbook
	address map[string]string
}

func (c *traced) logger(who string, level zerolog.Level) zerolog.Logger {
	c.logs[who] = &logbook{}
	return zerolog.New(c.logs[who]).Level(level)
}

func startTraced(t *testing.T) *traced {
	t.Helper()
	c := &traced{logs: map[string]*logbook{}, address: map[string]string{}}
	var first string
	for _, id := range []string{"a", "b", "c"} {
		cfg := coordinator.Config{
			Dir: filepath.Join(t.TempDir(), id), ReplicaID: id, RaftListen: clienttest.Unused(t), NoSync: true, Version: "test",
			Known: job.Names{Zoo: zoo.Names(), Samplers: sampler.Names()}, Logger: c.logger(id, zerolog.InfoLevel),
		}
		if first != "" {
			cfg.Join = []string{first}
		}
		s, err := coordinator.Start(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			if err := s.Close(ctx); err != nil {
				t.Error(err)
			}
		})
		c.address[id] = s.Address()
		if first == "" {
			first = s.Address()
		}
	}
	for id := range c.address {
		c.awaitOthers(t, id)
	}
	w, err := worker.New(worker.Config{
		Server: client.Config{Addresses: []string{c.address["c"]}}, Name: "w", Slots: 1, Device: "here", CacheDir: t.TempDir(),
		HostLock: filepath.Join(t.TempDir(), "lock"), Bench: bench.Options{WarmUp: time.Millisecond, Rounds: 2, Round: 5 * time.Millisecond, Samples: 5},
		Logger: c.logger("worker", zerolog.InfoLevel),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return c
}

// awaitOthers waits until a replica knows three voters and where they are.
func (c *traced) awaitOthers(t *testing.T, id string) {
	t.Helper()
	u, err := client.New(client.Config{Addresses: []string{c.address[id]}})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		got, err := u.Cluster.Replicas(t.Context(), &espalierv1.ReplicasRequest{})
		known := 0
		for _, r := range got.GetReplicas() {
			if r.GetVoter() && r.GetApiAddress() != "" {
				known++
			}
		}
		if known == 3 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("replica %s does not know the others: %v, %v", id, got, err)
		}
	}
}

// TestOneID: the id of a submit is in the log of the client that sent it, of the replica that was asked, of the leader to which that
// handed it on, and of the worker that did the job's tasks; a task's id is in those of leader, worker and whoever took its files.
func TestOneID(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: a cluster and a whole job take seconds")
	}
	c := startTraced(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	u, err := client.New(client.Config{Addresses: []string{c.address["b"]}, Logger: c.logger("client", zerolog.DebugLevel)})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	request := trace.NewID()
	ctx = trace.With(ctx, trace.IDs{Request: request})

	set, err := data.Shapes(data.ShapesOptions{Train: 200, Test: 50})
	if err != nil {
		t.Fatal(err)
	}
	var canonical bytes.Buffer
	if err := data.WriteCanonical(&canonical, set); err != nil {
		t.Fatal(err)
	}
	ref := client.HashBytes(canonical.Bytes(), "data")
	if err := u.Upload(ctx, ref, bytes.NewReader(canonical.Bytes())); err != nil {
		t.Fatal(err)
	}
	j, err := u.Submit(ctx, &espalierv1.JobSpec{
		Name: "traced", Model: &espalierv1.ModelSpec{Source: &espalierv1.ModelSpec_Zoo{Zoo: "mlp-784-128-10"}},
		Data:  &espalierv1.DataSpec{Hash: ref.GetHash(), Seed: 1, Source: "shapes"},
		Train: &espalierv1.TrainSpec{Epochs: 1, Batch: 32, Optimizer: "adam", Rate: 0.002},
		Space: &espalierv1.SpaceSpec{Strategies: []string{"magnitude"}, Sparsity: &espalierv1.Range{Max: 0.9},
			Schedules: []string{"one-shot"}, FinetuneEpochs: []float64{1}, FinetuneRate: &espalierv1.Range{Min: 0.001, Max: 0.001}},
		Devices: []string{"here"}, Search: &espalierv1.SearchSpec{Sampler: "random", Seed: 1}, Stop: &espalierv1.StopSpec{Trials: 2},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if j.GetRequestId() != request {
		t.Errorf("the job's request is %q, want %q", j.GetRequestId(), request)
	}
	last, err := u.Watch(ctx, j.GetId(), func(*espalierv1.JobStatus) error { return nil }, nil)
	if err != nil || last.GetJob().GetCompleted() != 2 {
		t.Fatalf("%v, %v", last.GetJob(), err)
	}

	c.logs["client"].wants(t, "client", request, "request sent")
	c.logs["b"].wants(t, "the replica that was asked", request, "file uploaded", "request handed on")
	c.logs["a"].wants(t, "the leader", request, "job submitted", "task leased", "task reported", "job ended")
	c.logs["worker"].wants(t, "worker", request, "task begun", "file uploaded", "task reported")
	task := j.GetId() + "/trial/2"
	c.logs["a"].wants(t, "the leader", task, "task leased", "task reported")
	c.logs["c"].wants(t, "the replica that took the files", task, "file uploaded")
	c.logs["worker"].wants(t, "worker", task, "task begun", "file uploaded", "task reported")

	// An error of the API names the request too.
	if _, err := u.Jobs.Cancel(ctx, &espalierv1.CancelRequest{Job: j.GetId()}); err == nil {
		t.Error("a job that has ended was cancelled")
	}
	c.logs["a"].wants(t, "the leader", request, "request answered")
}
