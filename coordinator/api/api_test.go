package api_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/goleak"

	"github.com/espalier-ml/espalier/coordinator/api"
	"github.com/espalier-ml/espalier/coordinator/store"
	"github.com/espalier-ml/espalier/job"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/proto/espalier/v1/espalierv1connect"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// replica is a store without Raft that leads or does not.
type replica struct {
	*store.Local
	follower bool
}

func (r *replica) IsLeader() bool { return !r.follower }
func (r *replica) Term() uint64   { return 3 }
func (r *replica) Linearizable(context.Context) error {
	if r.follower {
		return store.ErrNotLeader
	}
	return nil
}

// memory keeps files in memory.
type memory struct {
	mu    sync.Mutex
	files map[string][]byte
	part  map[string][]byte
}

var errHash = errors.New("wrong hash")

func (m *memory) Stat(hash string) (*v1.FileStat, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, ok := m.files[hash]
	return &v1.FileStat{Hash: hash, Present: ok, SizeBytes: int64(len(f)), ReceivedBytes: int64(len(m.part[hash]))}, nil
}

func (m *memory) Upload(_ context.Context, file *v1.FileRef, offset int64, r io.Reader) error {
	data, err := io.ReadAll(r)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.part[file.GetHash()] = append(m.part[file.GetHash()][:offset:offset], data...)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(m.part[file.GetHash()])
	if hex.EncodeToString(sum[:]) != file.GetHash() {
		return errHash
	}
	m.files[file.GetHash()] = m.part[file.GetHash()]
	delete(m.part, file.GetHash())
	return nil
}

type reader struct{ *bytes.Reader }

func (reader) Close() error { return nil }

func (m *memory) Open(_ context.Context, hash string) (io.ReadSeekCloser, int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, ok := m.files[hash]
	if !ok {
		return nil, 0, os.ErrNotExist
	}
	return reader{bytes.NewReader(f)}, int64(len(f)), nil
}

func (m *memory) Missing(_ context.Context, refs []*v1.FileRef) (out []string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range refs {
		if _, ok := m.files[r.GetHash()]; !ok {
			out = append(out, r.GetHash())
		}
	}
	return out, nil
}

type dispatcher struct{ running []*v1.RunningTask }

func (d dispatcher) Running(string) []*v1.RunningTask { return d.running }
func (d dispatcher) Seen() map[string]time.Time       { return map[string]time.Time{"w": time.Now()} }

type cluster struct{ leader string }

func (c *cluster) BrokerURLs() []string   { return []string{"nats://127.0.0.1:1"} }
func (c *cluster) Leader() string         { return c.leader }
func (c *cluster) Replicas() []string     { return []string{c.leader} }
func (c *cluster) Address(string) string  { return c.leader }
func (c *cluster) BrokerRoutes() []string { return nil }
func (c *cluster) Version(string) string  { return "" }
func (c *cluster) Ask(_ context.Context, id string) (*v1.ReplicaReport, error) {
	if id == "lost" {
		return nil, errors.New("no route")
	}
	return &v1.ReplicaReport{AppliedIndex: 7, Ready: true}, nil
}
func (c *cluster) Disk() (files, bytes, free int64, err error) { return 3, 30, 300, nil }

// members stand for the store of a cluster.
type members struct {
	api.Members
	behind  uint64
	unready error
}

func (*members) Status() store.Status {
	return store.Status{ID: "a", Leader: "a", Term: 3, Members: []store.Member{{ID: "a", Address: "127.0.0.1:5", Voter: true, Leader: true}}}
}
func (m *members) Ready() (uint64, error) { return m.behind, m.unready }
func (*members) Cluster() string          { return "c" }
func (*members) Remove(_ context.Context, id string, _ bool) error {
	return fmt.Errorf("remove %s: %w", id, store.ErrNotFound)
}
func (*members) Backup(_ context.Context, w io.Writer) (uint64, error) {
	_, err := w.Write(bytes.Repeat([]byte("b"), 600_000))
	return 7, err
}

type server struct {
	t       *testing.T
	url     string
	store   *replica
	files   *memory
	cluster *cluster
	client  *http.Client
	jobs    espalierv1connect.JobServiceClient
	filesC  espalierv1connect.FileServiceClient
	dataC   espalierv1connect.DataServiceClient
	clusC   espalierv1connect.ClusterServiceClient
}

