package store

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// gathered reads counters and gauges by name, and how often histograms were told something.
func gathered(t *testing.T, s *Store) map[string]float64 {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(s.Metrics()...)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			out[f.GetName()] += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return out
}

// TestMetrics: what is counted is what was done.
func TestMetrics(t *testing.T) {
	s := open(t, testConfig(t.TempDir()))
	before := gathered(t, s)
	must(t, s, submit(1000, "alpha", "pi4"))
	if err := s.Snapshot(); err != nil {
		t.Fatal(err)
	}
	after := gathered(t, s)
	for name, most := range map[string]float64{
		"espalier_raft_snapshots_total": 1, "espalier_raft_snapshot_seconds": 1, "espalier_raft_commit_seconds": 1, "espalier_raft_entry_commands": 1,
	} {
		if got := after[name] - before[name]; got != most {
			t.Errorf("%s grew by %v, want %v", name, got, most)
		}
	}
	for name, want := range map[string]float64{
		"espalier_ready": 1, "espalier_store_failed": 0, "espalier_raft_members": 1, "espalier_raft_entries_behind": 0,
		"espalier_raft_last_contact_seconds": 0, "espalier_raft_state": 1,
	} {
		if after[name] != want {
			t.Errorf("%s is %v, want %v", name, after[name], want)
		}
	}
	if after["espalier_raft_log_write_seconds"] <= before["espalier_raft_log_write_seconds"] || after["espalier_raft_log_bytes"] <= 0 ||
		after["espalier_raft_last_snapshot_index"] <= 0 || after["espalier_raft_commit_index"] <= before["espalier_raft_commit_index"] {
		t.Errorf("before %v\nafter %v", before, after)
	}
}
