//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/espalier-ml/espalier/client"
	"github.com/espalier-ml/espalier/e2e/chaos/check"
	"github.com/espalier-ml/espalier/model/data"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

const (
	clients = 5
	// mostJobs bounds the jobs that are not known to have ended.
	mostJobs = 3
	// opTimeout bounds one request; after it the outcome is unknown.
	opTimeout = 4 * time.Second
)

// load is the clients, and the jobs that they work on together.
type load struct {
	c      *cluster
	l      *ledger
	data   *v1.FileRef
	prefix string
	mu     sync.Mutex
	jobs   []*jobSeen
	made   int
}

// jobSeen is a job as clients know it.
type jobSeen struct {
	request, id string
	spec        *v1.JobSpec
	ended       bool
}

// newLoad uploads the data set that all jobs use.
func newLoad(ctx context.Context, c *cluster) (*load, error) {
	set, err := data.Shapes(data.ShapesOptions{Train: 120, Test: 20})
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := data.WriteCanonical(&b, set); err != nil {
		return nil, err
	}
	ld := &load{c: c, l: c.ledger, data: client.HashBytes(b.Bytes(), "data"), prefix: client.NewRequestID()[:6]}
	poll(ctx, time.Minute, 200*time.Millisecond, func() bool {
		err = c.clients[0].Upload(ctx, ld.data, bytes.NewReader(b.Bytes()))
		return err == nil
	})
	return ld, err
}

// run lets the clients work until ctx ends.
func (ld *load) run(ctx context.Context) {
	var work sync.WaitGroup
	for i := range clients {
		work.Go(func() {
			for ctx.Err() == nil {
				ld.once(ctx, i)
				sleep(ctx, 50*time.Millisecond+rand.N(400*time.Millisecond))
			}
		})
	}
	work.Wait()
}

// once does one thing through one replica.
func (ld *load) once(ctx context.Context, client int) {
	server := rand.IntN(servers)
	job := ld.pick()
	n := rand.IntN(100)
	switch {
	case job == nil:
		if j := ld.newJob(); j != nil {
			ld.submit(ctx, client, server, j)
		}
	case ld.id(job) == "" || n < 25:
		ld.submit(ctx, client, server, job) // again, with the same request id: a linearizable read
	case n < 40:
		ld.control(ctx, client, server, job, check.Pause)
	case n < 68:
		ld.control(ctx, client, server, job, check.Resume)
	case n < 70:
		ld.control(ctx, client, server, job, check.Cancel)
	case n < 85:
		ld.fit(ctx, server, job)
	default:
		ld.look(ctx, server, job)
	}
}

// pick takes a job that goes on, or rarely one that has ended; nil when there is room for a new one.
func (ld *load) pick() *jobSeen {
	ld.mu.Lock()
	defer ld.mu.Unlock()
	var open []*jobSeen
	for _, j := range ld.jobs {
		if !j.ended {
			open = append(open, j)
		}
	}
	switch {
	case len(open) < mostJobs && rand.IntN(3) == 0 || len(ld.jobs) == 0:
		return nil
	case len(open) == 0 || rand.IntN(10) == 0:
		return ld.jobs[rand.IntN(len(ld.jobs))]
	}
	return open[rand.IntN(len(open))]
}

func (ld *load) newJob() *jobSeen {
	ld.mu.Lock()
	defer ld.mu.Unlock()
	ld.made++
	j := &jobSeen{request: fmt.Sprintf("%s-%d", ld.prefix, ld.made), spec: ld.spec(ld.made)}
	ld.jobs = append(ld.jobs, j)
	return j
}

// spec is a small job: a tiny network, little data, few trials.
func (ld *load) spec(number int) *v1.JobSpec {
	devices, trials := []string{handDevice}, 3+rand.IntN(10)
	if rand.IntN(8) == 0 {
		// A real measurement takes a second of a real worker.
		devices, trials = [][]string{{realDevice}, {handDevice, realDevice}}[rand.IntN(2)], 3
	}
	return &v1.JobSpec{
		Name: fmt.Sprintf("%s-%d", ld.prefix, number),
		Model: &v1.ModelSpec{Source: &v1.ModelSpec_Layers{Layers: &v1.LayerList{Layers: []*v1.LayerSpec{
			{Kind: "conv", Name: "conv1", Out: 4, Kernel: []int32{3, 3}, Stride: []int32{2, 2}, Activation: "relu"},
			{Kind: "flatten", Name: "flat"},
			{Kind: "dense", Name: "fc", Out: 10},
		}}}},
		Data:  &v1.DataSpec{Hash: ld.data.GetHash(), Seed: 1, Source: "shapes"},
		Train: &v1.TrainSpec{Epochs: 1, Batch: 16, Optimizer: "adam", Rate: 0.002},
		Space: &v1.SpaceSpec{
			Strategies: []string{"magnitude", "channel-l1"}, Sparsity: &v1.Range{Max: 0.9}, Schedules: []string{"one-shot"},
			FinetuneEpochs: []float64{0.5}, FinetuneRate: &v1.Range{Min: 0.0005, Max: 0.002, Log: true},
		},
		Devices: devices,
		Search:  &v1.SearchSpec{Sampler: []string{"random", "nsga2"}[rand.IntN(2)], Seed: uint64(number), CheckpointBytes: 20_000},
		Stop:    &v1.StopSpec{Trials: int32(trials)},
	}
}

