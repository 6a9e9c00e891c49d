//go:build linux

package main

import (
	"reflect"
	"testing"
	"time"
)

func TestASeedGivesTheSamePlan(t *testing.T) {
	plan := func(seed uint64) []Period { return newPlan(seed, 10*time.Minute, serverNames(), workerNames()) }
	if !reflect.DeepEqual(plan(7), plan(7)) {
		t.Error("seed 7 gives two plans")
	}
	if reflect.DeepEqual(plan(7), plan(8)) {
		t.Error("seeds 7 and 8 give the same plan")
	}
}

func TestALongPlanHasEveryKind(t *testing.T) {
	seen := map[Kind]int{}
	for _, p := range newPlan(1, 2*time.Hour, serverNames(), workerNames()) {
		for _, f := range p.Faults {
			seen[f.Kind]++
			if f.At < 0 || f.At >= p.Length {
				t.Errorf("%v lies outside its period of %v", f, p.Length)
			}
		}
	}
	for _, w := range weights {
		if seen[w.kind] == 0 {
			t.Errorf("no %s in two hours", w.kind)
		}
	}
}

func TestAlarmingLinesAreFound(t *testing.T) {
	for line, want := range map[string]bool{
		"panic: runtime error: index out of range\n":                              true,
		"fatal error: concurrent map writes\n":                                    true,
		`{"level":"error","error":"open store: data is corrupt: entry 7"}` + "\n": true,
		`{"level":"warn","error":"connection refused","message":"not a member"}`:  false,
		`{"level":"info","worker":"w1","message":"worker started"}`:               false,
		"WARNING: DATA RACE\n": true,
	} {
		l := newLedger(func(string) {})
		l.line("s1", []byte(line))
		if got := len(l.broken()) > 0; got != want {
			t.Errorf("%q alarms: %v, want %v", line, got, want)
		}
	}
}

func TestTheLedgerReadsWorkersLogs(t *testing.T) {
	l := newLedger(func(string) {})
	l.line("w1", []byte(`{"level":"info","worker":"w1","job":"j","task":"j/trial/3","attempt":2,"outcome":"trial","message":"task reported"}`))
	l.line("w1", []byte(`{"level":"warn","worker":"w1","job":"j","task":"j/trial/4","attempt":1,"outcome":"trial","message":"`+msgStale+`"}`))
	l.line("s1", []byte(`{"level":"info","worker":"w1","job":"j","task":"j/trial/4","attempt":1,"outcome":"trial","status":"stale","message":"task reported"}`))
	acks, _, _, _ := l.seen()
	if len(acks) != 2 || acks[0].Task != "j/trial/3" || acks[0].Attempt != 2 || acks[0].Outcome != "trial" || acks[0].Stale || !acks[1].Stale || l.results() != 1 {
		t.Errorf("read %+v", acks)
	}
}
