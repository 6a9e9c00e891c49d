package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/worker/task"
)

const (
	accepted = espalierv1.ReportReply_STATUS_ACCEPTED
	repeated = espalierv1.ReportReply_STATUS_REPEATED
	stale    = espalierv1.ReportReply_STATUS_STALE
	trial    = espalierv1.TaskKind_TASK_KIND_TRIAL
	measure  = espalierv1.TaskKind_TASK_KIND_MEASURE
)

// untilDone works until its context ends.
func untilDone(ctx context.Context, _ *espalierv1.Lease, _ task.Control) (*task.Outcome, error) {
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

func TestEveryTaskOnce(t *testing.T) {
	c := newCluster(t, quickly)
	names := []string{"a", "b", "c", "d", "e", "f", "g"}
	c.offer(trial, names...)
	_, stop := c.start(c.config())
	for _, n := range names {
		eventually(t, n+" reported", func() bool { return c.ended(n, accepted) == 1 })
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if c.runs.count(n) != 1 || c.ended(n, accepted) != 1 {
			t.Errorf("%s: %d runs, %d accepted", n, c.runs.count(n), c.ended(n, accepted))
		}
	}
}

func TestLostClaimReply(t *testing.T) {
	c := newCluster(t, quickly)
	c.muteClaim = 1
	cfg := c.config()
	cfg.Slots = 1
	cfg.waits = waits{claim: 50 * time.Millisecond, reply: 50 * time.Millisecond}
	c.start(cfg)
	c.offer(trial, "a")
	eventually(t, "a reported", func() bool { return c.ended("a", accepted) == 1 })
	if c.runs.count("a") != 1 {
		t.Errorf("a ran %d times", c.runs.count("a"))
	}
}

func TestLostReportReply(t *testing.T) {
	c := newCluster(t, quickly)
	c.muteReport = 2
	c.offer(trial, "a")
	cfg := c.config()
	cfg.waits.report = 50 * time.Millisecond
	_, stop := c.start(cfg)
	eventually(t, "a repeated", func() bool { return c.ended("a", repeated) >= 1 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if c.ended("a", accepted) != 1 || c.runs.count("a") != 1 {
		t.Errorf("accepted %d times, ran %d times", c.ended("a", accepted), c.runs.count("a"))
	}
}

func TestStaleReport(t *testing.T) {
	release := make(chan struct{})
	c := newCluster(t, nil)
	c.runs.f = func(_ context.Context, l *espalierv1.Lease, _ task.Control) (*task.Outcome, error) {
		if l.GetTask().GetAttempt() == 1 {
			<-release
		}
		return trialOutcome(), nil
	}
	c.offer(trial, "a")
	_, stop := c.start(c.config())
	eventually(t, "a runs", func() bool { return c.runs.count("a") == 1 })
	c.locked(func() { c.deaf = true }) // the worker does not hear that the lease is gone
	c.expire("a")
	eventually(t, "second attempt accepted", func() bool { return c.ended("a", accepted) == 1 })
	close(release)
	eventually(t, "first attempt stale", func() bool { return c.ended("a", stale) == 1 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if c.ended("a", accepted) != 1 {
		t.Errorf("accepted %d times", c.ended("a", accepted))
	}
}

func TestLostLeaseEndsTheWork(t *testing.T) {
	var cancelled atomic.Int64
	c := newCluster(t, nil)
	c.runs.f = func(ctx context.Context, l *espalierv1.Lease, _ task.Control) (*task.Outcome, error) {
		if l.GetTask().GetAttempt() > 1 {
			return trialOutcome(), nil
		}
		<-ctx.Done()
		cancelled.Add(1)
		return nil, ctx.Err()
	}
	c.offer(trial, "a")
	cfg := c.config()
	cfg.Slots = 1
	_, stop := c.start(cfg)
	eventually(t, "a runs", func() bool { return c.runs.count("a") == 1 })
	c.expire("a")
	eventually(t, "second attempt accepted", func() bool { return c.ended("a", accepted) == 1 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if cancelled.Load() != 1 || c.ended("a", stale) != 0 {
		t.Errorf("cancelled %d, stale reports %d", cancelled.Load(), c.ended("a", stale))
	}
}

func TestHalt(t *testing.T) {
	c := newCluster(t, func(ctx context.Context, _ *espalierv1.Lease, ctl task.Control) (*task.Outcome, error) {
		select {
		case <-ctl.Halted():
			return trialOutcome(), nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
	c.verdicts["a"] = espalierv1.BeatReply_VERDICT_HALT
	c.offer(trial, "a")
	c.start(c.config())
	eventually(t, "a reported", func() bool { return c.ended("a", accepted) == 1 })
	if c.last("a").GetTrial() == nil {
		t.Errorf("outcome %v, want a result", c.last("a").GetOutcome())
	}
}

func TestProgressTravels(t *testing.T) {
	c := newCluster(t, func(ctx context.Context, l *espalierv1.Lease, ctl task.Control) (*task.Outcome, error) {
		ctl.Progress(&espalierv1.Progress{Stage: "fine-tune", Fraction: 0.5})
		return untilDone(ctx, l, ctl)
	})
	c.offer(trial, "a", "b")
	cfg := c.config()
	cfg.DrainTimeout = 0
	c.start(cfg)
	eventually(t, "a heartbeat with both", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, b := range c.beats {
			if len(b.GetBeats()) == 2 && b.GetBeats()[0].GetProgress().GetStage() == "fine-tune" &&
				b.GetBeats()[1].GetProgress().GetFraction() == 0.5 {
				return true
			}
		}
		return false
	})
}

func TestDrain(t *testing.T) {
	finish := make(chan struct{})
	c := newCluster(t, func(ctx context.Context, l *espalierv1.Lease, _ task.Control) (*task.Outcome, error) {
		if l.GetTask().GetId() == "quick" {
			<-finish
			return trialOutcome(), nil
		}
		<-ctx.Done()
		return nil, ctx.Err()
	})
	c.offer(trial, "quick", "slow")
	cfg := c.config()
	cfg.DrainTimeout = 2 * time.Second
	_, stop := c.start(cfg)
	eventually(t, "both run", func() bool { return c.runs.count("quick") == 1 && c.runs.count("slow") == 1 })
	time.AfterFunc(50*time.Millisecond, func() { close(finish) })
	c.offer(trial, "next")
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if c.last("quick").GetTrial() == nil {
		t.Errorf("quick: outcome %v, want a result", c.last("quick").GetOutcome())
	}
	if c.last("slow").GetHandBack() == nil {
		t.Errorf("slow: outcome %v, want it handed back", c.last("slow").GetOutcome())
	}
	if c.runs.count("next") != 0 {
		t.Error("a task was begun while draining")
	}
}

// TestDrainSettlesClaims ends a worker whose claim has got a lease in a reply
// that it will never see.
func TestDrainSettlesClaims(t *testing.T) {
	c := newCluster(t, quickly)
	c.muteClaim = 1
	c.offer(trial, "a")
	cfg := c.config()
	cfg.Slots = 1
	_, stop := c.start(cfg)
	eventually(t, "a taken", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.tasks["a"] != nil })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if c.last("a").GetHandBack() == nil || c.runs.count("a") != 0 {
		t.Errorf("report %v after %d runs, want it handed back", c.last("a"), c.runs.count("a"))
	}
}

func TestMissingFilesAreUploadedAgain(t *testing.T) {
	c := newCluster(t, nil)
	var w *Worker
	c.runs.f = func(ctx context.Context, _ *espalierv1.Lease, _ task.Control) (*task.Outcome, error) {
		f, err := w.cache.Add(ctx, []byte("the model"), "esp")
		if err != nil {
			return nil, err
		}
		o := trialOutcome()
		o.Trial.Artifacts, o.Files = []*espalierv1.FileRef{f.Ref}, append(o.Files, f)
		return o, nil
	}
	asked := 0
	c.onReport = func(r *espalierv1.ReportRequest) *espalierv1.DispatchError {
		hash := r.GetTrial().GetArtifacts()[0].GetHash()
		if asked++; asked == 1 {
			if !bytes.Equal(c.api.File(hash), []byte("the model")) {
				t.Error("reported before it was uploaded")
			}
			c.api.Drop(hash)
		}
		if c.api.File(hash) == nil {
			return &espalierv1.DispatchError{Code: espalierv1.DispatchError_CODE_FILES_MISSING, Files: []string{hash}}
		}
		return nil
	}
	w, _ = c.start(c.config())
	c.offer(trial, "a")
	eventually(t, "a reported", func() bool { return c.ended("a", accepted) == 1 })
	if asked < 2 {
		t.Errorf("asked %d times", asked)
	}
}

func TestFailures(t *testing.T) {
	c := newCluster(t, func(_ context.Context, l *espalierv1.Lease, _ task.Control) (*task.Outcome, error) {
		switch l.GetTask().GetId() {
		case "panics":
			var m map[string]int
			m["x"] = 1 //nolint:staticcheck // the panic is what it tests
			return nil, nil
		case "permanent":
			return nil, fmt.Errorf("read model: %w: bad bytes", task.ErrPermanent)
		case "nothing":
			return &task.Outcome{}, nil
		default:
			return nil, errors.New(strings.Repeat("long ", 1000))
		}
	})
	c.offer(trial, "panics", "permanent", "nothing", "long")
	c.start(c.config())
	for name, want := range map[string]struct {
		text      string
		permanent bool
	}{
		"panics": {"panicked", false}, "permanent": {"bad bytes", true}, "nothing": {"no result", false}, "long": {"long", false},
	} {
		eventually(t, name+" reported", func() bool { return c.ended(name, accepted) == 1 })
		f := c.last(name).GetFailure()
		if !strings.Contains(f.GetReason(), want.text) || f.GetPermanent() != want.permanent || len(f.GetReason()) > maxReason {
			t.Errorf("%s: failure %v", name, f)
		}
	}
}

func TestRefusedResultBecomesFailure(t *testing.T) {
	c := newCluster(t, quickly)
	c.onReport = func(r *espalierv1.ReportRequest) *espalierv1.DispatchError {
		if r.GetTrial() != nil {
			return &espalierv1.DispatchError{Code: espalierv1.DispatchError_CODE_INVALID, Message: "accuracy 7"}
		}
		return nil
	}
	c.offer(trial, "a")
	c.start(c.config())
	eventually(t, "a reported", func() bool { return c.ended("a", accepted) == 1 })
	if !strings.Contains(c.last("a").GetFailure().GetReason(), "accuracy 7") {
		t.Errorf("outcome %v", c.last("a").GetOutcome())
	}
}

func TestRefusedWorkerEnds(t *testing.T) {
	for _, code := range []espalierv1.DispatchError_Code{
		espalierv1.DispatchError_CODE_DEVICE_MISMATCH, espalierv1.DispatchError_CODE_INVALID,
	} {
		c := newCluster(t, quickly)
		c.refusal = &espalierv1.DispatchError{Code: code, Message: "another fingerprint"}
		w, err := New(c.config())
		if err != nil {
			t.Fatal(err)
		}
		w.runner = c.runs
		if err := w.Run(t.Context()); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "another fingerprint") {
			t.Errorf("%v: error %v, want ErrRefused", code, err)
		}
	}
}

func TestOnce(t *testing.T) {
	c := newCluster(t, quickly)
	c.offer(trial, "a", "b")
	cfg := c.config()
	cfg.Slots, cfg.Once = 0, true
	w, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.runner = c.runs
	if err := w.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c.ended("a", accepted) != 1 || c.runs.count("b") != 0 {
		t.Errorf("a accepted %d times, b ran %d times", c.ended("a", accepted), c.runs.count("b"))
	}
}

func TestKinds(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Config)
		want   int
		device string
	}{
		"all":          {func(*Config) {}, 3, "here"},
		"measure only": {func(c *Config) { c.MeasureOnly = true }, 1, "here"},
		"no measure":   {func(c *Config) { c.NoMeasure, c.Device = true, "" }, 2, ""},
	} {
		c := newCluster(t, quickly)
		cfg := c.config()
		tc.change(&cfg)
		_, stop := c.start(cfg)
		eventually(t, "a claim", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return len(c.claims) > 0 })
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		got := c.claims[0]
		if len(got.GetKinds()) != tc.want || got.GetWorker().GetDevice() != tc.device ||
			got.GetWorker().GetFingerprint().GetVariant() == "" || got.GetWorker().GetFingerprint().GetOs() == "" {
			t.Errorf("%s: claim %v", name, got)
		}
	}
}

func TestNewSessionForEachStart(t *testing.T) {
	c := newCluster(t, quickly)
	cfg := c.config()
	sessions, ids := map[string]bool{}, map[string]bool{}
	for start := 1; start <= 2; start++ {
		_, stop := c.start(cfg)
		eventually(t, "a claim of each slot, in a new session", func() bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			for _, r := range c.claims {
				sessions[r.GetWorker().GetSession()] = true
				ids[r.GetRequestId()] = true
				if r.GetWorker().GetName() != "w1" {
					t.Errorf("name %q", r.GetWorker().GetName())
				}
			}
			return len(sessions) == start && len(ids) >= 2*start
		})
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestHostLock(t *testing.T) {
	c := newCluster(t, quickly)
	cfg := c.config()
	w, _ := c.start(cfg)
	eventually(t, "a claim", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return len(c.claims) > 0 })
	other := c.config()
	other.HostLock, other.Name = w.cfg.HostLock, "w2"
	second, err := New(other)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Run(t.Context()); !errors.Is(err, ErrHostLock) || !strings.Contains(err.Error(), "--no-measure") {
		t.Fatalf("error %v, want ErrHostLock with what to do", err)
	}
	other.NoMeasure, other.Device = true, ""
	c.offer(trial, "a")
	_, stop := c.start(other)
	eventually(t, "claims of w2", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, r := range c.claims {
			if r.GetWorker().GetName() == "w2" {
				return true
			}
		}
		return false
	})
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

func TestConfig(t *testing.T) {
	good := Config{}
	good.Server.Addresses = []string{"127.0.0.1:1"}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for field, change := range map[string]func(*Config){
		"Server.Addresses": func(c *Config) { c.Server.Addresses = nil },
		"Slots":            func(c *Config) { c.Slots = -1 },
		"Slots is 2":       func(c *Config) { c.Slots, c.Once = 2, true },
		"Threads":          func(c *Config) { c.Threads = 5000 },
		"MeasureOnly":      func(c *Config) { c.MeasureOnly, c.NoMeasure = true, true },
		`Device is "a/b"`:  func(c *Config) { c.Device = "a/b" },
		`Device is "x"`:    func(c *Config) { c.Device, c.NoMeasure = "x", true },
		"Name":             func(c *Config) { c.Name = "a b" },
		"DrainTimeout":     func(c *Config) { c.DrainTimeout = -1 },
		"CacheBytes":       func(c *Config) { c.CacheBytes = -1 },
		"Heartbeat":        func(c *Config) { c.Heartbeat = -1 },
	} {
		c := good
		change(&c)
		if _, err := New(c); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: error %v", field, err)
		}
	}
	full := good.withDefaults()
	if full.Slots < 1 || full.Device == "" || full.CacheBytes == 0 || full.HostLock == "" {
		t.Errorf("defaults %+v", full)
	}
}

func TestCloneOfProgress(t *testing.T) {
	h := &hold{lease: &espalierv1.Lease{Task: &espalierv1.Task{Id: "a"}}}
	p := &espalierv1.Progress{Stage: "x"}
	h.Progress(p)
	b := h.beat()
	if b.GetProgress() == p || !proto.Equal(b.GetProgress(), p) {
		t.Error("a heartbeat must carry a copy")
	}
}

func TestFailingWorkerPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h health
		begun := time.Now()
		h.wait(t.Context())
		for _, want := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60} {
			if got := h.failed(time.Second); got != want*time.Second {
				t.Errorf("pause %v, want %v", got, want*time.Second)
			}
		}
		h.wait(t.Context())
		if got := time.Since(begun); got != maxSick {
			t.Errorf("waited %v", got)
		}
		h.failed(time.Second)
		h.well()
		h.wait(t.Context())
		if got := h.failed(time.Second); got != time.Second || time.Since(begun) != maxSick {
			t.Errorf("after a success: pause %v", got)
		}
	})
}