// answer sorts what came back.
func answer(err error) check.Answer {
	switch {
	case err == nil:
		return check.Done
	case connect.CodeOf(err) == connect.CodeFailedPrecondition && connect.IsWireError(err):
		return check.Refused
	case connect.CodeOf(err) == connect.CodeNotFound && connect.IsWireError(err):
		return check.Absent
	}
	return check.Unknown
}

func (ld *load) submit(ctx context.Context, clientNumber, server int, j *jobSeen) bool {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	op := check.Op{Client: clientNumber, Request: j.request, Verb: check.Submit, Begun: time.Now()}
	r, err := ld.c.clients[server].Jobs.Submit(ctx, &v1.SubmitRequest{RequestId: j.request, Spec: j.spec})
	op.Ended, op.Answer, op.State = time.Now(), answer(err), r.GetJob().GetState()
	if connect.CodeOf(err) == connect.CodeInvalidArgument && err != nil {
		ld.l.violation("a good job was refused: %v", err)
	}
	if op.Answer != check.Done {
		// The files may not be on this replica yet: nothing is known of the job.
		op.Answer = check.Unknown
	}
	ld.l.op(op, r.GetJob().GetId())
	ld.l.counted("submit", op.Answer == check.Done)
	ld.told(j, r.GetJob())
	return op.Answer == check.Done
}

// id is a job's id; empty until a client was told of it.
func (ld *load) id(j *jobSeen) string {
	ld.mu.Lock()
	defer ld.mu.Unlock()
	return j.id
}

// told notes what a client now knows of a job.
func (ld *load) told(j *jobSeen, job *v1.Job) {
	if job == nil {
		return
	}
	ld.mu.Lock()
	defer ld.mu.Unlock()
	j.id = job.GetId()
	j.ended = j.ended || client.Ended(job.GetState())
}

func (ld *load) control(ctx context.Context, clientNumber, server int, j *jobSeen, verb check.Verb) {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	jobs, id := ld.c.clients[server].Jobs, ld.id(j)
	var job *v1.Job
	var err error
	op := check.Op{Client: clientNumber, Request: j.request, Verb: verb, Begun: time.Now()}
	switch verb {
	case check.Pause:
		var r *v1.PauseResponse
		r, err = jobs.Pause(ctx, &v1.PauseRequest{Job: id})
		job = r.GetJob()
	case check.Resume:
		var r *v1.ResumeResponse
		r, err = jobs.Resume(ctx, &v1.ResumeRequest{Job: id})
		job = r.GetJob()
	case check.Cancel:
		var r *v1.CancelResponse
		r, err = jobs.Cancel(ctx, &v1.CancelRequest{Job: id})
		job = r.GetJob()
	}
	op.Ended, op.Answer, op.State = time.Now(), answer(err), job.GetState()
	ld.l.op(op, "")
	ld.l.counted(string(verb), op.Answer != check.Unknown)
	ld.told(j, job)
}

// fit reads a front linearizably.
func (ld *load) fit(ctx context.Context, server int, j *jobSeen) {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	read := check.Read{Job: ld.id(j), Device: j.spec.GetDevices()[0], Begun: time.Now(), Replica: serverNames()[server]}
	r, err := ld.c.clients[server].Jobs.Fit(ctx, &v1.FitRequest{Job: read.Job, Device: read.Device})
	told := answer(err)
	ld.l.counted("fit", told != check.Unknown)
	switch told {
	case check.Done:
		read.Trial, read.Accuracy = r.GetMember().GetTrial(), r.GetMember().GetAccuracy()
		ld.l.read(read)
	case check.Refused: // nothing is measured yet
		read.None = true
		ld.l.read(read)
	case check.Absent:
		ld.l.violation("job %s was acknowledged, and %s knows none", read.Job, read.Replica)
	}
}

// look reads what may be stale: status, trials and fronts.
func (ld *load) look(ctx context.Context, server int, j *jobSeen) {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	jobs, id := ld.c.clients[server].Jobs, ld.id(j)
	var err error
	kind := []string{"status", "status", "status", "trials", "trials", "front", "front", "list"}[rand.IntN(8)]
	switch kind {
	case "status":
		var r *v1.GetResponse
		r, err = jobs.Get(ctx, &v1.GetRequest{Job: id})
		if err == nil {
			ld.told(j, r.GetStatus().GetJob())
		}
	case "trials":
		_, err = jobs.Trials(ctx, &v1.TrialsRequest{Job: id})
	case "front":
		_, err = jobs.Front(ctx, &v1.FrontRequest{Job: id, Device: j.spec.GetDevices()[0]})
	case "list":
		_, err = jobs.List(ctx, &v1.ListRequest{})
	}
	ld.l.counted(kind, err == nil)
}