func start(t *testing.T, change func(*api.Config)) *server {
	t.Helper()
	local, err := store.OpenLocal(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, store: &replica{Local: local}, files: &memory{files: map[string][]byte{}, part: map[string][]byte{}}, cluster: &cluster{}}
	cfg := api.Config{Store: s.store, Files: s.files, Cluster: s.cluster, Members: &members{}, Dispatch: dispatcher{}, Interval: time.Millisecond,
		Known: job.Names{Zoo: []string{"seed-cnn"}, Samplers: []string{"auto", "random"}}, Version: "test",
		FileErrors: []api.FileError{{Err: os.ErrNotExist, Code: connect.CodeNotFound}, {Err: errHash, Code: connect.CodeDataLoss}}}
	if change != nil {
		change(&cfg)
	}
	srv, err := api.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv.Serve(ln)
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	s.client = &http.Client{Transport: transport}
	s.url = "http://" + ln.Addr().String()
	s.jobs = espalierv1connect.NewJobServiceClient(s.client, s.url)
	s.filesC = espalierv1connect.NewFileServiceClient(s.client, s.url)
	s.dataC = espalierv1connect.NewDataServiceClient(s.client, s.url)
	s.clusC = espalierv1connect.NewClusterServiceClient(s.client, s.url)
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := srv.Close(ctx); err != nil {
			t.Error(err)
		}
		if err := local.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *server) apply(cmds ...*v1.Command) []store.Result {
	s.t.Helper()
	for _, c := range cmds {
		c.TimeMs = time.Now().UnixMilli()
	}
	results, err := s.store.Apply(context.Background(), cmds...)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, r := range results {
		if r.Err != nil {
			s.t.Fatal(r.Err)
		}
	}
	return results
}

func (s *server) put(data []byte) *v1.FileRef {
	sum := sha256.Sum256(data)
	hash := hex.EncodeToString(sum[:])
	s.files.mu.Lock()
	s.files.files[hash] = data
	s.files.mu.Unlock()
	return &v1.FileRef{Hash: hash, SizeBytes: int64(len(data))}
}

var cpu = &v1.Fingerprint{Cpu: "cpu", Variant: "avx2", Os: "linux"}

func (s *server) spec() *v1.JobSpec {
	return &v1.JobSpec{
		Name: "fashion", Model: &v1.ModelSpec{Source: &v1.ModelSpec_Zoo{Zoo: "seed-cnn"}},
		Data:  &v1.DataSpec{Hash: s.put([]byte("data")).GetHash(), Source: "./data", Seed: 1},
		Train: &v1.TrainSpec{Epochs: 2, Batch: 64, Optimizer: "adam", Rate: 0.001},
		Space: &v1.SpaceSpec{Strategies: []string{"magnitude"}, Sparsity: &v1.Range{Max: 0.98}, Schedules: []string{"one-shot"},
			FinetuneEpochs: []float64{1, 2}, FinetuneRate: &v1.Range{Min: 1e-4, Max: 1e-2, Log: true}},
		Devices: []string{"pi4"}, Search: &v1.SearchSpec{Sampler: "random", Seed: 1}, Stop: &v1.StopSpec{Trials: 10},
	}
}

