// Package load puts a cluster under load: any number of simulated workers in one process claim, send heartbeats and
// report over the broker like real ones, but make up their results.
package load

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/espalier-ml/espalier/client"
	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/proto/subject"
	"github.com/espalier-ml/espalier/worker/link"
)

// ErrConfig marks a load that cannot be put.
var ErrConfig = errors.New("invalid load")

// Config describes a load.
type Config struct {
	Server client.Config
	// Workers, with one slot each.
	Workers int
	// TrialTime is how long a trial takes, give or take a quarter; 0 reports at once.
	TrialTime time.Duration
	// Duration is how long the load lasts, once the search has begun.
	Duration time.Duration
	// Until ends the load before Duration is over, when it is closed. Nil: never.
	Until <-chan struct{}
	// Sampler of the job; "" is random.
	Sampler string
	// Keep leaves the job as it is at the end.
	Keep bool
	// Connections to the brokers, which the workers share; 0: one for each 25.
	Connections int
	// Acknowledged is told of each result: when the report was sent that was answered, and when the answer came. It is called
	// from many goroutines. Nil: nobody is told.
	Acknowledged func(sent, answered time.Time)
}

// Result is what the cluster did under load.
type Result struct {
	Workers int     `json:"workers"`
	Results int     `json:"results"`
	Seconds float64 `json:"seconds"`
	// PerSecond counts results that were committed and acknowledged.
	PerSecond float64 `json:"results_per_second"`
	// Claim and Report are from sending to the reply; of claims those that were answered with a lease, and sent when the search
	// had begun.
	ClaimP50Ms  float64 `json:"claim_p50_ms"`
	ClaimP99Ms  float64 `json:"claim_p99_ms"`
	ReportP50Ms float64 `json:"report_p50_ms"`
	ReportP99Ms float64 `json:"report_p99_ms"`
	// Utilisation is the share of the time in which the workers worked on trials.
	Utilisation float64 `json:"utilisation"`
	// Gap is the longest time between two acknowledged results.
	GapMs  float64 `json:"longest_gap_ms"`
	Errors int     `json:"errors"`
}

// perConnection is how many workers share a connection to the broker, unless told otherwise.
const perConnection = 25

type load struct {
	cfg    Config
	client *client.Client
	file   *espalierv1.FileRef

	mu      sync.Mutex
	began   time.Time
	ended   time.Time
	results []time.Time
	claims  []time.Duration
	reports []time.Duration
	worked  time.Duration
	errors  int
}

// Run submits a job, works on it, and cancels it at the end unless told otherwise.
func Run(ctx context.Context, cfg Config) (*Result, error) {
	if cfg.Workers < 1 || cfg.Duration <= 0 || cfg.TrialTime < 0 || cfg.Connections < 0 {
		return nil, fmt.Errorf("%w: workers %d and duration %v must be positive, trial time %v and connections %d not negative",
			ErrConfig, cfg.Workers, cfg.Duration, cfg.TrialTime, cfg.Connections)
	}
	if cfg.Connections == 0 {
		cfg.Connections = (cfg.Workers + perConnection - 1) / perConnection
	}
	c, err := client.New(cfg.Server)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	l := &load{cfg: cfg, client: c}
	job, err := l.submit(ctx)
	if err != nil {
		return nil, err
	}
	err = l.work(ctx)
	if cfg.Keep {
		return l.summary(), err
	}
	_, cancelled := c.Jobs.Cancel(context.WithoutCancel(ctx), &espalierv1.CancelRequest{Job: job})
	return l.summary(), errors.Join(err, cancelled)
}

