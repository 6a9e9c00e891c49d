package store

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"pgregory.net/rapid"

	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// machine drives store and model alike.
type machine struct {
	*model
	s *Local
	t *testing.T
}

func (m *machine) do(rt *rapid.T, cmd *v1.Command, want error) Result {
	m.now += 100
	cmd.TimeMs = m.now
	before := digest(m.t, m.s)
	r := do(m.t, m.s, cmd)
	if (r.Err == nil) != (want == nil) || (want != nil && !errors.Is(r.Err, want)) {
		rt.Fatalf("%v: got %v, want %v", cmd, r.Err, want)
	}
	if r.Err != nil {
		m.unchanged(rt, cmd, before)
	}
	return r
}

// unchanged holds for refused commands and fenced reports.
func (m *machine) unchanged(rt *rapid.T, cmd *v1.Command, before string) {
	if after := digest(m.t, m.s); after != before {
		rt.Fatalf("%v: changed the state", cmd)
	}
}

func (m *machine) Submit(rt *rapid.T) {
	if len(m.jobs) >= 3 {
		rt.Skip()
	}
	id := fmt.Sprintf("job%d", len(m.jobs))
	devices := []string{"a", "b"}[:rapid.IntRange(1, 2).Draw(rt, "devices")]
	m.do(rt, submit(0, id, devices...), nil)
	j := &modelJob{state: preparing, devices: devices, accuracy: map[int32]float64{}, bytes: map[int32]int64{},
		p50: map[string]map[int32]int64{}, resultOf: map[int32]bool{}, failedOf: map[int32]bool{}}
	for _, d := range devices {
		j.p50[d] = map[int32]int64{}
	}
	m.jobs[id] = j
	m.create(id, kindBaseline, 0, "")
}

func (m *machine) Worker(rt *rapid.T) {
	name := pick(rt, "worker", []string{"w1", "w2", "w3"})
	old := m.sessions[name]
	session := fmt.Sprintf("s%d", m.now)
	r := m.do(rt, worker(0, name, session), nil)
	m.sessions[name] = session
	// In the order of the tasks' keys: a lost baseline can fail its job, and with it
	// end leases that come later.
	for _, task := range r.Freed {
		t := m.tasks[task.Id]
		if t.state == leased && t.worker == name && t.session == old {
			m.lose(t)
		}
	}
	for _, t := range m.tasks {
		if t.state == leased && t.worker == name && t.session == old {
			rt.Fatalf("%s keeps the lease of an old session", t.id)
		}
	}
}

func (m *machine) someWorker(rt *rapid.T) (string, string) {
	if len(m.sessions) == 0 {
		rt.Skip()
	}
	names := make([]string, 0, 3)
	for n := range m.sessions {
		names = append(names, n)
	}
	slices.Sort(names)
	n := pick(rt, "worker", names)
	return n, m.sessions[n]
}

func (m *machine) Lease(rt *rapid.T) {
	if len(m.tasks) == 0 {
		rt.Skip()
	}
	name, session := m.someWorker(rt)
	t := m.tasks[pick(rt, "task", m.taskIDs())]
	var want error
	if t.state != pending || m.jobs[t.job].state == paused {
		want = ErrState
	}
	m.requests++
	r := m.do(rt, lease(0, t.id, fmt.Sprintf("r%d", m.requests), name, session), want)
	if want == nil {
		t.state, t.attempt, t.worker, t.session, t.ended = leased, t.attempt+1, name, session, false
		if r.Task.Attempt != t.attempt {
			rt.Fatalf("%s: attempt %d, want %d", t.id, r.Task.Attempt, t.attempt)
		}
	}
}

func (m *machine) NewTrial(rt *rapid.T) {
	if len(m.jobs) == 0 {
		rt.Skip()
	}
	name, session := m.someWorker(rt)
	id := fmt.Sprintf("job%d", rapid.IntRange(0, len(m.jobs)-1).Draw(rt, "job"))
	j := m.jobs[id]
	number := j.last + int32(rapid.SampledFrom([]int{1, 1, 1, 1, 0, 2}).Draw(rt, "step"))
	var want error
	switch {
	case j.state != searching || j.stopping:
		want = ErrState
	case number != j.last+1:
		want = ErrNumber
	}
	m.requests++
	m.do(rt, newTrial(0, id, number, fmt.Sprintf("r%d", m.requests), name, session), want)
	if want == nil {
		j.last = number
		t := m.create(id, kindTrial, number, "")
		t.state, t.attempt, t.worker, t.session = leased, 1, name, session
	}
}