// measured submits a job and brings it to so many measured trials, each better in one objective.
func (s *server) measured(n int) *v1.Job {
	s.t.Helper()
	sub, err := s.jobs.Submit(context.Background(), &v1.SubmitRequest{RequestId: "r", Spec: s.spec()})
	if err != nil {
		s.t.Fatal(err)
	}
	id := sub.GetJob().GetId()
	s.apply(&v1.Command{Op: &v1.Command_PutWorker{PutWorker: &v1.PutWorker{Worker: &v1.WorkerInfo{Name: "w", Session: "s", Device: "pi4"}}}},
		&v1.Command{Op: &v1.Command_PutDevice{PutDevice: &v1.PutDevice{Device: &v1.Device{Name: "pi4", Fingerprint: cpu, Format: "esp", Budget: &v1.Budget{SizeBytes: 100_000}}}}})
	lease := func(task string, trial *v1.NewTrial) {
		s.apply(&v1.Command{Op: &v1.Command_LeaseTask{LeaseTask: &v1.LeaseTask{Task: task, RequestId: fmt.Sprint(task, trial.GetNumber()), Worker: "w", Session: "s", Trial: trial}}})
	}
	report := func(task string, r *v1.ReportRequest) {
		r.Worker, r.Session, r.Task, r.Attempt = "w", "s", task, 1
		if st := s.apply(&v1.Command{Op: &v1.Command_Report{Report: r}})[0].Status; st != v1.ReportReply_STATUS_ACCEPTED {
			s.t.Fatalf("report on %s: %v", task, st)
		}
	}
	measure := func(trial int, f *v1.FileRef, p50 int64) {
		task := fmt.Sprintf("%s/measure/%d/pi4", id, trial)
		lease(task, nil)
		report(task, &v1.ReportRequest{Outcome: &v1.ReportRequest_Measurement{Measurement: &v1.Measurement{Device: "pi4", Format: "esp",
			Artifact: f.GetHash(), SizeBytes: f.GetSizeBytes(), P50Ns: p50, P95Ns: p50 + p50/10, Runs: 100}}})
	}
	dense := s.put(make([]byte, 1000))
	lease(id+"/baseline", nil)
	report(id+"/baseline", &v1.ReportRequest{Outcome: &v1.ReportRequest_Baseline{Baseline: &v1.Baseline{Accuracy: 0.95, Artifacts: []*v1.FileRef{dense},
		Checkpoint: dense, Groups: []*v1.Group{{Name: "fc", Weights: 9}}, Strategies: []string{"magnitude"}}}})
	measure(0, dense, 1000)
	for i := 1; i <= n; i++ {
		lease("", &v1.NewTrial{Job: id, Number: int32(i), Config: &v1.TrialConfig{Strategy: "magnitude", Sparsity: map[string]float64{"fc": 0.1 * float64(i)}}})
		f := s.put(bytes.Repeat([]byte{byte(i)}, 1000-100*i))
		report(fmt.Sprintf("%s/trial/%d", id, i), &v1.ReportRequest{Outcome: &v1.ReportRequest_Trial{Trial: &v1.TrialResult{Accuracy: 0.95 - 0.01*float64(i), TestAccuracy: 0.9, Artifacts: []*v1.FileRef{f}}}})
		measure(i, f, int64(1000-50*i))
	}
	return sub.GetJob()
}

func TestSubmit(t *testing.T) {
	s := start(t, nil)
	ctx := context.Background()
	one, err := s.jobs.Submit(ctx, &v1.SubmitRequest{RequestId: "r", Spec: s.spec()})
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.jobs.Submit(ctx, &v1.SubmitRequest{RequestId: "r", Spec: s.spec()})
	if err != nil || again.GetJob().GetId() != one.GetJob().GetId() {
		t.Fatalf("the same request made job %v, %v, want %s", again.GetJob().GetId(), err, one.GetJob().GetId())
	}
	if list, err := s.jobs.List(ctx, &v1.ListRequest{}); err != nil || len(list.GetJobs()) != 1 {
		t.Fatalf("list: %d jobs, %v, want 1", len(list.GetJobs()), err)
	}
	for _, ref := range []string{one.GetJob().GetId(), one.GetJob().GetId()[:4], "fashion"} {
		got, err := s.jobs.Get(ctx, &v1.GetRequest{Job: ref})
		if err != nil || got.GetStatus().GetJob().GetId() != one.GetJob().GetId() {
			t.Errorf("get %q: %v, %v", ref, got.GetStatus().GetJob().GetId(), err)
		}
	}
	if _, err := s.jobs.Get(ctx, &v1.GetRequest{Job: "nobody"}); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("get of an unknown job: %v, want not found", err)
	}
}

