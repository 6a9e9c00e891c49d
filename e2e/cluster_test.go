package e2e

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/espalier-ml/espalier/client"
	"github.com/espalier-ml/espalier/client/clienttest"
	"github.com/espalier-ml/espalier/model/data"
	"github.com/espalier-ml/espalier/model/esp"
	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// lease is how long a lease stands here without a heartbeat.
const lease = 1500 * time.Millisecond

// trials is the length of a search here.
const trials = 10

// device is the name of the one that measures.
const device = "here"

// cluster is a server, its proxies, and workers.
type cluster struct {
	t       *testing.T
	dir     string
	role    serverRole
	server  *process
	api     *proxy
	broker  *proxy
	client  *client.Client
	workers map[string]*process
	job     string
	trials  int32    // of the search; 0: the usual number
	events  []string // what was done to it
}

// length is the number of trials of the search.
func (c *cluster) length() int32 { return cmp.Or(c.trials, trials) }

// did notes what was done to the cluster, for the table of outcomes.
func (c *cluster) did(format string, args ...any) {
	c.events = append(c.events, fmt.Sprintf(format, args...))
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	if testing.Short() {
		t.Skip("SKIPPED: processes take seconds")
	}
	c := &cluster{t: t, dir: t.TempDir(), workers: map[string]*process{}}
	c.role = serverRole{Dir: filepath.Join(c.dir, "server"), Listen: clienttest.Unused(t), Broker: clienttest.Unused(t)}
	c.api, c.broker = newProxy(t, c.role.Listen), newProxy(t, c.role.Broker)
	c.role.BrokerAdvertise = c.broker.address()
	var err error
	c.client, err = client.New(client.Config{Addresses: []string{c.role.Listen}, Patience: 30 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.client.Close)
	c.startServer()
	return c
}

func (c *cluster) startServer() {
	c.t.Helper()
	c.server = spawn(c.t, "server", "server", c.role)
}

// worker starts a worker. It keeps its folder over starts. All are on one host
// unless they say another.
func (c *cluster) worker(r workerRole) *process {
	c.t.Helper()
	if r.Server == "" {
		r.Server = c.api.address()
	}
	r.Dir = filepath.Join(c.dir, r.Name)
	r.Host = filepath.Join(c.dir, cmp.Or(r.Host, "host"))
	if err := os.MkdirAll(r.Dir, 0o755); err != nil {
		c.t.Fatal(err)
	}
	p := spawn(c.t, r.Name, "worker", r)
	c.workers[r.Name] = p
	return p
}

// measuring and training are the workers of most tests.
//
//nolint:unparam // a test that reads the name again, as of training workers, is clearer
func measuring(name string) workerRole { return workerRole{Name: name, Device: device, Slots: 1} }
func training(name string) workerRole  { return workerRole{Name: name, Slots: 1} }

var shapes = sync.OnceValue(func() []byte {
	s, err := data.Shapes(data.ShapesOptions{Train: 1200, Test: 200})
	if err != nil {
		panic(err)
	}
	var b bytes.Buffer
	if err := data.WriteCanonical(&b, s); err != nil {
		panic(err)
	}
	return b.Bytes()
})

// submit uploads the data and records the job, once the device is known.
func (c *cluster) submit() {
	c.t.Helper()
	ctx := c.t.Context()
	ref := client.HashBytes(shapes(), "data")
	if err := c.client.Upload(ctx, ref, bytes.NewReader(shapes())); err != nil {
		c.t.Fatal(err)
	}
	c.until("the device is known", func() bool {
		res, err := c.client.Cluster.Devices(ctx, &espalierv1.DevicesRequest{})
		return err == nil && len(res.GetDevices()) > 0
	})
	j, err := c.client.Submit(ctx, &espalierv1.JobSpec{
		Name: "e2e", Model: &espalierv1.ModelSpec{Source: &espalierv1.ModelSpec_Zoo{Zoo: "lenet-5"}},
		Data:  &espalierv1.DataSpec{Hash: ref.GetHash(), Seed: 1, Source: "shapes"},
		Train: &espalierv1.TrainSpec{Epochs: 3, Batch: 32, Optimizer: "adam", Rate: 0.002},
		Space: &espalierv1.SpaceSpec{
			Strategies: []string{"magnitude", "channel-l1", "hybrid"}, Sparsity: &espalierv1.Range{Max: 0.95},
			Schedules: []string{"one-shot", "polynomial"}, FinetuneEpochs: []float64{6, 12},
			FinetuneRate: &espalierv1.Range{Min: 0.0005, Max: 0.002, Log: true},
		},
		Devices: []string{device},
		Search:  &espalierv1.SearchSpec{Sampler: "random", Seed: 1, CheckpointBytes: 1 << 30},
		Stop:    &espalierv1.StopSpec{Trials: c.length()},
	}, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	c.job = j.GetId()
}

func (c *cluster) until(what string, ok func() bool) {
	c.t.Helper()
	for end := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			c.t.Fatalf("never happened: %s", what)
		}
	}
}

