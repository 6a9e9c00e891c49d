package coordinator_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/espalier-ml/espalier/coordinator"
	"github.com/espalier-ml/espalier/coordinator/api"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/proto/espalier/v1/espalierv1connect"
	"github.com/espalier-ml/espalier/proto/subject"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/espalier-ml/espalier/coordinator/store.forget"))
}

func start(t *testing.T, dir string) *coordinator.Server {
	t.Helper()
	s, err := coordinator.Start(t.Context(), coordinator.Config{Dir: dir, NoSync: true, Version: "test", Lease: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func stop(t *testing.T, s *coordinator.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
}

// user is a client of the API.
type user struct {
	transport *http.Transport
	jobs      espalierv1connect.JobServiceClient
	files     espalierv1connect.FileServiceClient
	cluster   espalierv1connect.ClusterServiceClient
}

func dial(address string) *user {
	u := &user{transport: &http.Transport{Protocols: new(http.Protocols)}}
	u.transport.Protocols.SetUnencryptedHTTP2(true)
	c := &http.Client{Transport: u.transport}
	u.jobs = espalierv1connect.NewJobServiceClient(c, "http://"+address)
	u.files = espalierv1connect.NewFileServiceClient(c, "http://"+address)
	u.cluster = espalierv1connect.NewClusterServiceClient(c, "http://"+address)
	return u
}

func (u *user) upload(ctx context.Context, data []byte, format string) (*v1.FileRef, error) {
	sum := sha256.Sum256(data)
	ref := &v1.FileRef{Hash: hex.EncodeToString(sum[:]), SizeBytes: int64(len(data)), Format: format}
	up, err := u.files.Upload(ctx)
	if err != nil {
		return nil, err
	}
	if err := up.Send(&v1.UploadRequest{File: ref, Data: data}); err != nil {
		return nil, err
	}
	_, err = up.CloseAndReceive()
	return ref, err
}

// hand is a worker's slot that makes up its results.
type hand struct {
	user *user
	nc   *nats.Conn
	info *v1.WorkerInfo
	n    int
	// uploadErrors counts uploads that were taken back: files of a replica that goes away.
	uploadErrors int
	// build stands in its files besides: another build makes other ones.
	build string
}

func ask[M proto.Message](ctx context.Context, nc *nats.Conn, name string, req proto.Message, reply M) error {
	data, err := proto.Marshal(req)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	m, err := nc.RequestWithContext(ctx, name, data)
	if err != nil {
		return err
	}
	return proto.Unmarshal(m.Data, reply)
}

// work claims and reports until ctx ends, through changes of leader. Files are uploaded only when a report asks for them.
func (h *hand) work(ctx context.Context) error {
	for ctx.Err() == nil {
		h.n++
		lease, err := h.claim(ctx)
		if err == nil && lease != nil {
			err = h.do(ctx, lease)
		}
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// again waits a little before a request is repeated.
func again(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(20 * time.Millisecond):
	}
}

// passing reports whether an answer only says to ask again.
func passing(err error, e *v1.DispatchError) bool {
	return err != nil || e.GetCode() == v1.DispatchError_CODE_NOT_LEADER || e.GetCode() == v1.DispatchError_CODE_UNAVAILABLE
}

func (h *hand) claim(ctx context.Context) (*v1.Lease, error) {
	req := &v1.ClaimRequest{RequestId: fmt.Sprint(h.info.GetSession(), "-", h.n), Worker: h.info, WaitMs: 500}
	for ctx.Err() == nil {
		reply := new(v1.ClaimReply)
		err := ask(ctx, h.nc, subject.Claim, req, reply)
		switch {
		case passing(err, reply.GetError()):
			again(ctx)
		case reply.GetError() != nil:
			return nil, fmt.Errorf("claim: %v", reply.GetError())
		default:
			return reply.GetLease(), nil
		}
	}
	return nil, ctx.Err()
}

func (h *hand) do(ctx context.Context, l *v1.Lease) error {
	t := l.GetTask()
	beat := new(v1.HeartbeatReply)
	_ = ask(ctx, h.nc, subject.Heartbeat, &v1.HeartbeatRequest{Worker: h.info.GetName(), Session: h.info.GetSession(),
		Beats: []*v1.Beat{{Task: t.GetId(), Attempt: t.GetAttempt(), Progress: &v1.Progress{Stage: "train", Fraction: 0.5}}}}, beat)
	if len(beat.GetBeats()) == 1 && beat.GetBeats()[0].GetVerdict() != v1.BeatReply_VERDICT_CONTINUE {
		return fmt.Errorf("heartbeat: %v", beat)
	}
	keep := 1.0
	for _, s := range l.GetConfig().GetSparsity() {
		keep = 1 - s
	}
	file := bytes.Repeat([]byte(t.GetId()+h.build), 1+int(1000*keep))
	sum := sha256.Sum256(file)
	ref := &v1.FileRef{Hash: hex.EncodeToString(sum[:]), SizeBytes: int64(len(file)), Format: "esp"}
	r := &v1.ReportRequest{Worker: h.info.GetName(), Session: h.info.GetSession(), Task: t.GetId(), Attempt: t.GetAttempt()}
	switch t.GetKind() {
	case v1.TaskKind_TASK_KIND_BASELINE:
		r.Outcome = &v1.ReportRequest_Baseline{Baseline: &v1.Baseline{Accuracy: 0.95, TestAccuracy: 0.94, Macs: 1000, Checkpoint: ref,
			Artifacts: []*v1.FileRef{ref}, Groups: []*v1.Group{{Name: "fc1", Weights: 100, Prunable: true, Channels: 8}},
			Strategies: []string{"magnitude", "channel-l1"}, Variant: "avx2"}}
	case v1.TaskKind_TASK_KIND_TRIAL:
		r.Outcome = &v1.ReportRequest_Trial{Trial: &v1.TrialResult{Accuracy: 0.95 - 0.1*(1-keep), Macs: int64(1000 * keep), Checkpoint: ref, Artifacts: []*v1.FileRef{ref}}}
	case v1.TaskKind_TASK_KIND_MEASURE:
		f := l.GetArtifact()
		r.Outcome = &v1.ReportRequest_Measurement{Measurement: &v1.Measurement{Device: t.GetDevice(), Format: f.GetFormat(), Artifact: f.GetHash(),
			SizeBytes: f.GetSizeBytes(), P50Ns: 100 * f.GetSizeBytes(), P95Ns: 110 * f.GetSizeBytes(), Runs: 9}}
	}
	for ctx.Err() == nil {
		reply := new(v1.ReportReply)
		err := ask(ctx, h.nc, subject.Report, r, reply)
		switch {
		case passing(err, reply.GetError()):
			again(ctx)
		case reply.GetError().GetCode() == v1.DispatchError_CODE_FILES_MISSING:
			if _, err := h.user.upload(ctx, file, "esp"); err != nil && ctx.Err() == nil {
				h.uploadErrors++
				again(ctx)
			}
		case reply.GetError() == nil && reply.GetStatus() != v1.ReportReply_STATUS_STALE:
			return nil
		default:
			return fmt.Errorf("report on %s: %v", t.GetId(), reply)
		}
	}
	return ctx.Err()
}

// crew starts workers with one slot each; the function it returns stops them.
func crew(t *testing.T, s *coordinator.Server, u *user, n int) func() {
	t.Helper()
	return crewOf(t, s, u, n, "")
}

// crewOf is a crew of a build.
func crewOf(t *testing.T, s *coordinator.Server, u *user, n int, build string) func() {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	var conns []*nats.Conn
	for i := range n {
		nc, err := nats.Connect(s.BrokerURL())
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, nc)
		h := &hand{user: u, nc: nc, build: build, info: &v1.WorkerInfo{Name: fmt.Sprint("w", i), Session: fmt.Sprint("s", i, time.Now().UnixNano()), Device: "local",
			Slots: 1, Fingerprint: &v1.Fingerprint{Cpu: "cpu", Variant: "avx2", Os: "linux"}}}
		work.Go(func() {
			if err := h.work(ctx); err != nil && ctx.Err() == nil {
				t.Errorf("worker %d: %v", i, err)
			}
		})
	}
	return func() {
		cancel()
		work.Wait()
		for _, nc := range conns {
			nc.Close()
		}
	}
}

func submit(ctx context.Context, t *testing.T, u *user, trials int32) *v1.Job {
	t.Helper()
	data, err := u.upload(ctx, []byte("pictures"), "data")
	if err != nil {
		t.Fatal(err)
	}
	for {
		got, err := u.jobs.Submit(ctx, &v1.SubmitRequest{RequestId: "once", Local: &v1.Fingerprint{Cpu: "cpu", Variant: "avx2", Os: "linux"}, Spec: &v1.JobSpec{
			Name: "job", Model: &v1.ModelSpec{Source: &v1.ModelSpec_Zoo{Zoo: "seed-cnn"}}, Data: &v1.DataSpec{Hash: data.GetHash()},
			Train: &v1.TrainSpec{Epochs: 1, Batch: 64, Optimizer: "adam", Rate: 0.001},
			Space: &v1.SpaceSpec{Strategies: []string{"magnitude", "channel-l1"}, Sparsity: &v1.Range{Max: 0.98}, Schedules: []string{"one-shot"},
				FinetuneEpochs: []float64{1}, FinetuneRate: &v1.Range{Min: 1e-4, Max: 1e-2, Log: true}},
			Devices: []string{"local"}, Search: &v1.SearchSpec{Sampler: "nsga2", Seed: 1}, Stop: &v1.StopSpec{Trials: trials}}})
		if err == nil {
			return got.GetJob()
		}
		if ctx.Err() != nil || !strings.Contains(err.Error(), "no worker on this machine") {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond) // the worker's first claim names the device
	}
}

// settle watches the job to its end and waits for its measures.
func settle(ctx context.Context, t *testing.T, u *user, job string) *v1.JobStatus {
	t.Helper()
	stream, err := u.jobs.Watch(ctx, &v1.WatchRequest{Job: job})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	for stream.Receive() {
	}
	if stream.Err() != nil {
		t.Fatal(stream.Err())
	}
	for {
		got, err := u.jobs.Get(ctx, &v1.GetRequest{Job: job})
		if err != nil {
			t.Fatal(err)
		}
		if got.GetStatus().GetPendingMeasures() == 0 && len(got.GetStatus().GetRunning()) == 0 {
			return got.GetStatus()
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// TestSearch goes the whole way: submit, claims, uploads, reports, measures, front; with the server stopped and started
// again in between.
func TestSearch(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	dir := t.TempDir()
	s := start(t, dir)
	u := dial(s.Address())
	dismiss := crew(t, s, u, 2)
	job := submit(ctx, t, u, 40)
	for {
		got, err := u.jobs.Get(ctx, &v1.GetRequest{Job: job.GetId()})
		if err != nil {
			t.Fatal(err)
		}
		if got.GetStatus().GetJob().GetCompleted() >= 10 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	dismiss()
	u.transport.CloseIdleConnections()
	stop(t, s)

	s = start(t, dir)
	defer stop(t, s)
	u = dial(s.Address())
	defer u.transport.CloseIdleConnections()
	dismiss = crew(t, s, u, 4)
	defer dismiss()
	st := settle(ctx, t, u, job.GetId())
	if j := st.GetJob(); j.GetState() != v1.JobState_JOB_STATE_DONE || j.GetCompleted() != 40 || j.GetFailed() != 0 || j.GetLastTrial() != 40 {
		t.Fatalf("job %v: %d completed, %d failed, last %d: %s", j.GetState(), j.GetCompleted(), j.GetFailed(), j.GetLastTrial(), j.GetReason())
	}
	got, err := u.jobs.Front(ctx, &v1.FrontRequest{Job: "job"})
	if err != nil {
		t.Fatal(err)
	}
	f := got.GetFront()
	if len(f.GetMeasured()) != 40 || len(f.GetMembers()) == 0 || f.GetHypervolume() <= 0 || f.GetBaseline() == nil {
		t.Errorf("front: %d measured, %d members, hypervolume %v", len(f.GetMeasured()), len(f.GetMembers()), f.GetHypervolume())
	}
	info, err := u.cluster.Info(ctx, &v1.InfoRequest{})
	if err != nil || !info.GetIsLeader() || len(info.GetBrokerUrls()) != 1 {
		t.Errorf("info %v, %v", info, err)
	}
}

func TestConfig(t *testing.T) {
	for _, tc := range []struct {
		cfg  coordinator.Config
		want error
	}{
		{coordinator.Config{}, coordinator.ErrConfig},
		{coordinator.Config{Dir: "x", CertFile: "c"}, coordinator.ErrConfig},
		{coordinator.Config{Dir: "x", Lease: -1}, coordinator.ErrConfig},
		{coordinator.Config{Dir: "x", Listen: "0.0.0.0:0"}, api.ErrInsecure},
		{coordinator.Config{Dir: "x", BrokerListen: "0.0.0.0:0", Tokens: []string{"t"}}, api.ErrInsecure},
		{coordinator.Config{Dir: "x", Listen: "0.0.0.0:0", Insecure: true}, nil},
	} {
		if err := tc.cfg.Validate(); !errors.Is(err, tc.want) {
			t.Errorf("%+v: %v, want %v", tc.cfg, err, tc.want)
		}
	}
}

// TestStartFails: what was started is stopped again.
func TestStartFails(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	defer stop(t, s)
	if other, err := coordinator.Start(t.Context(), coordinator.Config{Dir: dir, NoSync: true}); err == nil {
		stop(t, other)
		t.Error("two servers run in one folder")
	}
	if other, err := coordinator.Start(t.Context(), coordinator.Config{Dir: t.TempDir(), NoSync: true, Listen: s.Address()}); err == nil {
		stop(t, other)
		t.Error("two servers listen on one port")
	}
}