func TestSubmitRefuses(t *testing.T) {
	s := start(t, nil)
	for _, tc := range []struct {
		field  string
		change func(*v1.JobSpec)
	}{
		{"name", func(j *v1.JobSpec) { j.Name = "a/b" }},
		{"model", func(j *v1.JobSpec) { j.Model = nil }},
		{"model.zoo", func(j *v1.JobSpec) { j.Model = &v1.ModelSpec{Source: &v1.ModelSpec_Zoo{Zoo: "resnet"}} }},
		{"model", func(j *v1.JobSpec) { j.Model = &v1.ModelSpec{Source: &v1.ModelSpec_Onnx{Onnx: "x"}} }},
		{"data.hash", func(j *v1.JobSpec) { j.Data.Hash = strings.Repeat("A", 64) }},
		{"train.epochs", func(j *v1.JobSpec) { j.Train.Epochs = -1 }},
		{"train.batch", func(j *v1.JobSpec) { j.Train.Batch = -1 }},
		{"space.strategies", func(j *v1.JobSpec) { j.Space.Strategies = []string{"a", "a"} }},
		{"space.sparsity", func(j *v1.JobSpec) { j.Space.Sparsity.Max = 1 }},
		{"space.finetune.epochs", func(j *v1.JobSpec) { j.Space.FinetuneEpochs = []float64{1, -1} }},
		{"space.finetune.rate", func(j *v1.JobSpec) { j.Space.FinetuneRate.Min = 1 }},
		{"devices", func(j *v1.JobSpec) { j.Devices = []string{"a", "a"} }},
		{"budgets.x", func(j *v1.JobSpec) { j.Budgets = map[string]*v1.Budget{"x": {}} }},
		{"budgets.pi4.accuracy", func(j *v1.JobSpec) { j.Budgets = map[string]*v1.Budget{"pi4": {Accuracy: 2}} }},
		{"search.sampler", func(j *v1.JobSpec) { j.Search.Sampler = "magic" }},
		{"stop.trials", func(j *v1.JobSpec) { j.Stop.Trials = -1 }},
		{"stop.time", func(j *v1.JobSpec) { j.Search.Deterministic, j.Stop.TimeMs = true, 5 }},
		{"local", func(j *v1.JobSpec) { j.Devices = []string{"local"} }},
	} {
		spec := s.spec()
		tc.change(spec)
		_, err := s.jobs.Submit(context.Background(), &v1.SubmitRequest{Spec: spec})
		var ce *connect.Error
		if !errors.As(err, &ce) || ce.Code() != connect.CodeInvalidArgument || len(ce.Details()) == 0 {
			t.Errorf("%s: %v, want an invalid argument with a detail", tc.field, err)
			continue
		}
		d, err := ce.Details()[0].Value()
		if got := d.(*v1.ErrorDetail); err != nil || got.GetField() != tc.field || got.GetWant() == "" {
			t.Errorf("%s: detail %v, %v", tc.field, got, err)
		}
	}
	spec := s.spec()
	spec.Data.Hash = strings.Repeat("a", 64)
	if _, err := s.jobs.Submit(context.Background(), &v1.SubmitRequest{Spec: spec}); connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("data that was not uploaded: %v, want a failed precondition", err)
	}
}

func TestSubmitFillsInDefaults(t *testing.T) {
	s := start(t, nil)
	spec := s.spec()
	spec.Train, spec.Space, spec.Search, spec.Stop = nil, nil, nil, nil
	got, err := s.jobs.Submit(context.Background(), &v1.SubmitRequest{Spec: spec})
	if err != nil {
		t.Fatal(err)
	}
	if j := got.GetJob().GetSpec(); j.GetStop().GetTrials() != 100 || j.GetTrain().GetBatch() != 64 || j.GetSearch().GetSampler() != "auto" {
		t.Errorf("the defaults of a job file were not filled in: %v", j)
	}
}

func TestLocalDevice(t *testing.T) {
	s := start(t, nil)
	spec := s.spec()
	spec.Devices, spec.Budgets = []string{"local"}, map[string]*v1.Budget{"local": {SizeBytes: 5}}
	_, err := s.jobs.Submit(context.Background(), &v1.SubmitRequest{Spec: spec, Local: cpu})
	if connect.CodeOf(err) != connect.CodeFailedPrecondition || !strings.Contains(err.Error(), "espalier worker") {
		t.Fatalf("no worker here: %v, want an error that says what to start", err)
	}
	s.apply(&v1.Command{Op: &v1.Command_PutDevice{PutDevice: &v1.PutDevice{Device: &v1.Device{Name: "laptop", Fingerprint: cpu}}}})
	got, err := s.jobs.Submit(context.Background(), &v1.SubmitRequest{Spec: spec, Local: cpu})
	if err != nil {
		t.Fatal(err)
	}
	if d := got.GetJob().GetDevices(); len(d) != 1 || d[0] != "laptop" || got.GetJob().GetSpec().GetBudgets()["laptop"].GetSizeBytes() != 5 {
		t.Errorf("devices %v, budgets %v, want laptop in both", d, got.GetJob().GetSpec().GetBudgets())
	}
}

