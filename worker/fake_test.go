package worker

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/espalier-ml/espalier/client"
	"github.com/espalier-ml/espalier/client/clienttest"
	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/proto/subject"
	"github.com/espalier-ml/espalier/worker/task"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// startBroker starts a broker on the port; -1 picks one.
func startBroker(t *testing.T, port int) *server.Server {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: port, NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the broker does not start")
	}
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	return s
}

// given is a task as the fake dispatcher keeps it.
type given struct {
	lease    *espalierv1.Lease
	request  string
	session  string
	reported bool
}

// dispatcher is a leader in memory with the contract's behaviour, and faults.
type dispatcher struct {
	t testing.TB

	mu         sync.Mutex
	pending    []*espalierv1.Lease
	tasks      map[string]*given // by task, the current attempt
	reports    []*espalierv1.ReportRequest
	statuses   []espalierv1.ReportReply_Status
	beats      []*espalierv1.HeartbeatRequest
	claims     []*espalierv1.ClaimRequest
	verdicts   map[string]espalierv1.BeatReply_Verdict
	muteClaim  int // so many claims take effect without an answer
	muteReport int
	notLeader  bool
	deaf       bool                      // heartbeats get no answer
	refusal    *espalierv1.DispatchError // of claims
	onReport   func(*espalierv1.ReportRequest) *espalierv1.DispatchError
	changed    chan struct{}
	nc         *nats.Conn
	subs       []*nats.Subscription
	inflight   sync.WaitGroup
	ctx        context.Context
}

func newDispatcher(t *testing.T, url string) *dispatcher {
	t.Helper()
	d := &dispatcher{
		t: t, tasks: map[string]*given{}, verdicts: map[string]espalierv1.BeatReply_Verdict{}, changed: make(chan struct{}), ctx: t.Context(),
	}
	d.connect(url)
	t.Cleanup(func() {
		d.close()
		d.inflight.Wait()
	})
	return d
}

func (d *dispatcher) connect(url string) {
	d.t.Helper()
	nc, err := nats.Connect(url, nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond))
	if err != nil {
		d.t.Fatal(err)
	}
	d.nc = nc
	d.subs = []*nats.Subscription{
		d.serve(subject.Claim, func() proto.Message { return &espalierv1.ClaimRequest{} }, func(m proto.Message) proto.Message {
			return d.claim(m.(*espalierv1.ClaimRequest))
		}),
		d.serve(subject.Heartbeat, func() proto.Message { return &espalierv1.HeartbeatRequest{} }, func(m proto.Message) proto.Message {
			return d.heartbeat(m.(*espalierv1.HeartbeatRequest))
		}),
		d.serve(subject.Report, func() proto.Message { return &espalierv1.ReportRequest{} }, func(m proto.Message) proto.Message {
			return d.report(m.(*espalierv1.ReportRequest))
		}),
	}
	if err := nc.Flush(); err != nil {
		d.t.Fatal(err)
	}
}

func (d *dispatcher) close() { d.nc.Close() }

