package store

import (
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"
)

// timings are what the store times and counts as it goes. Each is touched once for an entry or a write, never for a command.
type timings struct {
	logWrite, commit, commands prometheus.Histogram
	snapshots, restores        prometheus.Counter
	snapshotSeconds            prometheus.Histogram
}

func newTimings() *timings {
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
	}
	disk := []float64{0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.5, 2}
	return &timings{
		logWrite: histogram("espalier_raft_log_write_seconds", "Time of one write to the log, its fsync included.", disk),
		commit:   histogram("espalier_raft_commit_seconds", "Time from handing an entry to Raft until this leader had applied it.", disk),
		commands: histogram("espalier_raft_entry_commands", "Commands that shared one entry.", []float64{1, 2, 4, 8, 16, 32, 64, 128, 256, 512}),
		snapshots: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "espalier_raft_snapshots_total", Help: "Snapshots that this process wrote.",
		}),
		restores: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "espalier_raft_restores_total", Help: "Snapshots from which this process took its records.",
		}),
		snapshotSeconds: histogram("espalier_raft_snapshot_seconds", "Time to write a snapshot.", []float64{0.01, 0.05, 0.2, 1, 5, 30}),
	}
}

// Metrics are to be registered once: Raft's state, the log and its disk.
func (s *Store) Metrics() []prometheus.Collector {
	t := s.timings
	return []prometheus.Collector{t.logWrite, t.commit, t.commands, t.snapshots, t.restores, t.snapshotSeconds, &statusCollector{s}}
}

// statusCollector reads the store when it is asked.
type statusCollector struct{ s *Store }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

var (
	descState    = desc("espalier_raft_state", "1 for the state that this replica is in.", "state")
	descCommit   = desc("espalier_raft_commit_index", "Last log entry that this replica knows to be committed.")
	descBehind   = desc("espalier_raft_entries_behind", "Committed entries that this replica's records lack.")
	descFirst    = desc("espalier_raft_first_log_index", "First entry in the log.")
	descLast     = desc("espalier_raft_last_log_index", "Last entry in the log.")
	descSnapshot = desc("espalier_raft_last_snapshot_index", "Last entry that the newest snapshot holds.")
	descContact  = desc("espalier_raft_last_contact_seconds", "Time since this replica heard from the leader; 0 if it leads, -1 before the first time.")
	descMembers  = desc("espalier_raft_members", "Replicas of the cluster as this one knows them, by whether they vote.", "vote")
	descLogBytes = desc("espalier_raft_log_bytes", "Length of the log file.")
	descRecords  = desc("espalier_records_bytes", "Length of the file of the records.")
	descReady    = desc("espalier_ready", "1 if this replica can serve, as /readyz says.")
	descFailed   = desc("espalier_store_failed", "1 once a write has failed and the store has stopped.")
)

var statusDescs = []*prometheus.Desc{
	descState, descCommit, descBehind, descFirst, descLast, descSnapshot, descContact, descMembers, descLogBytes, descRecords,
	descReady, descFailed,
}

// Describe implements prometheus.Collector.
func (c *statusCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range statusDescs {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *statusCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	st := c.s.Status()
	for _, state := range []raft.RaftState{raft.Follower, raft.Candidate, raft.Leader, raft.Shutdown} {
		gauge(descState, truth(st.State == state.String()), strings.ToLower(state.String()))
	}
	behind, unready := c.s.Ready()
	gauge(descReady, truth(unready == nil))
	gauge(descFailed, truth(st.Err != nil))
	gauge(descCommit, float64(st.CommitIndex))
	gauge(descBehind, float64(behind))
	gauge(descFirst, float64(st.FirstLog))
	gauge(descLast, float64(st.LastLog))
	if n, err := strconv.ParseFloat(c.s.raft.Stats()["last_snapshot_index"], 64); err == nil {
		gauge(descSnapshot, n)
	}
	gauge(descContact, c.s.contact().Seconds())
	voters := 0
	for _, m := range st.Members {
		if m.Voter {
			voters++
		}
	}
	gauge(descMembers, float64(voters), "yes")
	gauge(descMembers, float64(len(st.Members)-voters), "no")
	gauge(descLogBytes, float64(st.LogBytes))
	gauge(descRecords, float64(st.StateBytes))
}

// contact is the time since this replica heard from the leader: 0 for the leader, -1 s if it never did.
func (s *Store) contact() time.Duration {
	at := s.raft.LastContact()
	switch {
	case s.IsLeader():
		return 0
	case at.IsZero():
		return -time.Second
	}
	return time.Since(at)
}

func truth(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