func TestFrontAndFit(t *testing.T) {
	s := start(t, nil)
	ctx := context.Background()
	job := s.measured(5)
	got, err := s.jobs.Front(ctx, &v1.FrontRequest{Job: job.GetId()})
	if err != nil {
		t.Fatal(err)
	}
	f := got.GetFront()
	if len(f.GetMembers()) != 5 || len(f.GetMeasured()) != 5 || f.GetBaseline().GetSizeBytes() != 1000 || f.GetHypervolume() <= 0 {
		t.Fatalf("front %v", f)
	}
	if f.GetMembers()[0].GetTrial() != 1 || f.GetMembers()[4].GetTrial() != 5 || f.GetBudget().GetSizeBytes() != 100_000 {
		t.Errorf("members must come from the most accurate on, with the device's budget: %v", f)
	}
	for _, tc := range []struct {
		budget *v1.Budget
		trial  int32
		near   int32
	}{
		{&v1.Budget{}, 1, 0},
		{&v1.Budget{SizeBytes: 750}, 3, 0},
		{&v1.Budget{SizeBytes: 700, LatencyNs: 850}, 5, 0},
		{&v1.Budget{Accuracy: 0.945}, 0, 1},
		{&v1.Budget{Accuracy: 0.93, SizeBytes: 10}, 0, 5},
	} {
		fit, err := s.jobs.Fit(ctx, &v1.FitRequest{Job: job.GetId(), Device: "pi4", Budget: tc.budget})
		if err != nil {
			t.Fatal(err)
		}
		if fit.GetMember().GetTrial() != tc.trial || fit.GetNearest().GetTrial() != tc.near || (tc.near > 0) != (fit.GetMisses() != "") {
			t.Errorf("budget %v: member %d, nearest %d, misses %q; want %d, %d", tc.budget, fit.GetMember().GetTrial(), fit.GetNearest().GetTrial(), fit.GetMisses(), tc.trial, tc.near)
		}
	}
	if _, err := s.jobs.Front(ctx, &v1.FrontRequest{Job: job.GetId(), Device: "x"}); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("front on an unknown device: %v", err)
	}
	trials, err := s.jobs.Trials(ctx, &v1.TrialsRequest{Job: job.GetId(), After: 2, Limit: 2})
	if err != nil || len(trials.GetTrials()) != 2 || trials.GetTrials()[0].GetNumber() != 3 {
		t.Errorf("trials after 2: %v, %v", trials.GetTrials(), err)
	}
}

func TestWatchAndStates(t *testing.T) {
	s := start(t, nil)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	job := s.measured(1)
	stream, err := s.jobs.Watch(ctx, &v1.WatchRequest{Job: job.GetId()})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	next := func(want v1.JobState) {
		t.Helper()
		for stream.Receive() {
			if stream.Msg().GetStatus().GetJob().GetState() == want {
				return
			}
		}
		t.Fatalf("no status %v: %v", want, stream.Err())
	}
	next(v1.JobState_JOB_STATE_SEARCHING)
	if fs := stream.Msg().GetStatus().GetFronts(); len(fs) != 1 || fs[0].GetMembers() != 1 || fs[0].GetBest().GetTrial() != 1 {
		t.Errorf("fronts %v", fs)
	}
	if _, err := s.jobs.Pause(ctx, &v1.PauseRequest{Job: job.GetId()}); err != nil {
		t.Fatal(err)
	}
	next(v1.JobState_JOB_STATE_PAUSED)
	if _, err := s.jobs.Resume(ctx, &v1.ResumeRequest{Job: job.GetId()}); err != nil {
		t.Fatal(err)
	}
	next(v1.JobState_JOB_STATE_SEARCHING)
	if _, err := s.jobs.Cancel(ctx, &v1.CancelRequest{Job: job.GetId()}); err != nil {
		t.Fatal(err)
	}
	next(v1.JobState_JOB_STATE_CANCELLED)
	if stream.Receive() || stream.Err() != nil {
		t.Errorf("the stream of an ended job must end well: %v", stream.Err())
	}
	if _, err := s.jobs.Pause(ctx, &v1.PauseRequest{Job: job.GetId()}); connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("pausing a cancelled job: %v, want a failed precondition", err)
	}
}