func (d *dispatcher) serve(subj string, in func() proto.Message, answer func(proto.Message) proto.Message) *nats.Subscription {
	d.t.Helper()
	sub, err := d.nc.Subscribe(subj, func(msg *nats.Msg) {
		d.inflight.Go(func() {
			req := in()
			if err := proto.Unmarshal(msg.Data, req); err != nil {
				d.t.Error(err)
				return
			}
			reply := answer(req)
			if reply == nil {
				return
			}
			data, err := proto.Marshal(reply)
			if err != nil {
				d.t.Error(err)
				return
			}
			_ = msg.Respond(data)
		})
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return sub
}

// notify wakes claims that wait. The caller holds mu.
func (d *dispatcher) notify() {
	close(d.changed)
	d.changed = make(chan struct{})
}

// offer makes tasks pending.
func (d *dispatcher) offer(kind espalierv1.TaskKind, names ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, n := range names {
		d.pending = append(d.pending, &espalierv1.Lease{
			Task: &espalierv1.Task{Id: n, Job: "j", Kind: kind, Attempt: 1}, HeartbeatMs: 20, LeaseMs: 1000,
		})
	}
	d.notify()
}

var errNotLeader = &espalierv1.DispatchError{Code: espalierv1.DispatchError_CODE_NOT_LEADER, Message: "not leader"}

func (d *dispatcher) claim(req *espalierv1.ClaimRequest) proto.Message {
	timer := time.NewTimer(time.Duration(req.GetWaitMs()) * time.Millisecond)
	defer timer.Stop()
	d.mu.Lock()
	d.claims = append(d.claims, req)
	for {
		if d.notLeader {
			d.mu.Unlock()
			return &espalierv1.ClaimReply{Error: errNotLeader}
		}
		if d.refusal != nil {
			defer d.mu.Unlock()
			return &espalierv1.ClaimReply{Error: d.refusal}
		}
		if lease := d.take(req); lease != nil {
			mute := d.muteClaim > 0
			if mute {
				d.muteClaim--
			}
			d.mu.Unlock()
			if mute {
				return nil
			}
			return &espalierv1.ClaimReply{Lease: lease}
		}
		changed := d.changed
		d.mu.Unlock()
		select {
		case <-changed:
		case <-timer.C:
			return &espalierv1.ClaimReply{}
		case <-d.ctx.Done():
			return &espalierv1.ClaimReply{}
		}
		d.mu.Lock()
	}
}

// take returns the lease that this request got before, else a pending task. The
// caller holds mu.
func (d *dispatcher) take(req *espalierv1.ClaimRequest) *espalierv1.Lease {
	for _, g := range d.tasks {
		if g.request == req.GetRequestId() {
			return g.lease
		}
	}
	for i, l := range d.pending {
		for _, k := range req.GetKinds() {
			if k == l.GetTask().GetKind() {
				d.pending = append(d.pending[:i:i], d.pending[i+1:]...)
				d.tasks[l.GetTask().GetId()] = &given{lease: l, request: req.GetRequestId(), session: req.GetWorker().GetSession()}
				return l
			}
		}
	}
	return nil
}

func (d *dispatcher) heartbeat(req *espalierv1.HeartbeatRequest) proto.Message {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.notLeader {
		return &espalierv1.HeartbeatReply{Error: errNotLeader}
	}
	d.beats = append(d.beats, req)
	if d.deaf {
		return nil
	}
	reply := &espalierv1.HeartbeatReply{}
	for _, b := range req.GetBeats() {
		v := espalierv1.BeatReply_VERDICT_CONTINUE
		if g := d.tasks[b.GetTask()]; g == nil || g.lease.GetTask().GetAttempt() != b.GetAttempt() || g.reported {
			v = espalierv1.BeatReply_VERDICT_LOST
		} else if special, ok := d.verdicts[b.GetTask()]; ok {
			v = special
		}
		reply.Beats = append(reply.Beats, &espalierv1.BeatReply{Task: b.GetTask(), Attempt: b.GetAttempt(), Verdict: v})
	}
	return reply
}

func (d *dispatcher) report(req *espalierv1.ReportRequest) proto.Message {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.notLeader {
		return &espalierv1.ReportReply{Error: errNotLeader}
	}
	if d.onReport != nil {
		if err := d.onReport(req); err != nil {
			return &espalierv1.ReportReply{Error: err}
		}
	}
	status := espalierv1.ReportReply_STATUS_STALE
	if g := d.tasks[req.GetTask()]; g != nil && g.lease.GetTask().GetAttempt() == req.GetAttempt() && g.session == req.GetSession() {
		status = espalierv1.ReportReply_STATUS_ACCEPTED
		if g.reported {
			status = espalierv1.ReportReply_STATUS_REPEATED
		}
		g.reported = true
	}
	d.reports, d.statuses = append(d.reports, req), append(d.statuses, status)
	if d.muteReport > 0 {
		d.muteReport--
		return nil
	}
	return &espalierv1.ReportReply{Status: status}
}

// expire takes a lease away and offers the next attempt.
func (d *dispatcher) expire(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	g := d.tasks[name]
	delete(d.tasks, name)
	next := proto.CloneOf(g.lease)
	next.Task.Attempt++
	d.pending = append(d.pending, next)
	d.notify()
}

// ended counts the reports of a task by status.
func (d *dispatcher) ended(name string, status espalierv1.ReportReply_Status) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for i, r := range d.reports {
		if r.GetTask() == name && d.statuses[i] == status {
			n++
		}
	}
	return n
}

// last returns the last report of a task.
func (d *dispatcher) last(name string) *espalierv1.ReportRequest {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := len(d.reports) - 1; i >= 0; i-- {
		if d.reports[i].GetTask() == name {
			return d.reports[i]
		}
	}
	return nil
}

func (d *dispatcher) locked(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

// runs is a runner made of a function; it counts.
type runs struct {
	f  func(context.Context, *espalierv1.Lease, task.Control) (*task.Outcome, error)
	mu sync.Mutex
	n  map[string]int
}

func (r *runs) Run(ctx context.Context, l *espalierv1.Lease, c task.Control) (*task.Outcome, error) {
	r.mu.Lock()
	if r.n == nil {
		r.n = map[string]int{}
	}
	r.n[l.GetTask().GetId()]++
	r.mu.Unlock()
	return r.f(ctx, l, c)
}

func (r *runs) count(name string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.n[name]
}

func trialOutcome() *task.Outcome {
	return &task.Outcome{Trial: &espalierv1.TrialResult{Accuracy: 0.5}}
}

func quickly(context.Context, *espalierv1.Lease, task.Control) (*task.Outcome, error) {
	return trialOutcome(), nil
}

// cluster is a fake cluster with one worker.
type cluster struct {
	t      *testing.T
	api    *clienttest.Server
	broker *server.Server
	*dispatcher
	runs *runs
}

func newCluster(t *testing.T, f func(context.Context, *espalierv1.Lease, task.Control) (*task.Outcome, error)) *cluster {
	t.Helper()
	c := &cluster{t: t, api: clienttest.New(t), broker: startBroker(t, -1), runs: &runs{f: f}}
	c.api.SetBrokers(c.broker.ClientURL())
	c.dispatcher = newDispatcher(t, c.broker.ClientURL())
	return c
}

func (c *cluster) config() Config {
	dir := c.t.TempDir()
	return Config{
		Server: client.Config{Addresses: []string{c.api.URL}}, Name: "w1", Slots: 2, Device: "here",
		CacheDir: dir + "/cache", HostLock: dir + "/host.lock", Heartbeat: 20 * time.Millisecond,
		DrainTimeout: 10 * time.Second, waits: waits{retry: 10 * time.Millisecond, refresh: 200 * time.Millisecond, sick: 5 * time.Millisecond}, Logger: zerolog.New(zerolog.NewTestWriter(c.t)).Level(zerolog.InfoLevel),
	}
}

// start runs a worker; stop asks it to end and returns what Run returned.
func (c *cluster) start(cfg Config) (_ *Worker, stop func() error) {
	c.t.Helper()
	w, err := New(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	w.runner = c.runs
	return c.launch(w)
}

// launch runs a worker that was made before.
func (c *cluster) launch(w *Worker) (_ *Worker, stop func() error) {
	c.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	var result error
	go func() {
		defer close(ended)
		result = w.Run(ctx)
	}()
	stop = func() error {
		cancel()
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			c.t.Error("the worker does not end")
		}
		return result
	}
	c.t.Cleanup(func() { _ = stop() })
	return w, stop
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never happened: %s", what)
		}
	}
}
