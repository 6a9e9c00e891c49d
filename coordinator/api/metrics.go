package api

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/espalier-ml/espalier/coordinator/clock"
	"github.com/espalier-ml/espalier/coordinator/store"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// metrics reads the store when it is asked.
type metrics struct{ svc *service }

var (
	descLeader  = prometheus.NewDesc("espalier_leader", "1 if this replica leads.", nil, nil)
	descTerm    = prometheus.NewDesc("espalier_raft_term", "Raft term.", nil, nil)
	descApplied = prometheus.NewDesc("espalier_raft_applied_index", "Last log entry that this replica has applied.", nil, nil)
	descJobs    = prometheus.NewDesc("espalier_jobs", "Jobs by state.", []string{"state"}, nil)
	descTasks   = prometheus.NewDesc("espalier_tasks", "Tasks by kind and state.", []string{"kind", "state"}, nil)
	descTrials  = prometheus.NewDesc("espalier_trials_total", "Trials with a result, by outcome.", []string{"outcome"}, nil)
	descHV      = prometheus.NewDesc("espalier_hypervolume", "Hypervolume of the front of a live job on a device.", []string{"job", "device"}, nil)
	descMembers = prometheus.NewDesc("espalier_front_members", "Members of the front of a live job on a device.", []string{"job", "device"}, nil)
	descWorkers = prometheus.NewDesc("espalier_workers", "Workers heard of in the last minute. Known to the leader only.", nil, nil)
	descLease   = prometheus.NewDesc("espalier_oldest_lease_seconds", "Age of the oldest lease. Known to the leader only.", nil, nil)
)

var allDescs = []*prometheus.Desc{descLeader, descTerm, descApplied, descJobs, descTasks, descTrials, descHV, descMembers, descWorkers, descLease}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range allDescs {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	st := m.svc.cfg.Store
	lead := 0.0
	if st.IsLeader() {
		lead = 1
	}
	gauge(descLeader, lead)
	gauge(descTerm, float64(st.Term()))
	now := m.svc.now()
	workers, oldest := 0, 0.0
	for _, at := range m.svc.cfg.Dispatch.Seen() {
		if now.Sub(at) < awayAfter {
			workers++
		}
	}
	for _, r := range m.svc.cfg.Dispatch.Running("") {
		oldest = max(oldest, float64(clock.Milli(now)-r.GetTask().GetLeasedMs())/1000)
	}
	gauge(descWorkers, float64(workers))
	gauge(descLease, oldest)
	err := st.View(func(v *store.View) error {
		gauge(descApplied, float64(v.AppliedIndex()))
		m.jobs(v, gauge, ch)
		return nil
	})
	if err != nil {
		ch <- prometheus.NewInvalidMetric(descJobs, err)
	}
}

func (m *metrics) jobs(v *store.View, gauge func(*prometheus.Desc, float64, ...string), ch chan<- prometheus.Metric) {
	jobs := map[v1.JobState]int{}
	tasks := map[[2]int32]int{}
	completed, failed := 0, 0
	for _, j := range v.Jobs() {
		jobs[j.GetState()]++
		completed += int(j.GetCompleted())
		failed += int(j.GetFailed())
		counts := v.Counts(j.GetId())
		for kind := range v1.TaskKind_name {
			for state := range v1.TaskState_name {
				tasks[[2]int32{kind, state}] += counts.Of(v1.TaskKind(kind), v1.TaskState(state))
			}
		}
		if !store.Live(j.GetState()) {
			continue
		}
		for _, d := range j.GetDevices() {
			members := frontMembers(v, j, d)
			gauge(descHV, hypervolume(j, d, members), j.GetId(), d)
			gauge(descMembers, float64(len(members)), j.GetId(), d)
		}
	}
	for state := range v1.JobState_name {
		if state > 0 {
			gauge(descJobs, float64(jobs[v1.JobState(state)]), word(v1.JobState(state).String(), "JOB_STATE_"))
		}
	}
	for kind := range v1.TaskKind_name {
		for state := range v1.TaskState_name {
			if kind > 0 && state > 0 {
				gauge(descTasks, float64(tasks[[2]int32{kind, state}]), word(v1.TaskKind(kind).String(), "TASK_KIND_"), word(v1.TaskState(state).String(), "TASK_STATE_"))
			}
		}
	}
	ch <- prometheus.MustNewConstMetric(descTrials, prometheus.CounterValue, float64(completed), "done")
	ch <- prometheus.MustNewConstMetric(descTrials, prometheus.CounterValue, float64(failed), "failed")
}

// word turns an enum's name into a label.
func word(name, prefix string) string { return strings.ToLower(strings.TrimPrefix(name, prefix)) }
