//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/espalier-ml/espalier/e2e/chaos/check"
)

// ledger is what was seen while the cluster ran.
type ledger struct {
	begun time.Time

	mu         sync.Mutex
	acks       []check.Ack
	ops        []check.Op
	reads      []check.Read
	submitted  map[string][]string // request to the jobs that it was answered with
	counts     map[string]int      // operations by kind
	errors     map[string]int      // of them without a clear answer
	violations []string
	lastResult time.Time
	gap        time.Duration
	notes      func(string)
}

func newLedger(notes func(string)) *ledger {
	return &ledger{begun: time.Now(), submitted: map[string][]string{}, counts: map[string]int{}, errors: map[string]int{}, notes: notes}
}

// violation writes down that something does not hold, with its moment.
func (l *ledger) violation(format string, args ...any) {
	text := fmt.Sprintf("%6.1fs ", time.Since(l.begun).Seconds()) + fmt.Sprintf(format, args...)
	l.mu.Lock()
	l.violations = append(l.violations, text)
	l.mu.Unlock()
	l.notes("VIOLATION " + text)
}

func (l *ledger) note(format string, args ...any) {
	l.notes(fmt.Sprintf("%6.1fs ", time.Since(l.begun).Seconds()) + fmt.Sprintf(format, args...))
}

// logLine is what matters of a worker's log.
type logLine struct {
	Message, Worker, Task, Outcome string
	Attempt                        int32
}

// alarming are words that no log may hold, whatever is broken around the process.
var alarming = regexp.MustCompile(`(?i)\bpanic|fatal error|SIGSEGV|SIGBUS|DATA RACE|\bcorrupt|goroutine stack exceeds|concurrent map`)

// line sees a line of a process's log.
func (l *ledger) line(process string, line []byte) {
	if alarming.Match(line) {
		l.violation("%s says: %.300s", process, bytes.TrimSpace(line))
	}
	// Servers log reports in the same words, stale ones among them: only a worker knows what it was told.
	if slices.Contains(serverNames(), process) || !bytes.Contains(line, []byte(`"outcome"`)) {
		return
	}
	var said logLine
	if json.Unmarshal(line, &said) != nil || said.Message != msgReported && said.Message != msgStale {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	a := check.Ack{Worker: said.Worker, Task: said.Task, Outcome: said.Outcome, Attempt: said.Attempt, Stale: said.Message == msgStale, At: now}
	l.acks = append(l.acks, a)
	if !a.Stale && (a.Outcome == check.Baseline || a.Outcome == check.Trial || a.Outcome == check.Measurement) {
		if !l.lastResult.IsZero() {
			l.gap = max(l.gap, now.Sub(l.lastResult))
		}
		l.lastResult = now
	}
}

// op writes down an operation on a job.
func (l *ledger) op(o check.Op, job string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ops = append(l.ops, o)
	if job != "" {
		l.submitted[o.Request] = append(l.submitted[o.Request], job)
	}
}

// counted counts an operation by kind.
func (l *ledger) counted(kind string, clear bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[kind]++
	if !clear {
		l.errors[kind]++
	}
}

func (l *ledger) read(r check.Read) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reads = append(l.reads, r)
}

// results counts the acknowledged results.
func (l *ledger) results() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.acks {
		if !a.Stale && (a.Outcome == check.Baseline || a.Outcome == check.Trial || a.Outcome == check.Measurement) {
			n++
		}
	}
	return n
}

// last is when the last result was acknowledged.
func (l *ledger) last() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lastResult
}

// seen copies what the checks at the end need.
func (l *ledger) seen() (acks []check.Ack, ops []check.Op, reads []check.Read, submitted map[string][]string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	submitted = map[string][]string{}
	for k, v := range l.submitted {
		submitted[k] = slices.Clone(v)
	}
	return slices.Clone(l.acks), slices.Clone(l.ops), slices.Clone(l.reads), submitted
}

func (l *ledger) broken() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.violations)
}