// Report reports for any task with an attempt and session that may be wrong.
func (m *machine) Report(rt *rapid.T) {
	if len(m.tasks) == 0 {
		rt.Skip()
	}
	ids := m.taskIDs()
	if held := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return m.tasks[id].state != leased }); len(held) > 0 && rapid.IntRange(0, 3).Draw(rt, "held") > 0 {
		ids = held
	}
	t := m.tasks[pick(rt, "task", ids)]
	attempt := max(1, t.attempt-int32(rapid.SampledFrom([]int{0, 0, 0, 0, 1, -1}).Draw(rt, "back")))
	name, session := t.worker, t.session
	if rapid.IntRange(0, 9).Draw(rt, "stranger") == 0 || session == "" {
		name, session = m.someWorker(rt)
	}
	accuracy := float64(rapid.IntRange(1, 4).Draw(rt, "accuracy")) / 4
	bytes, p50 := int64(rapid.IntRange(1, 4).Draw(rt, "bytes")), int64(rapid.IntRange(1, 4).Draw(rt, "p50"))
	outcome := rapid.SampledFrom([]string{"done", "done", "done", "fail", "permanent", "back"}).Draw(rt, "outcome")
	var cmd *v1.Command
	switch outcome {
	case "done":
		cmd = m.done(t, attempt, name, session, accuracy, bytes, p50)
	case "back":
		cmd = handBack(0, t.id, attempt, name, session)
	default:
		cmd = reportFailure(0, t.id, attempt, name, session, outcome == "permanent")
	}
	want := v1.ReportReply_STATUS_STALE
	if attempt == t.attempt && name == t.worker && session == t.session && session != "" {
		switch {
		case t.state == leased:
			want = v1.ReportReply_STATUS_ACCEPTED
		case t.ended:
			want = v1.ReportReply_STATUS_REPEATED
		}
	}
	m.send(rt, cmd, want)
	if want != v1.ReportReply_STATUS_ACCEPTED {
		return
	}
	m.sent = append(m.sent, cmd)
	t.ended = true
	switch outcome {
	case "done":
		m.succeed(t, accuracy, bytes, p50)
	case "back":
		t.state = pending
	default:
		t.failures++
		if t.failures >= MaxFailures || outcome == "permanent" {
			m.failTask(t)
		} else {
			t.state = pending
		}
	}
}

func (m *machine) done(t *modelTask, attempt int32, name, session string, accuracy float64, bytes, p50 int64) *v1.Command {
	switch t.kind {
	case kindBaseline:
		return reportBaseline(0, t.id, attempt, name, session)
	case kindTrial:
		return reportTrial(0, t.id, attempt, name, session, t.trial, accuracy, bytes)
	}
	size := m.jobs[t.job].bytes[t.trial]
	if t.trial == 0 {
		size = 1000
	}
	return reportMeasure(0, t.id, attempt, name, session, t.device, t.trial, size, p50)
}

func (m *machine) send(rt *rapid.T, cmd *v1.Command, want v1.ReportReply_Status) {
	before := digest(m.t, m.s)
	r := m.do(rt, cmd, nil)
	if r.Status != want {
		rt.Fatalf("%v: %s, want %s", cmd, r.Status, want)
	}
	if want != v1.ReportReply_STATUS_ACCEPTED {
		m.unchanged(rt, cmd, before)
	}
}

// Again repeats a report that was accepted some time ago.
func (m *machine) Again(rt *rapid.T) {
	if len(m.sent) == 0 {
		rt.Skip()
	}
	cmd := pick(rt, "report", m.sent)
	req := cmd.GetReport()
	t := m.tasks[req.Task]
	want := v1.ReportReply_STATUS_STALE
	if t.ended && t.attempt == req.Attempt && t.session == req.Session {
		want = v1.ReportReply_STATUS_REPEATED
	}
	m.send(rt, cmd, want)
}

func (m *machine) EndLease(rt *rapid.T) {
	if len(m.tasks) == 0 {
		rt.Skip()
	}
	t := m.tasks[pick(rt, "task", m.taskIDs())]
	attempt := t.attempt - int32(rapid.IntRange(0, 1).Draw(rt, "back"))
	var want error
	switch {
	case t.state != leased:
		want = ErrState
	case attempt != t.attempt:
		want = ErrAttempt
	}
	m.do(rt, endLease(0, t.id, attempt), want)
	if want == nil {
		m.lose(t)
	}
}

func (m *machine) Stop(rt *rapid.T) {
	id, j := m.someJob(rt)
	var want error
	if !Live(j.state) {
		want = ErrState
	}
	m.do(rt, stop(0, id), want)
	if want == nil {
		j.stopping = true
		m.settle(id)
	}
}

func (m *machine) someJob(rt *rapid.T) (string, *modelJob) {
	// Often nothing: jobs should live long enough to have trials.
	if len(m.jobs) == 0 || rapid.IntRange(0, 5).Draw(rt, "spare") > 0 {
		rt.Skip()
	}
	id := fmt.Sprintf("job%d", rapid.IntRange(0, len(m.jobs)-1).Draw(rt, "job"))
	return id, m.jobs[id]
}

func (m *machine) State(rt *rapid.T) {
	id, j := m.someJob(rt)
	to := rapid.SampledFrom([]v1.JobState{paused, paused, searching, searching, searching, cancelled, jobFailed}).Draw(rt, "state")
	var want error
	switch {
	case j.state == to, to == searching && j.state == preparing:
	case !Live(j.state):
		want = ErrState
	}
	m.do(rt, setState(0, id, to), want)
	if want != nil || j.state == to {
		return
	}
	switch to {
	case paused:
		j.resume, j.state = j.state, paused
	case searching:
		if j.state == paused {
			j.state = j.resume
			m.settle(id)
		}
	default:
		m.abandon(id, to)
	}
}

