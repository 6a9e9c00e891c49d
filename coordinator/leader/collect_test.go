package leader

import (
	"fmt"
	"testing"

	"github.com/espalier-ml/espalier/coordinator/store"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/search"
)

// TestCollect: of ten measured trials the three nearest the front stay besides the pinned ones.
func TestCollect(t *testing.T) {
	st, err := store.OpenLocal(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	apply := func(cmds ...*v1.Command) {
		t.Helper()
		results, err := st.Apply(t.Context(), cmds...)
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range results {
			if r.Err != nil {
				t.Fatalf("%v: %v", cmds[i], r.Err)
			}
		}
	}
	file := func(kind string, n int) *v1.FileRef {
		return &v1.FileRef{Hash: fmt.Sprintf("%064x", kind+fmt.Sprint(n)), SizeBytes: int64(1000 + n), Format: kind}
	}
	s := spec()
	s.Search.CheckpointBytes = 3100
	apply(&v1.Command{Op: &v1.Command_SubmitJob{SubmitJob: &v1.SubmitJob{Id: "j", RequestId: "j", Spec: s, Devices: []string{"local"}}}},
		&v1.Command{Op: &v1.Command_PutWorker{PutWorker: &v1.PutWorker{Worker: &v1.WorkerInfo{Name: "w", Session: "s"}}}})
	requests := 0
	lease := func(task string, trial *v1.NewTrial) {
		t.Helper()
		requests++
		apply(&v1.Command{Op: &v1.Command_LeaseTask{LeaseTask: &v1.LeaseTask{Task: task, RequestId: fmt.Sprint(requests), Worker: "w", Session: "s", Trial: trial}}})
	}
	report := func(task string, r *v1.ReportRequest, refs ...*v1.FileRef) {
		t.Helper()
		r.Worker, r.Session, r.Task, r.Attempt = "w", "s", task, 1
		apply(&v1.Command{Op: &v1.Command_AddFiles{AddFiles: &v1.AddFiles{Files: refs}}}, &v1.Command{Op: &v1.Command_Report{Report: r}})
	}
	b := baseline()
	b.Checkpoint, b.Artifacts, b.Measurements = file("ckpt", 0), []*v1.FileRef{file("esp", 0)}, nil
	lease("j/baseline", nil)
	report("j/baseline", &v1.ReportRequest{Outcome: &v1.ReportRequest_Baseline{Baseline: b}}, b.Checkpoint, b.Artifacts[0])
	measure := func(n int, p50 int64) {
		task := fmt.Sprintf("j/measure/%d/local", n)
		lease(task, nil)
		report(task, &v1.ReportRequest{Outcome: &v1.ReportRequest_Measurement{Measurement: &v1.Measurement{Device: "local", Artifact: file("esp", n).Hash,
			SizeBytes: file("esp", n).SizeBytes, P50Ns: p50, P95Ns: p50}}})
	}
	measure(0, 1000)
	l, err := New(Config{Store: st, Sampler: func(string) (search.Sampler, error) { return nil, nil }})
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 10; n++ {
		point, _ := mustPlan(t, s, baseline()).Seed(1)
		parent := int32(0)
		if n == 10 {
			parent = 9 // trial 10 goes on, and starts from the worst
		}
		lease("", &v1.NewTrial{Job: "j", Number: int32(n), Config: &v1.TrialConfig{Strategy: "magnitude", Point: point, Parent: parent}})
		if n == 10 {
			break
		}
		// The first two are the front; each further one is a little worse.
		res := &v1.TrialResult{Accuracy: 0.95 - 0.005*float64(n-1), Checkpoint: file("ckpt", n), Artifacts: []*v1.FileRef{file("esp", n)}}
		report(fmt.Sprintf("j/trial/%d", n), &v1.ReportRequest{Outcome: &v1.ReportRequest_Trial{Trial: res}}, res.Checkpoint, res.Artifacts[0])
		p50 := int64(1000 + 10*n)
		if n == 2 {
			p50 = 10
		}
		measure(n, p50)
	}
	if err := l.Collect(t.Context(), "j"); err != nil {
		t.Fatal(err)
	}
	var kept []int
	err = st.View(func(v *store.View) error {
		for n := 0; n <= 9; n++ {
			if v.File(file("ckpt", n).Hash).GetDroppedMs() == 0 {
				kept = append(kept, n)
			}
			if v.File(file("esp", n).Hash).GetDroppedMs() != 0 {
				t.Errorf("artifact %d was dropped", n)
			}
		}
		return nil
	})
	// 0 is the baseline's, 1 and 2 the front's, 9 a parent's; 3, 4 and 5 are the nearest that fit.
	if got := fmt.Sprint(kept); err != nil || got != "[0 1 2 3 4 5 9]" {
		t.Errorf("kept %s, %v, want [0 1 2 3 4 5 9]", got, err)
	}
}
