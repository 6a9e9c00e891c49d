package worker

import (
	"context"
	"net/url"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/proto/subject"
	"github.com/espalier-ml/espalier/worker/task"
)

// TestGoesOnWithoutConnection takes the broker away in the middle of a task and
// brings it back, on the same port or on another one.
func TestGoesOnWithoutConnection(t *testing.T) {
	for _, same := range []bool{true, false} {
		finish := make(chan struct{})
		c := newCluster(t, func(ctx context.Context, _ *espalierv1.Lease, _ task.Control) (*task.Outcome, error) {
			select {
			case <-finish:
				return trialOutcome(), nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		})
		c.offer(trial, "a")
		_, stop := c.start(c.config())
		eventually(t, "a runs", func() bool { return c.runs.count("a") == 1 })

		port := -1
		if u, err := url.Parse(c.broker.ClientURL()); err == nil && same {
			port, _ = strconv.Atoi(u.Port())
		}
		c.broker.Shutdown()
		c.broker.WaitForShutdown()
		close(finish)
		time.Sleep(100 * time.Millisecond)
		if c.ended("a", accepted) != 0 {
			t.Fatal("reported without a connection")
		}
		c.close()
		b := startBroker(t, port)
		c.connect(b.ClientURL())
		c.api.SetBrokers(b.ClientURL())
		eventually(t, "a reported", func() bool { return c.ended("a", accepted) == 1 })
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if c.runs.count("a") != 1 {
			t.Errorf("a ran %d times", c.runs.count("a"))
		}
	}
}

func TestStartsBeforeTheServer(t *testing.T) {
	c := newCluster(t, quickly)
	c.api.SetBrokers()
	c.offer(trial, "a")
	_, stop := c.start(c.config())
	eventually(t, "some requests", func() bool { return c.api.Requests() >= 2 })
	c.api.SetBrokers(c.broker.ClientURL())
	eventually(t, "a reported", func() bool { return c.ended("a", accepted) == 1 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

func TestEndsBeforeTheServer(t *testing.T) {
	c := newCluster(t, quickly)
	c.api.SetBrokers()
	_, stop := c.start(c.config())
	eventually(t, "a request", func() bool { return c.api.Requests() >= 1 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

func TestNobodyLeadsForAWhile(t *testing.T) {
	c := newCluster(t, quickly)
	c.close() // connected, but nobody answers
	_, stop := c.start(c.config())
	eventually(t, "an info request", func() bool { return c.api.Requests() >= 1 })
	c.connect(c.broker.ClientURL())
	c.offer(trial, "a")
	eventually(t, "a reported", func() bool { return c.ended("a", accepted) == 1 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// TestLeavesAReplicaThatDoesNotLead has two brokers that do not know each other,
// as after a partition; only the second has a leader.
func TestLeavesAReplicaThatDoesNotLead(t *testing.T) {
	c := newCluster(t, quickly)
	c.notLeader = true
	other := startBroker(t, -1)
	leader := newDispatcher(t, other.ClientURL())
	leader.offer(trial, "a")
	c.api.SetBrokers(c.broker.ClientURL(), other.ClientURL())
	cfg := c.config()
	_, stop := c.start(cfg)
	eventually(t, "a reported to the leader", func() bool { return leader.ended("a", accepted) == 1 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// TestQuietDuringMeasure runs trainings that step all the time, and measures.
func TestQuietDuringMeasure(t *testing.T) {
	c := newCluster(t, nil)
	var w *Worker
	var stepping, measuring atomic.Int64
	c.runs.f = func(ctx context.Context, l *espalierv1.Lease, ctl task.Control) (*task.Outcome, error) {
		if l.GetTask().GetKind() == measure {
			release, err := w.gate.Quiet(ctx)
			if err != nil {
				return nil, err
			}
			defer release()
			measuring.Add(1)
			defer measuring.Add(-1)
			for range 20 {
				if stepping.Load() != 0 {
					t.Error("a step runs during a measurement")
				}
				time.Sleep(time.Millisecond)
			}
			return &task.Outcome{Measurement: &espalierv1.Measurement{Device: "here"}}, nil
		}
		if err := w.gate.Enter(ctx); err != nil {
			return nil, err
		}
		defer w.gate.Leave()
		for range 150 {
			if err := w.gate.Step(ctx); err != nil {
				return nil, err
			}
			stepping.Add(1)
			if measuring.Load() != 0 {
				t.Error("a step begins during a measurement")
			}
			time.Sleep(time.Millisecond)
			stepping.Add(-1)
		}
		return trialOutcome(), nil
	}
	cfg := c.config()
	cfg.Slots = 3
	w, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.runner = c.runs
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	c.offer(trial, "a", "b", "c")
	eventually(t, "training", func() bool { return stepping.Load() > 0 })
	c.offer(measure, "m1", "m2")
	c.offer(trial, "d")
	for _, n := range []string{"a", "b", "c", "d", "m1", "m2"} {
		eventually(t, n+" reported", func() bool { return c.ended(n, accepted) == 1 })
	}
	if m := c.last("m1").GetMeasurement(); m.GetWorker() != "w1" || !proto.Equal(m, &espalierv1.Measurement{Device: "here", Worker: "w1"}) {
		t.Errorf("measurement %v", m)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

// TestAsksTheNewLeader: a leader takes a claim, and later a report, and goes without an answer; when another tells that it
// leads, both are asked again at once, long before their replies would be given up.
func TestAsksTheNewLeader(t *testing.T) {
	c := newCluster(t, quickly)
	c.muteClaim, c.muteReport = 1, 1
	cfg := c.config()
	cfg.waits = waits{claim: time.Minute, reply: time.Minute, report: time.Minute}
	c.offer(trial, "a")
	c.start(cfg)
	taken := func() (ok bool) {
		c.locked(func() { ok = c.tasks["a"] != nil })
		return ok
	}
	lead := func() {
		if err := c.nc.Publish(subject.Lead, nil); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "a claim taken", taken)
	lead()
	eventually(t, "a reported", func() bool { return c.ended("a", accepted) == 1 })
	lead()
	eventually(t, "a reported again", func() bool { return c.ended("a", repeated) == 1 })
	if n := c.runs.count("a"); n != 1 {
		t.Errorf("a ran %d times", n)
	}
}
