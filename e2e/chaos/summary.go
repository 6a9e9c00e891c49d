//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/espalier-ml/espalier/e2e/chaos/check"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// summary is what a run did and found.
type summary struct {
	Seed       uint64         `json:"seed"`
	Minutes    float64        `json:"minutes"`
	Faults     map[Kind]int   `json:"faults"`
	Operations map[string]int `json:"operations"`
	// Unclear are operations without a clear answer.
	Unclear    map[string]int `json:"unclear_operations"`
	Jobs       map[string]int `json:"jobs"`
	Trials     int            `json:"trials"`
	Results    int            `json:"results_acknowledged"`
	Stale      int            `json:"reports_refused_as_stale"`
	Retried    int            `json:"trials_counted_after_the_first_attempt"`
	Linearized int            `json:"operations_linearized"`
	Late       int            `json:"histories_not_decided_by_porcupine"`
	Reads      int            `json:"fresh_reads_checked"`
	Compared   int            `json:"replica_states_compared"`
	Fronts     int            `json:"fronts_checked"`
	Elections  uint64         `json:"terms"`
	GapMs      int64          `json:"longest_time_without_a_result_ms"`
	RecoveryMs int64          `json:"longest_recovery_ms"`
	Violations []string       `json:"violations"`
}

func (s *suite) summary(ctx context.Context, state *check.State, late, compared int) *summary {
	acks, ops, reads, _ := s.l.seen()
	_, term := s.c.leader(ctx)
	out := &summary{
		Seed: s.o.Seed, Minutes: s.o.Minutes, Faults: map[Kind]int{}, Operations: map[string]int{}, Unclear: map[string]int{}, Jobs: map[string]int{},
		Results: s.l.results(), Linearized: len(ops), Late: late, Reads: len(reads), Compared: compared,
		Elections: term, RecoveryMs: s.slowest.Milliseconds(),
	}
	s.c.mu.Lock()
	maps.Copy(out.Faults, s.c.counts)
	s.c.mu.Unlock()
	s.l.mu.Lock()
	maps.Copy(out.Operations, s.l.counts)
	maps.Copy(out.Unclear, s.l.errors)
	out.GapMs = s.l.gap.Milliseconds()
	s.l.mu.Unlock()
	for _, a := range acks {
		if a.Stale {
			out.Stale++
		}
	}
	for _, j := range state.Jobs {
		out.Jobs[strings.ToLower(strings.TrimPrefix(j.GetJob().GetState().String(), "JOB_STATE_"))]++
		out.Fronts += len(j.GetJob().GetDevices())
		for _, t := range state.Trials[j.GetJob().GetId()] {
			if t.GetState() == v1.TrialState_TRIAL_STATE_DONE {
				out.Trials++
				if t.GetAttempt() > 1 {
					out.Retried++
				}
			}
		}
	}
	return out
}

// print writes the table for people.
func (s *summary) print(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name string, format string, args ...any) {
		fmt.Fprintf(t, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	row("seed, minutes", "%d, %g", s.Seed, s.Minutes)
	row("faults injected", "%s", byName(s.Faults, nil))
	row("operations (without a clear answer)", "%s", byName(s.Operations, s.Unclear))
	row("operations linearized", "%d; histories that the second checker alone decided: %d", s.Linearized, s.Late)
	row("linearizable reads checked", "%d", s.Reads)
	row("jobs", "%s", byName(s.Jobs, nil))
	row("fronts checked by brute force", "%d", s.Fronts)
	row("replica states compared", "%d", s.Compared)
	row("results acknowledged", "%d", s.Results)
	row("trials done", "%d, of them after the first attempt: %d", s.Trials, s.Retried)
	row("reports refused as stale", "%d", s.Stale)
	row("terms", "%d", s.Elections)
	row("longest time without a result", "%v", time.Duration(s.GapMs)*time.Millisecond)
	row("longest recovery after mending", "%v", time.Duration(s.RecoveryMs)*time.Millisecond)
	if len(s.Violations) == 0 {
		row("verdict", "everything held")
	} else {
		row("verdict", "BROKEN: %d violations", len(s.Violations))
	}
	_ = t.Flush()
	for i, v := range s.Violations {
		if i == 20 {
			fmt.Fprintf(w, "… and %d more\n", len(s.Violations)-i)
			break
		}
		fmt.Fprintln(w, v)
	}
}

// byName lists counts in the order of their names, with a second count in brackets.
func byName[K ~string](counts map[K]int, second map[K]int) string {
	var out []string
	total := 0
	for _, k := range slices.Sorted(maps.Keys(counts)) {
		total += counts[k]
		text := fmt.Sprintf("%s %d", k, counts[k])
		if n := second[k]; n > 0 {
			text += fmt.Sprintf(" (%d)", n)
		}
		out = append(out, text)
	}
	return fmt.Sprintf("%d: %s", total, strings.Join(out, ", "))
}

// metric reads one number of a page in Prometheus's format; 0 if it is not there.
func metric(ctx context.Context, url, name string) float64 {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(body)) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			v, _ := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			return v
		}
	}
	return 0
}