// status is the job's, or nil while nobody answers.
func (c *cluster) status() *espalierv1.JobStatus {
	res, err := c.client.Jobs.Get(c.t.Context(), &espalierv1.GetRequest{Job: c.job})
	if err != nil {
		return nil
	}
	return res.GetStatus()
}

// done tells whether a trial is done.
func (c *cluster) done(trial int32) bool {
	res, err := c.client.Jobs.Trials(c.t.Context(), &espalierv1.TrialsRequest{Job: c.job, After: trial - 1, Limit: 1})
	return err == nil && len(res.GetTrials()) == 1 && res.GetTrials()[0].GetState() == espalierv1.TrialState_TRIAL_STATE_DONE
}

// untilRunning waits until the worker is in the middle of a trial, and returns
// its task.
func (c *cluster) untilRunning(worker string) (task *espalierv1.Task) {
	c.t.Helper()
	c.until(fmt.Sprintf("%s runs a trial", worker), func() bool {
		for _, r := range c.status().GetRunning() {
			if t := r.GetTask(); t.GetWorker() == worker && t.GetKind() == trialKind && r.GetProgress().GetStage() == "fine-tune" {
				task = t
				return true
			}
		}
		return false
	})
	return task
}

// finish waits for the end of the search and checks what must hold after every
// test: the search is done, every trial is there once and measured, its files are
// what their hashes say, and the front is the one that all results give.
func (c *cluster) finish() []*espalierv1.Trial {
	c.t.Helper()
	var last *espalierv1.JobStatus
	end := time.Now().Add(4 * time.Minute)
	for {
		if s := c.status(); s != nil {
			last = s
			if client.Ended(s.GetJob().GetState()) && s.GetPendingMeasures() == 0 && len(s.GetRunning()) == 0 {
				break
			}
		}
		if time.Now().After(end) {
			c.t.Fatalf("the search does not end: %v", last)
		}
		time.Sleep(20 * time.Millisecond)
	}
	j := last.GetJob()
	if j.GetState() != espalierv1.JobState_JOB_STATE_DONE || j.GetCompleted() != c.length() || j.GetFailed() != 0 || j.GetLastTrial() != c.length() {
		c.t.Fatalf("job: %v, %d completed, %d failed, last trial %d: %s", j.GetState(), j.GetCompleted(), j.GetFailed(), j.GetLastTrial(), j.GetReason())
	}
	res, err := c.client.Jobs.Trials(c.t.Context(), &espalierv1.TrialsRequest{Job: c.job, Limit: 1000})
	if err != nil {
		c.t.Fatal(err)
	}
	all := res.GetTrials()
	if len(all) != int(c.length()) {
		c.t.Fatalf("%d trials, want %d", len(all), c.length())
	}
	orders := map[int32]bool{}
	for i, tr := range all {
		m := tr.GetMeasurements()[device]
		switch {
		case tr.GetNumber() != int32(i+1) || tr.GetState() != espalierv1.TrialState_TRIAL_STATE_DONE:
			c.t.Errorf("trial %d at place %d: %v %s", tr.GetNumber(), i, tr.GetState(), tr.GetReason())
		case orders[tr.GetOrder()]:
			c.t.Errorf("two trials joined as number %d", tr.GetOrder())
		case m == nil:
			c.t.Errorf("trial %d was not measured", tr.GetNumber())
		}
		orders[tr.GetOrder()] = true
		c.checkFiles(tr, m)
	}
	front := c.checkFront(all)
	again := 0
	for _, tr := range all {
		if tr.GetAttempt() > 1 {
			again++
		}
	}
	c.t.Logf("OUTCOME: %s; %d trials, each counted once and measured, %d of them at a later attempt; front of %d equals the one of all results",
		strings.Join(c.events, ", "), len(all), again, front)
	return all
}