func TestFiles(t *testing.T) {
	s := start(t, nil)
	ctx := context.Background()
	data := bytes.Repeat([]byte("0123456789"), 100_000)
	sum := sha256.Sum256(data)
	ref := &v1.FileRef{Hash: hex.EncodeToString(sum[:]), SizeBytes: int64(len(data)), Format: "data"}
	up, err := s.filesC.Upload(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(data); i += 300_000 {
		m := &v1.UploadRequest{Data: data[i:min(i+300_000, len(data))]}
		if i == 0 {
			m.File = ref
		}
		if err := up.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := up.CloseAndReceive(); err != nil {
		t.Fatal(err)
	}
	st, err := s.filesC.Stat(ctx, &v1.StatRequest{Hashes: []string{ref.GetHash()}})
	if err != nil || !st.GetFiles()[0].GetPresent() {
		t.Fatalf("stat: %v, %v", st, err)
	}
	for _, r := range []struct{ offset, length, want int64 }{{0, 0, 1_000_000}, {999_990, 0, 10}, {5, 700_000, 700_000}, {1_000_000, 0, 0}} {
		down, err := s.filesC.Download(ctx, &v1.DownloadRequest{Hash: ref.GetHash(), Offset: r.offset, Length: r.length})
		if err != nil {
			t.Fatal(err)
		}
		var got []byte
		size := int64(0)
		for down.Receive() {
			got = append(got, down.Msg().GetData()...)
			size = max(size, down.Msg().GetSizeBytes())
		}
		if down.Err() != nil || size != 1_000_000 || !bytes.Equal(got, data[r.offset:r.offset+r.want]) {
			t.Errorf("download %v: %d bytes of %d, %v", r, len(got), size, down.Err())
		}
	}
	for _, tc := range []struct {
		req  *v1.DownloadRequest
		code connect.Code
	}{
		{&v1.DownloadRequest{Hash: "x"}, connect.CodeInvalidArgument},
		{&v1.DownloadRequest{Hash: strings.Repeat("0", 64)}, connect.CodeNotFound},
		{&v1.DownloadRequest{Hash: ref.GetHash(), Offset: 1_000_001}, connect.CodeOutOfRange},
		{&v1.DownloadRequest{Hash: ref.GetHash(), Offset: -1}, connect.CodeOutOfRange},
		{&v1.DownloadRequest{Hash: ref.GetHash(), Offset: 1, Length: 1 << 62}, connect.CodeOutOfRange},
	} {
		down, err := s.filesC.Download(ctx, tc.req)
		if err != nil {
			t.Fatal(err)
		}
		if down.Receive() || connect.CodeOf(down.Err()) != tc.code {
			t.Errorf("download %v: %v, want %v", tc.req, down.Err(), tc.code)
		}
	}
	if _, err := s.dataC.PutData(ctx, &v1.PutDataRequest{Data: &v1.DataSet{Name: "fashion", File: ref}}); err != nil {
		t.Fatal(err)
	}
	if list, err := s.dataC.ListData(ctx, &v1.ListDataRequest{}); err != nil || len(list.GetData()) != 1 || list.GetData()[0].GetName() != "fashion" {
		t.Errorf("data sets %v, %v", list.GetData(), err)
	}
}

func get(t *testing.T, client *http.Client, url, token string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// TestPlain speaks HTTP/1.1 and JSON, as curl does, with a token.
func TestPlain(t *testing.T) {
	s := start(t, func(c *api.Config) { c.Tokens = []string{"secret", "next"} })
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	plain := &http.Client{Transport: transport}
	post := func(token string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+espalierv1connect.ClusterServiceInfoProcedure, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := plain.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body)
	}
	if code, body := post("next"); code != 200 {
		t.Errorf("the second token: %d %s", code, body)
	}
	if code, body := post("secret"); code != 200 || !strings.Contains(body, `"brokerUrls":["nats://127.0.0.1:1"]`) {
		t.Errorf("info: %d %s", code, body)
	}
	if code, body := post("wrong"); code != 401 || !strings.Contains(body, "unauthenticated") {
		t.Errorf("wrong token: %d %s", code, body)
	}
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/metrics": 401, "/nothing": 404} {
		if code, _ := get(t, plain, s.url+path, ""); code != want {
			t.Errorf("%s: %d, want %d", path, code, want)
		}
	}
	code, body := get(t, plain, s.url+"/metrics", "secret")
	if code != 200 || !strings.Contains(body, "espalier_leader 1") || !strings.Contains(body, "espalier_workers 1") {
		t.Errorf("metrics: %d\n%s", code, body)
	}
}

// TestForward asks a replica that does not lead.
func TestForward(t *testing.T) {
	leader := start(t, nil)
	other := start(t, nil)
	other.store.follower = true
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := other.jobs.Submit(ctx, &v1.SubmitRequest{Spec: leader.spec()}); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("no leader: %v, want unavailable", err)
	}
	if code, _ := get(t, other.client, other.url+"/readyz", ""); code != 503 {
		t.Errorf("readyz without a leader: %d", code)
	}
	if _, err := other.jobs.List(ctx, &v1.ListRequest{}); err != nil {
		t.Errorf("a stale list without a leader: %v", err)
	}
	other.cluster.leader = strings.TrimPrefix(leader.url, "http://")
	got, err := other.jobs.Submit(ctx, &v1.SubmitRequest{Spec: leader.spec()})
	if err != nil {
		t.Fatal(err)
	}
	stream, err := other.jobs.Watch(ctx, &v1.WatchRequest{Job: got.GetJob().GetId()})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if !stream.Receive() {
		t.Fatalf("no status through another replica: %v", stream.Err())
	}
	if _, err := other.jobs.Cancel(ctx, &v1.CancelRequest{Job: got.GetJob().GetId()}); err != nil {
		t.Fatal(err)
	}
	for stream.Receive() {
	}
	if stream.Err() != nil {
		t.Errorf("watch through another replica: %v", stream.Err())
	}
	leader.store.follower = true
	leader.cluster.leader = strings.TrimPrefix(other.url, "http://")
	if _, err := other.jobs.List(ctx, &v1.ListRequest{}); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("two replicas that each take the other for the leader: %v, want unavailable", err)
	}
}

