package dispatch_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// FuzzMessages: whatever a worker sends, nothing panics, and what is refused leaves the job going.
func FuzzMessages(f *testing.F) {
	add := func(m proto.Message) {
		data, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	w := &v1.WorkerInfo{Name: "w", Session: "s1", Device: "local"}
	add(&v1.ClaimRequest{RequestId: "r", Worker: w, WaitMs: -1, Kinds: []v1.TaskKind{99, v1.TaskKind_TASK_KIND_MEASURE}})
	add(&v1.HeartbeatRequest{Worker: "w", Session: "s1", Beats: []*v1.Beat{{Task: "j/baseline", Attempt: 1}}})
	for _, r := range []*v1.ReportRequest{
		{Outcome: &v1.ReportRequest_Baseline{Baseline: &v1.Baseline{Accuracy: 0.5, Groups: []*v1.Group{{Name: "g"}}}}},
		{Outcome: &v1.ReportRequest_Trial{Trial: &v1.TrialResult{Artifacts: []*v1.FileRef{{Hash: hash("x")}}}}},
		{Outcome: &v1.ReportRequest_Measurement{Measurement: &v1.Measurement{Device: "local", P50Ns: 1}}},
		{Outcome: &v1.ReportRequest_Failure{Failure: &v1.Failure{Reason: "r", Permanent: true}}},
	} {
		r.Worker, r.Session, r.Task, r.Attempt = "w", "s1", "j/baseline", 1
		add(r)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s := newScenario(t)
		for _, line := range []string{"worker w session=s1 device=local variant=avx2", "submit j", "claim w r1"} {
			s.run(line)
		}
		claim, beat, report := new(v1.ClaimRequest), new(v1.HeartbeatRequest), new(v1.ReportRequest)
		if proto.Unmarshal(data, claim) == nil {
			s.d.ClaimNow(t.Context(), claim)
		}
		if proto.Unmarshal(data, beat) == nil {
			s.d.Heartbeat(beat)
		}
		if proto.Unmarshal(data, report) == nil {
			s.d.Report(t.Context(), report)
		}
		// Whatever that was, a fresh worker is answered.
		s.run("worker fresh session=f1 variant=avx2")
		if got := s.run("claim fresh rf"); got == "" {
			t.Error("a claim has no answer")
		}
	})
}