// checkFiles downloads a trial's files, which checks their hashes, and reads the
// one that was measured.
func (c *cluster) checkFiles(tr *espalierv1.Trial, m *espalierv1.Measurement) {
	c.t.Helper()
	measured := false
	for _, ref := range tr.GetResult().GetArtifacts() {
		b, err := c.client.Read(c.t.Context(), ref, 64<<20)
		if err != nil || int64(len(b)) != ref.GetSizeBytes() {
			c.t.Errorf("trial %d: %s file of %d bytes: %v", tr.GetNumber(), ref.GetFormat(), len(b), err)
			continue
		}
		if ref.GetHash() != m.GetArtifact() {
			continue
		}
		measured = true
		g, err := esp.Read(bytes.NewReader(b), esp.Limits{})
		if err != nil || m.GetSizeBytes() != ref.GetSizeBytes() {
			c.t.Errorf("trial %d: measured file of %d bytes: %v", tr.GetNumber(), m.GetSizeBytes(), err)
			continue
		}
		if cost, err := g.Cost(); err != nil || cost.NonZeros != tr.GetResult().GetNonzeros() {
			c.t.Errorf("trial %d: %d parameters that are not zero, reported %d", tr.GetNumber(), cost.NonZeros, tr.GetResult().GetNonzeros())
		}
	}
	if !measured {
		c.t.Errorf("trial %d: none of its files was measured", tr.GetNumber())
	}
}

// checkFront compares the front with one made by comparing every pair of results.
func (c *cluster) checkFront(all []*espalierv1.Trial) (members int) {
	c.t.Helper()
	res, err := c.client.Jobs.Front(c.t.Context(), &espalierv1.FrontRequest{Job: c.job, Device: device})
	if err != nil {
		c.t.Fatal(err)
	}
	type point struct {
		trial int32
		v     [3]float64
	}
	var points []point
	for _, tr := range all {
		m := tr.GetMeasurements()[device]
		points = append(points, point{tr.GetNumber(), [3]float64{1 - tr.GetResult().GetAccuracy(), float64(m.GetSizeBytes()), float64(m.GetP50Ns())}})
	}
	var want, got []int32
	for _, p := range points {
		if !slices.ContainsFunc(points, func(q point) bool {
			better, worse := false, false
			for i := range p.v {
				better = better || q.v[i] < p.v[i]
				worse = worse || q.v[i] > p.v[i]
			}
			return better && !worse
		}) {
			want = append(want, p.trial)
		}
	}
	for _, m := range res.GetFront().GetMembers() {
		got = append(got, m.GetTrial())
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		c.t.Errorf("front has trials %v, the results give %v", got, want)
	}
	if hv := res.GetFront().GetHypervolume(); !(hv > 0 && hv < 1) || math.IsNaN(hv) {
		c.t.Errorf("hypervolume %v", hv)
	}
	return len(got)
}

// sameWhereSame checks that two trials with equal number and configuration, of two
// jobs, have the same files: what a trial makes depends on nothing else.
func sameWhereSame(t *testing.T, a, b []*espalierv1.Trial) (compared int) {
	t.Helper()
	for i := range min(len(a), len(b)) {
		if !proto.Equal(a[i].GetConfig(), b[i].GetConfig()) {
			continue
		}
		compared++
		if x, y := a[i].GetResult().GetCheckpoint().GetHash(), b[i].GetResult().GetCheckpoint().GetHash(); x != y {
			t.Errorf("trial %d: checkpoint %s and %s", a[i].GetNumber(), x, y)
		}
	}
	return compared
}