func TestMembers(t *testing.T) {
	s := start(t, nil)
	ctx := context.Background()
	got, err := s.clusC.Replicas(ctx, &v1.ReplicasRequest{})
	if err != nil || got.GetTerm() != 3 || len(got.GetReplicas()) != 1 || !got.GetReplicas()[0].GetVoter() {
		t.Errorf("replicas %v, %v", got, err)
	}
	if _, err := s.clusC.RemoveReplica(ctx, &v1.RemoveReplicaRequest{Id: "x"}); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("removing a stranger: %v", err)
	}
	stream, err := s.clusC.Backup(ctx, &v1.BackupRequest{})
	if err != nil {
		t.Fatal(err)
	}
	n, applied := 0, uint64(0)
	for stream.Receive() {
		n += len(stream.Msg().GetData())
		applied = max(applied, stream.Msg().GetAppliedIndex())
	}
	if stream.Err() != nil || n != 600_000 || applied != 7 {
		t.Errorf("backup of %d bytes up to %d: %v", n, applied, stream.Err())
	}
}

func TestCheckAddress(t *testing.T) {
	for _, tc := range []struct {
		address              string
		tls, token, insecure bool
		ok                   bool
	}{
		{"127.0.0.1:1", false, false, false, true},
		{"[::1]:1", false, false, false, true},
		{"localhost:1", false, false, false, true},
		{":1", false, false, false, false},
		{"0.0.0.0:1", true, false, false, false},
		{"0.0.0.0:1", false, true, false, false},
		{"0.0.0.0:1", true, true, false, true},
		{"example.org:1", false, false, true, true},
		{"nonsense", true, true, true, false},
	} {
		if err := api.CheckAddress(tc.address, tc.tls, tc.token, tc.insecure); (err == nil) != tc.ok {
			t.Errorf("%+v: %v", tc, err)
		}
	}
}