// submit uploads the one file that stands for all, and records the job.
func (l *load) submit(ctx context.Context) (string, error) {
	data := []byte("a file that stands for all files of a load")
	sum := sha256.Sum256(data)
	l.file = &espalierv1.FileRef{Hash: hex.EncodeToString(sum[:]), SizeBytes: int64(len(data)), Format: "esp"}
	if err := l.client.Upload(ctx, l.file, bytes.NewReader(data)); err != nil {
		return "", err
	}
	sampler := l.cfg.Sampler
	if sampler == "" {
		sampler = "random"
	}
	job, err := l.client.Submit(ctx, &espalierv1.JobSpec{
		Name: "load", Model: &espalierv1.ModelSpec{Source: &espalierv1.ModelSpec_Zoo{Zoo: "lenet-5"}},
		Data:  &espalierv1.DataSpec{Hash: l.file.GetHash(), Source: "load"},
		Train: &espalierv1.TrainSpec{Epochs: 1, Batch: 64, Optimizer: "adam", Rate: 0.001},
		Space: &espalierv1.SpaceSpec{Strategies: []string{"magnitude", "channel-l1"}, Sparsity: &espalierv1.Range{Max: 0.98},
			Schedules: []string{"one-shot"}, FinetuneEpochs: []float64{1}, FinetuneRate: &espalierv1.Range{Min: 1e-4, Max: 1e-2, Log: true}},
		Devices: []string{"nobody"}, Search: &espalierv1.SearchSpec{Sampler: sampler, Seed: 1}, Stop: &espalierv1.StopSpec{Trials: 1_000_000},
	}, nil)
	return job.GetId(), err
}

// work runs the workers until the duration has passed.
func (l *load) work(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	var links []*link.Link
	defer func() {
		cancel()
		work.Wait()
		for _, k := range links {
			k.Close()
		}
	}()
	for range l.cfg.Connections {
		k := link.New(link.Config{API: l.client, Server: l.cfg.Server, Name: "espalier load"})
		if err := k.Connect(ctx); err != nil {
			return fmt.Errorf("connect to the broker: %w", err)
		}
		links = append(links, k)
		work.Go(func() { k.Keep(ctx) })
	}
	session := client.NewRequestID()
	for i := range l.cfg.Workers {
		w := &hand{l: l, link: links[i%len(links)], info: &espalierv1.WorkerInfo{Name: fmt.Sprintf("load-%04d", i), Session: fmt.Sprint(session, i),
			Slots: 1, Fingerprint: &espalierv1.Fingerprint{Cpu: "none", Variant: "none"}}}
		work.Go(func() { w.run(ctx) })
	}
	return l.wait(ctx)
}

// wait lasts until the duration has passed since the baseline was done.
func (l *load) wait(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.cfg.Until:
		case <-time.After(20 * time.Millisecond):
		}
		l.mu.Lock()
		over := !l.began.IsZero() && (time.Since(l.began) >= l.cfg.Duration || closed(l.cfg.Until))
		if over {
			l.ended = time.Now()
		}
		l.mu.Unlock()
		if over {
			return nil
		}
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// hand is one simulated worker.
type hand struct {
	l        *load
	link     *link.Link
	info     *espalierv1.WorkerInfo
	requests int
}

const (
	claimWait    = 5 * time.Second
	replyTimeout = 10 * time.Second
	heartbeat    = 5 * time.Second
)