// Check compares everything.
func (m *machine) check(rt *rapid.T) {
	err := m.s.View(func(v *View) error {
		for id, j := range m.jobs {
			m.checkJob(rt, v, id, j)
		}
		active := 0
		for _, t := range m.tasks {
			got := v.Task(t.id)
			if got.State != t.state || got.Attempt != t.attempt || int(got.Failures) != t.failures || int(got.Losses) != t.losses {
				rt.Fatalf("task %v, want %+v", got, *t)
			}
			if t.state == pending || t.state == leased {
				active++
			}
		}
		if n := len(v.ActiveTasks()); n != active {
			rt.Fatalf("%d active tasks, want %d", n, active)
		}
		return nil
	})
	if err != nil {
		rt.Fatal(err)
	}
}

func (m *machine) checkJob(rt *rapid.T, v *View, id string, j *modelJob) {
	got := v.Job(id)
	if got.State != j.state || got.LastTrial != j.last || got.Completed != j.completed || got.Failed != j.failed || got.Stopping != j.stopping {
		rt.Fatalf("job %v, want %+v", got, *j)
	}
	var order []int32
	for i, tr := range v.TrialsByOrder(id, 0, 0) {
		order = append(order, tr.Number)
		if tr.Order != int32(i+1) {
			rt.Fatalf("trial %d of %s has place %d, want %d", tr.Number, id, tr.Order, i+1)
		}
	}
	if !slices.Equal(order, j.order) {
		rt.Fatalf("order %v, want %v", order, j.order)
	}
	if n := len(v.Trials(id, 0, 0)); n != int(j.last) {
		rt.Fatalf("%d trials, want %d", n, j.last)
	}
	if n := len(j.resultOf) + len(j.failedOf); n != int(j.completed+j.failed) {
		rt.Fatalf("%d results counted, %d trials have one", j.completed+j.failed, n)
	}
	for _, d := range j.devices {
		if f := v.Front(id, d); !slices.Equal(f, j.front(d)) {
			rt.Fatalf("front %v, want %v", f, j.front(d))
		}
	}
	counts := v.Counts(id)
	tasks := 0
	for _, t := range v.Tasks(id) {
		if !strings.HasPrefix(t.Id, id+"/") {
			rt.Fatalf("task %s is listed under %s", t.Id, id)
		}
		tasks++
		counts[t.Kind][t.State]--
	}
	if counts != (Counts{}) {
		rt.Fatalf("counts are off by %v", counts)
	}
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir := t.TempDir()
		s, err := OpenLocal(dir)
		if err != nil {
			rt.Fatal(err)
		}
		defer func() {
			if err := s.Close(); err != nil {
				rt.Fatal(err)
			}
			checkBolt(t, s.fsm.path)
		}()
		m := &machine{s: s, t: t, model: &model{
			sessions: map[string]string{}, jobs: map[string]*modelJob{}, tasks: map[string]*modelTask{},
		}}
		rt.Repeat(map[string]func(*rapid.T){
			"Submit": m.Submit, "Worker": m.Worker, "Lease": m.Lease, "Lease2": m.Lease, "NewTrial": m.NewTrial,
			"NewTrial2": m.NewTrial, "Report": m.Report, "Report2": m.Report, "Report3": m.Report, "Again": m.Again,
			"EndLease": m.EndLease, "Stop": m.Stop, "State": m.State, "": m.check,
		})
	})
}

// TestCopyJob: a copy has every field.
func TestCopyJob(t *testing.T) {
	var j v1.Job
	fields := j.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		switch {
		case f.IsList():
			l := j.ProtoReflect().Mutable(f).List()
			if f.Kind() == protoreflect.Int32Kind {
				l.Append(protoreflect.ValueOfInt32(1))
			} else {
				l.Append(protoreflect.ValueOfString("x"))
			}
		case f.Kind() == protoreflect.MessageKind:
			j.ProtoReflect().Mutable(f)
		case f.Kind() == protoreflect.StringKind:
			j.ProtoReflect().Set(f, protoreflect.ValueOfString("x"))
		case f.Kind() == protoreflect.Int64Kind:
			j.ProtoReflect().Set(f, protoreflect.ValueOfInt64(1))
		case f.Kind() == protoreflect.Int32Kind:
			j.ProtoReflect().Set(f, protoreflect.ValueOfInt32(1))
		case f.Kind() == protoreflect.BoolKind:
			j.ProtoReflect().Set(f, protoreflect.ValueOfBool(true))
		case f.Kind() == protoreflect.EnumKind:
			j.ProtoReflect().Set(f, protoreflect.ValueOfEnum(1))
		default:
			t.Fatalf("field %s is of a kind that this test does not know", f.Name())
		}
	}
	if c := copyJob(&j); !proto.Equal(c, &j) {
		t.Errorf("copy %v, want %v", c, &j)
	}
}
