package store

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

var update = flag.Bool("update", false, "write the scenarios' results anew")

// TestScenarios runs testdata/scenarios: each line is a command, the lines after it
// that begin with ">" are what comes of it. A second passes with each command.
//
//	submit JOB DEVICE...                    worker NAME SESSION
//	lease TASK REQUEST WORKER SESSION       new JOB NUMBER REQUEST WORKER SESSION
//	done TASK ATTEMPT WORKER SESSION [acc=A] [bytes=B] [p50=NS]
//	fail TASK ATTEMPT WORKER SESSION [permanent]
//	handback TASK ATTEMPT WORKER SESSION    end TASK ATTEMPT
//	stop JOB                                state JOB STATE
//	show JOB                                active
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/scenarios/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			got := runScenario(t, string(want))
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			diffLines(t, path, string(want), got)
		})
	}
}

func diffLines(t *testing.T, path, want, got string) {
	t.Helper()
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(w), len(g)) {
		a, b := "(end)", "(end)"
		if i < len(w) {
			a = w[i]
		}
		if i < len(g) {
			b = g[i]
		}
		if a != b {
			t.Fatalf("%s:%d:\n have %s\n want %s", path, i+1, b, a)
		}
	}
}

func runScenario(t *testing.T, text string) string {
	s := openLocal(t)
	var out strings.Builder
	var now int64
	sc := bufio.NewScanner(strings.NewReader(text))
	for sc.Scan() {
		line := sc.Text()
		if strings.HasPrefix(line, ">") {
			continue
		}
		out.WriteString(line + "\n")
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(line, "#") {
			continue
		}
		now += 1000
		for _, l := range scenarioStep(t, s, now, f) {
			out.WriteString("> " + l + "\n")
		}
	}
	return out.String()
}

func scenarioStep(t *testing.T, s *Local, now int64, f []string) []string {
	t.Helper()
	switch f[0] {
	case "show":
		return showJob(t, s, f[1])
	case "active":
		return showActive(t, s)
	}
	cmd := scenarioCommand(t, now, f)
	r := do(t, s, cmd)
	if r.Err != nil {
		return []string{"refused: " + sentinelName(r.Err)}
	}
	head := "ok"
	if r.Status != v1.ReportReply_STATUS_UNSPECIFIED {
		head = strings.ToLower(strings.TrimPrefix(r.Status.String(), "STATUS_"))
	}
	if r.Task != nil {
		head += " " + showTask(r.Task)
	}
	lines := []string{head}
	for _, c := range r.Created {
		lines = append(lines, "created "+c.Id)
	}
	for _, c := range r.Freed {
		lines = append(lines, "freed "+showTask(c))
	}
	return lines
}

func scenarioCommand(t *testing.T, now int64, f []string) *v1.Command {
	t.Helper()
	num := func() int32 {
		n, err := strconv.ParseInt(f[2], 10, 32)
		if err != nil {
			t.Fatalf("%q: %v", f, err)
		}
		return int32(n)
	}
	switch f[0] {
	case "submit":
		return submit(now, f[1], f[2:]...)
	case "worker":
		return worker(now, f[1], f[2])
	case "lease":
		return lease(now, f[1], f[2], f[3], f[4])
	case "new":
		return newTrial(now, f[1], num(), f[3], f[4], f[5])
	case "done":
		return scenarioDone(t, now, f, num())
	case "fail":
		return reportFailure(now, f[1], num(), f[3], f[4], len(f) > 5)
	case "handback":
		return handBack(now, f[1], num(), f[3], f[4])
	case "end":
		return endLease(now, f[1], num())
	case "stop":
		return stop(now, f[1])
	case "state":
		return setState(now, f[1], v1.JobState(v1.JobState_value["JOB_STATE_"+f[2]]))
	}
	t.Fatalf("unknown command %q", f)
	return nil
}

func scenarioDone(t *testing.T, now int64, f []string, attempt int32) *v1.Command {
	t.Helper()
	acc, bytes, p50 := 0.9, int64(500), int64(100)
	for _, a := range f[5:] {
		k, v, _ := strings.Cut(a, "=")
		x, err := strconv.ParseFloat(v, 64)
		if err != nil {
			t.Fatalf("%q: %v", f, err)
		}
		switch k {
		case "acc":
			acc = x
		case "bytes":
			bytes = int64(x)
		case "p50":
			p50 = int64(x)
		}
	}
	_, kind, trial, device, err := ParseTaskID(f[1])
	if err != nil {
		t.Fatal(err)
	}
	switch kind {
	case kindBaseline:
		return reportBaseline(now, f[1], attempt, f[3], f[4])
	case kindTrial:
		return reportTrial(now, f[1], attempt, f[3], f[4], trial, acc, bytes)
	}
	if trial == 0 {
		bytes = 1000
	}
	return reportMeasure(now, f[1], attempt, f[3], f[4], device, trial, bytes, p50)
}

func sentinelName(err error) string {
	for _, s := range []error{ErrInvalid, ErrNotFound, ErrExists, ErrState, ErrSession, ErrNumber, ErrAttempt, ErrDeviceMismatch} {
		if errors.Is(err, s) {
			return s.Error()
		}
	}
	return err.Error()
}

func showTask(t *v1.Task) string {
	s := fmt.Sprintf("%s %s attempt=%d", t.Id, strings.TrimPrefix(t.State.String(), "TASK_STATE_"), t.Attempt)
	if t.State == leased {
		s += fmt.Sprintf(" by=%s/%s", t.Worker, t.Session)
	}
	if t.Failures > 0 {
		s += fmt.Sprintf(" failures=%d", t.Failures)
	}
	if t.Losses > 0 {
		s += fmt.Sprintf(" losses=%d", t.Losses)
	}
	if t.NotBeforeMs > 0 {
		s += fmt.Sprintf(" not_before=%d", t.NotBeforeMs)
	}
	return s
}

func showActive(t *testing.T, s applies) (out []string) {
	t.Helper()
	err := s.View(func(v *View) error {
		for _, task := range v.ActiveTasks() {
			out = append(out, showTask(task))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func showJob(t *testing.T, s applies, id string) (out []string) {
	t.Helper()
	err := s.View(func(v *View) error {
		j := v.Job(id)
		counts := v.Counts(id)
		out = append(out, fmt.Sprintf("%s %s last=%d completed=%d failed=%d active=%d leased=%d waiting=%d paused=%dms reason=%q", j.Id,
			strings.TrimPrefix(j.State.String(), "JOB_STATE_"), j.LastTrial, j.Completed, j.Failed,
			counts.Active(), counts.Leased(), counts.Of(v1.TaskKind_TASK_KIND_MEASURE, v1.TaskState_TASK_STATE_PENDING), j.PausedMs, j.Reason))
		for _, task := range v.Tasks(id) {
			out = append(out, "  "+showTask(task))
		}
		for _, tr := range v.Trials(id, 0, 0) {
			out = append(out, fmt.Sprintf("  trial %d %s order=%d measured=%d %s", tr.Number,
				strings.TrimPrefix(tr.State.String(), "TRIAL_STATE_"), tr.Order, len(tr.Measurements), tr.Reason))
		}
		for _, d := range j.Devices {
			out = append(out, fmt.Sprintf("  front %s %v", d, v.Front(id, d)))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