func (h *hand) run(ctx context.Context) {
	for ctx.Err() == nil {
		if lease := h.claim(ctx); lease != nil {
			h.do(ctx, lease)
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// ask makes a request until it is answered without an error, or ctx ends; false then. sent is when the request was sent that
// was answered.
func (h *hand) ask(ctx context.Context, name string, req, reply proto.Message, failed func() *espalierv1.DispatchError, timeout time.Duration) (sent time.Time, ok bool) {
	wait := link.NewBackoff(100 * time.Millisecond)
	for {
		turn := h.link.Turn()
		sent = time.Now()
		err := h.link.Request(ctx, name, req, reply, timeout)
		if err == nil {
			h.link.Heard(failed().GetCode() == espalierv1.DispatchError_CODE_NOT_LEADER)
			if failed() == nil {
				return sent, true
			}
		}
		if ctx.Err() != nil {
			return sent, false
		}
		h.l.failed()
		h.link.Pause(ctx, wait, turn)
	}
}

// claim asks under one request id until there is an answer; nil when there was nothing to do.
func (h *hand) claim(ctx context.Context) *espalierv1.Lease {
	h.requests++
	req := &espalierv1.ClaimRequest{RequestId: fmt.Sprintf("%s-%d", h.info.GetSession(), h.requests), Worker: h.info, WaitMs: claimWait.Milliseconds()}
	reply := new(espalierv1.ClaimReply)
	sent, ok := h.ask(ctx, subject.Claim, req, reply, reply.GetError, claimWait+replyTimeout)
	if !ok || reply.GetLease() == nil {
		return nil
	}
	h.l.claimed(sent, time.Now())
	return reply.GetLease()
}

func (h *hand) do(ctx context.Context, lease *espalierv1.Lease) {
	t := lease.GetTask()
	r := &espalierv1.ReportRequest{Worker: h.info.GetName(), Session: h.info.GetSession(), Task: t.GetId(), Attempt: t.GetAttempt()}
	trial := t.GetKind() == espalierv1.TaskKind_TASK_KIND_TRIAL
	if trial {
		began := time.Now()
		h.train(ctx, t)
		defer h.l.workedOn(began, time.Now())
		r.Outcome = &espalierv1.ReportRequest_Trial{Trial: &espalierv1.TrialResult{Accuracy: rand.Float64(), Macs: 1, Checkpoint: h.l.file,
			Artifacts: []*espalierv1.FileRef{h.l.file}}}
	} else {
		r.Outcome = &espalierv1.ReportRequest_Baseline{Baseline: &espalierv1.Baseline{Accuracy: 0.9, Macs: 1, Checkpoint: h.l.file,
			Artifacts: []*espalierv1.FileRef{h.l.file}, Strategies: []string{"magnitude", "channel-l1"},
			Groups: []*espalierv1.Group{{Name: "conv1", Prunable: true, Channels: 8, Weights: 72}, {Name: "fc1", Weights: 100}}}}
	}
	reply := new(espalierv1.ReportReply)
	if sent, ok := h.ask(ctx, subject.Report, r, reply, reply.GetError, replyTimeout); ok {
		h.l.reported(trial, sent, time.Now())
	}
}

// train takes the trial's time and sends heartbeats.
func (h *hand) train(ctx context.Context, t *espalierv1.Task) {
	left := time.Duration(float64(h.l.cfg.TrialTime) * (0.75 + rand.Float64()/2))
	for left > 0 && ctx.Err() == nil {
		step := min(left, heartbeat)
		pause(ctx, step)
		left -= step
		if left > 0 {
			reply := new(espalierv1.HeartbeatReply)
			err := h.link.Request(ctx, subject.Heartbeat, &espalierv1.HeartbeatRequest{Worker: h.info.GetName(), Session: h.info.GetSession(),
				Beats: []*espalierv1.Beat{{Task: t.GetId(), Attempt: t.GetAttempt()}}}, reply, replyTimeout)
			if err != nil && ctx.Err() == nil {
				h.l.failed()
			}
		}
	}
}

func (l *load) failed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errors++
}

func (l *load) claimed(sent, answered time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.began.IsZero() && sent.After(l.began) {
		l.claims = append(l.claims, answered.Sub(sent))
	}
}

// workedOn counts the part of a trial's time that lies within the load.
func (l *load) workedOn(began, ended time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended.IsZero() && ended.After(l.ended) {
		ended = l.ended
	}
	if ended.After(began) {
		l.worked += ended.Sub(began)
	}
}

// reported counts a trial's result; the baseline's begins the load.
func (l *load) reported(trial bool, sent, answered time.Time) {
	if trial && l.cfg.Acknowledged != nil {
		l.cfg.Acknowledged(sent, answered)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case !trial:
		l.began = answered
	case l.ended.IsZero():
		l.results = append(l.results, answered)
		l.reports = append(l.reports, answered.Sub(sent))
	}
}

func (l *load) summary() *Result {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := &Result{Workers: l.cfg.Workers, Results: len(l.results), Errors: l.errors}
	if l.began.IsZero() || l.ended.IsZero() {
		return out
	}
	out.Seconds = l.ended.Sub(l.began).Seconds()
	out.PerSecond = float64(out.Results) / out.Seconds
	out.Utilisation = l.worked.Seconds() / (out.Seconds * float64(l.cfg.Workers))
	out.ClaimP50Ms, out.ClaimP99Ms = percentiles(l.claims)
	out.ReportP50Ms, out.ReportP99Ms = percentiles(l.reports)
	slices.SortFunc(l.results, time.Time.Compare)
	for i := 1; i < len(l.results); i++ {
		out.GapMs = max(out.GapMs, l.results[i].Sub(l.results[i-1]).Seconds()*1000)
	}
	return out
}

// percentiles returns the median and the 99th percentile in milliseconds.
func percentiles(d []time.Duration) (p50, p99 float64) {
	if len(d) == 0 {
		return 0, 0
	}
	sorted := slices.Sorted(slices.Values(d))
	at := func(q float64) float64 { return sorted[int(q*float64(len(sorted)-1))].Seconds() * 1000 }
	return at(0.5), at(0.99)
}
