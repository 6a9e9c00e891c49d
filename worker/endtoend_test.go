package worker

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/espalier-ml/espalier/model/data"
	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// TestWholeJob lets a worker with two slots do a small job by itself: the
// baseline, trials of it, and their measures, with real data, training and files.
func TestWholeJob(t *testing.T) {
	set, err := data.Shapes(data.ShapesOptions{Train: 400, Test: 100})
	if err != nil {
		t.Fatal(err)
	}
	var canonical bytes.Buffer
	if err := data.WriteCanonical(&canonical, set); err != nil {
		t.Fatal(err)
	}
	c := newCluster(t, nil)
	ref := c.api.Put(canonical.Bytes(), "data")
	spec := &espalierv1.JobSpec{
		Name: "whole", Model: &espalierv1.ModelSpec{Source: &espalierv1.ModelSpec_Zoo{Zoo: "mlp-784-128-10"}},
		Data:   &espalierv1.DataSpec{Hash: ref.GetHash(), Seed: 1},
		Train:  &espalierv1.TrainSpec{Epochs: 2, Batch: 32, Optimizer: "adam", Rate: 0.002},
		Space:  &espalierv1.SpaceSpec{Strategies: []string{"magnitude", "channel-l1"}},
		Search: &espalierv1.SearchSpec{Seed: 1},
	}
	const trials = 4
	lease := func(id string, kind espalierv1.TaskKind, n int32) *espalierv1.Lease {
		return &espalierv1.Lease{
			Task: &espalierv1.Task{Id: id, Job: "j", Kind: kind, Attempt: 1, Trial: n, Device: "here"}, Spec: spec, HeartbeatMs: 20, LeaseMs: 1000,
		}
	}
	c.pending = append(c.pending, lease("baseline", espalierv1.TaskKind_TASK_KIND_BASELINE, 0))
	c.onReport = func(r *espalierv1.ReportRequest) *espalierv1.DispatchError {
		switch {
		case r.GetBaseline() != nil:
			b := r.GetBaseline()
			c.pending = append(c.pending, measureOf(lease, 0, b.GetArtifacts()))
			for n := range int32(trials) {
				l := lease(fmt.Sprintf("trial %d", n+1), trial, n+1)
				l.Baseline, l.Parent = b, b.GetCheckpoint()
				l.Config = &espalierv1.TrialConfig{
					Strategy: b.GetStrategies()[n%2], Schedule: "one-shot", FinetuneEpochs: 1, FinetuneRate: 0.001,
					Sparsity: map[string]float64{b.GetGroups()[0].GetName(): 0.2 * float64(n+1)},
				}
				c.pending = append(c.pending, l)
			}
		case r.GetTrial() != nil:
			for _, f := range append(r.GetTrial().GetArtifacts(), r.GetTrial().GetCheckpoint()) {
				if int64(len(c.api.File(f.GetHash()))) != f.GetSizeBytes() {
					t.Errorf("%s: its %s file was not uploaded", r.GetTask(), f.GetFormat())
				}
			}
			var n int32
			if _, err := fmt.Sscanf(r.GetTask(), "trial %d", &n); err != nil {
				t.Errorf("task %q: %v", r.GetTask(), err)
			}
			c.pending = append(c.pending, measureOf(lease, n, r.GetTrial().GetArtifacts()))
		}
		c.notify()
		return nil
	}
	cfg := c.config()
	w, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	_, stop := c.launch(w)
	for n := range trials + 1 {
		id := fmt.Sprintf("measure %d", n)
		eventually(t, id+" reported", func() bool { return c.ended(id, accepted) == 1 })
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	for _, r := range c.reports {
		if r.GetFailure() != nil || r.GetHandBack() != nil {
			t.Errorf("%s: %v", r.GetTask(), r.GetOutcome())
		}
	}
	if m := c.last("measure 0").GetMeasurement(); m.GetP50Ns() <= 0 || m.GetWorker() != "w1" || m.GetSizeBytes() == 0 {
		t.Errorf("measurement %v", m)
	}
	if c.api.Loads(ref.GetHash()) != 1 {
		t.Errorf("the data set was downloaded %d times", c.api.Loads(ref.GetHash()))
	}
}

func measureOf(lease func(string, espalierv1.TaskKind, int32) *espalierv1.Lease, n int32, files []*espalierv1.FileRef) *espalierv1.Lease {
	l := lease(fmt.Sprintf("measure %d", n), measure, n)
	l.Artifact = files[0]
	return l
}
