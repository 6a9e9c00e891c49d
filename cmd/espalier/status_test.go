package main

import (
	"strings"
	"testing"

	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

func TestShowReplicas(t *testing.T) {
	report := func(applied uint64, reason string) *espalierv1.ReplicaReport {
		return &espalierv1.ReplicaReport{
			Version: "1.0", Term: 5, AppliedIndex: applied, LogBytes: 1000, StateBytes: 2000, Ready: reason == "", Reason: reason,
			Files: 4, FileBytes: 5_000_000, FreeBytes: 67_000_000_000,
		}
	}
	r := &espalierv1.ReplicasResponse{
		Id: "a", Leader: "b", Term: 5, ClusterId: "f00d",
		Replicas: []*espalierv1.ReplicaStatus{
			{Id: "a", Voter: true, ApiAddress: "a:1", Report: report(90, "the records are 10 entries behind")},
			{Id: "b", Voter: true, Leader: true, ApiAddress: "b:1", Report: report(100, "")},
			{Id: "c", Voter: true, ApiAddress: "c:1", Problem: "no route to host", Version: "0.9"},
			{Id: "d", ApiAddress: "d:1", Report: report(1, "not a member with a vote")},
		},
	}
	show := func() string {
		var b strings.Builder
		if err := showReplicas(&b, r); err != nil {
			t.Fatal(err)
		}
		var lines []string
		for line := range strings.Lines(b.String()) {
			lines = append(lines, strings.Join(strings.Fields(line), " "))
		}
		return strings.Join(lines, "\n")
	}
	got := show()
	for _, want := range []string{
		"a voter not ready a:1 5 90 10 2 KB 1 KB 4, 5 MB 67 GB 1.0",
		"b leader ready b:1 5 100 0 2 KB",
		"c voter does not answer c:1 – – – – – – – 0.9",
		"d catching up not ready d:1 5 1 99",
		"a: the records are 10 entries behind",
		"c: no route to host",
		"cluster f00d: b leads in term 5, 2 of 3 voters answer; asked a",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
	r.Leader, r.Replicas[1].Report = "", nil
	if got, want := show(), "cluster f00d: nobody leads in term 5, 1 of 3 voters answer: no majority, nothing is recorded; asked a"; !strings.Contains(got, want) {
		t.Errorf("%q is not in\n%s", want, got)
	}
}
