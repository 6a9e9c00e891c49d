package store

import (
	"slices"

	"pgregory.net/rapid"

	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// model is what the store should hold, kept in the plainest way.
type model struct {
	now      int64
	sessions map[string]string
	jobs     map[string]*modelJob
	tasks    map[string]*modelTask
	requests int
	// Reports that were accepted, to be sent again.
	sent []*v1.Command
}

type modelJob struct {
	state, resume      v1.JobState
	stopping           bool
	last               int32
	completed, failed  int32
	order              []int32
	accuracy           map[int32]float64
	bytes              map[int32]int64
	p50                map[string]map[int32]int64
	devices            []string
	resultOf, failedOf map[int32]bool
}

type modelTask struct {
	id, job, device  string
	kind             v1.TaskKind
	trial, attempt   int32
	state            v1.TaskState
	worker, session  string
	failures, losses int
	// ended: the current attempt ended by its own report.
	ended bool
}

func (m *model) create(job string, kind v1.TaskKind, trial int32, device string) *modelTask {
	t := &modelTask{id: TaskID(job, kind, trial, device), job: job, kind: kind, trial: trial, device: device, state: pending}
	m.tasks[t.id] = t
	return t
}

func (m *model) active(job string) bool {
	for _, t := range m.tasks {
		if t.job == job && t.kind != kindMeasure && (t.state == pending || t.state == leased) {
			return true
		}
	}
	return false
}

func (m *model) settle(job string) {
	if j := m.jobs[job]; j.stopping && Live(j.state) && !m.active(job) {
		j.state = jobDone
	}
}

func (m *model) abandon(job string, state v1.JobState) {
	m.jobs[job].state = state
	for _, t := range m.tasks {
		if t.job == job && (t.state == pending || t.state == leased) {
			t.state, t.ended = taskCancelled, false
			t.session = ""
		}
	}
}

func (m *model) failTask(t *modelTask) {
	t.state = taskFailed
	j := m.jobs[t.job]
	if !Live(j.state) {
		return
	}
	switch t.kind {
	case kindTrial:
		j.failed++
		j.failedOf[t.trial] = true
		j.order = append(j.order, t.trial)
		m.settle(t.job)
	case kindBaseline:
		m.abandon(t.job, jobFailed)
	}
}

func (m *model) lose(t *modelTask) {
	t.losses++
	t.session, t.ended = "", false
	if t.losses >= MaxLosses {
		m.failTask(t)
		return
	}
	t.state = pending
}

func (m *model) succeed(t *modelTask, accuracy float64, bytes, p50 int64) {
	t.state = taskDone
	j := m.jobs[t.job]
	switch t.kind {
	case kindBaseline:
		if j.state == paused {
			j.resume = searching
		} else {
			j.state = searching
		}
	case kindTrial:
		j.completed++
		j.resultOf[t.trial] = true
		j.order = append(j.order, t.trial)
		j.accuracy[t.trial], j.bytes[t.trial] = accuracy, bytes
	case kindMeasure:
		if t.trial > 0 {
			j.p50[t.device][t.trial] = p50
		}
		return
	}
	for _, d := range j.devices {
		m.create(t.job, kindMeasure, t.trial, d)
	}
	m.settle(t.job)
}

// front is brute force over all measured trials.
func (j *modelJob) front(device string) (out []int32) {
	points := []point{}
	for n, p50 := range j.p50[device] {
		points = append(points, point{trial: n, err: 1 - j.accuracy[n], bytes: j.bytes[n], p50: p50})
	}
	for _, p := range points {
		if !slices.ContainsFunc(points, func(q point) bool { return dominates(q, p) }) {
			out = append(out, p.trial)
		}
	}
	slices.Sort(out)
	return out
}

// dominates is the definition, written another way than point.beats.
func dominates(q, p point) bool {
	noWorse := q.err <= p.err && q.bytes <= p.bytes && q.p50 <= p.p50
	better := q.err < p.err || q.bytes < p.bytes || q.p50 < p.p50
	return noWorse && better
}

func pick[T any](rt *rapid.T, label string, from []T) T {
	return from[rapid.IntRange(0, len(from)-1).Draw(rt, label)]
}

func (m *model) taskIDs() []string {
	ids := make([]string, 0, len(m.tasks))
	for id := range m.tasks {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}
