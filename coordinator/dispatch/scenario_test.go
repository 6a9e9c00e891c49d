package dispatch_test

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/espalier-ml/espalier/coordinator/dispatch"
	"github.com/espalier-ml/espalier/coordinator/store"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

var rewrite = flag.Bool("rewrite", false, "write the scenarios' output into testdata")

// TestScenarios runs the files of testdata: each block is one command, a line of dashes, and what it prints.
func TestScenarios(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			s := newScenario(t)
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			for i, block := range strings.Split(strings.TrimSpace(string(data)), "\n\n") {
				command, want, ran := strings.Cut(block, "\n----\n")
				if !ran {
					command = strings.TrimSuffix(command, "\n----")
				}
				if i > 0 {
					out.WriteString("\n")
				}
				var got strings.Builder
				for _, line := range strings.Split(command, "\n") {
					if !strings.HasPrefix(line, "#") {
						got.WriteString(s.run(line))
					}
				}
				if isComment(command) {
					fmt.Fprintf(&out, "%s\n", command)
					continue
				}
				fmt.Fprintf(&out, "%s\n----\n%s", command, got.String())
				if !*rewrite && strings.TrimSpace(got.String()) != strings.TrimSpace(want) {
					t.Fatalf("%s\ngot:\n%s\nwant:\n%s", command, got.String(), want)
				}
			}
			if *rewrite {
				if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func isComment(block string) bool {
	for _, line := range strings.Split(block, "\n") {
		if !strings.HasPrefix(line, "#") {
			return false
		}
	}
	return true
}

type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

// proposer numbers trials and leaves the rest open; stop holds it back.
type proposer struct {
	store    *store.Local
	measured []string
	limit    int32
}

func (p *proposer) Measured(t *v1.Trial) {
	p.measured = append(p.measured, fmt.Sprintf("%s/%d", t.GetJob(), t.GetNumber()))
}

func (p *proposer) Propose(job string, n int) (out []*v1.NewTrial, err error) {
	err = p.store.View(func(v *store.View) error {
		for i := range int32(n) {
			number := v.Job(job).GetLastTrial() + 1 + i
			if p.limit > 0 && number > p.limit {
				break
			}
			out = append(out, &v1.NewTrial{Job: job, Number: number, Config: &v1.TrialConfig{Strategy: "magnitude", Parent: max(number-2, 0)}})
		}
		return nil
	})
	return out, err
}

type files struct{ missing []string }

func (f *files) Missing(_ context.Context, refs []*v1.FileRef) (out []string, err error) {
	for _, r := range refs {
		if slices.Contains(f.missing, r.GetHash()) {
			out = append(out, r.GetHash())
		}
	}
	return out, nil
}

// scenario is one dispatcher over the real state machine, without Raft, under a clock that only `tick` moves.
type scenario struct {
	t       *testing.T
	store   *store.Local
	clock   *clock
	files   *files
	prop    *proposer
	workers map[string]*v1.WorkerInfo
	d       *dispatch.Dispatcher
	term    uint64
	left    bool // nobody tells the dispatcher of a command's result
}

func newScenario(t *testing.T) *scenario {
	st, err := store.OpenLocal(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	s := &scenario{t: t, store: st, clock: &clock{time.UnixMilli(1_000_000)}, files: &files{},
		prop: &proposer{store: st}, workers: map[string]*v1.WorkerInfo{}}
	s.lead()
	return s
}

// lead starts a new leader's dispatcher.
func (s *scenario) lead() {
	d, err := dispatch.New(dispatch.Config{Store: s.store, Proposer: s.prop, Files: s.files, Clock: s.clock})
	if err != nil {
		s.t.Fatal(err)
	}
	s.term++
	if err := d.Enable(s.term); err != nil {
		s.t.Fatal(err)
	}
	s.d = d
}

// args splits a command into its words and its key=value pairs.
func args(line string) (words []string, keys map[string]string) {
	keys = map[string]string{}
	for _, w := range strings.Fields(line) {
		if k, v, ok := strings.Cut(w, "="); ok {
			keys[k] = v
		} else {
			words = append(words, w)
		}
	}
	return words, keys
}

func list(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

func hash(name string) string { return fmt.Sprintf("%064x", name) }

func unhash(h string) string {
	h = strings.TrimLeft(h, "0")
	out := make([]byte, len(h)/2)
	for i := range out {
		n, _ := strconv.ParseUint(h[2*i:2*i+2], 16, 8)
		out[i] = byte(n)
	}
	return string(out)
}

func (s *scenario) run(line string) string {
	w, keys := args(line)
	switch w[0] {
	case "submit":
		spec := &v1.JobSpec{Name: w[1], Search: &v1.SearchSpec{Deterministic: slices.Contains(w, "deterministic")}}
		return s.command(w[1], &v1.Command{Op: &v1.Command_SubmitJob{SubmitJob: &v1.SubmitJob{
			Id: w[1], RequestId: w[1], Spec: spec, Devices: append(list(keys["devices"]), "local")[:max(1, len(list(keys["devices"])))]}}})
	case "left": // then a command whose caller no longer waited for the result
		s.left = true
		defer func() { s.left = false }()
		return s.run(strings.TrimPrefix(line, "left "))
	case "late":
		s.d.Late()
		return ""
	case "pause":
		return s.state(w[1], v1.JobState_JOB_STATE_PAUSED)
	case "resume":
		return s.state(w[1], v1.JobState_JOB_STATE_SEARCHING)
	case "cancel":
		return s.state(w[1], v1.JobState_JOB_STATE_CANCELLED)
	case "stop":
		return s.command(w[1], &v1.Command{Op: &v1.Command_StopJob{StopJob: &v1.StopJob{Job: w[1], Reason: "enough"}}})
	case "worker":
		s.workers[w[1]] = worker(w[1], keys)
		return ""
	case "claim":
		return s.claim(w[1], w[2], keys)
	case "beat":
		return s.beat(w[1], w[2], number(w[3]))
	case "report":
		return s.report(w, keys)
	case "missing":
		s.files.missing = nil
		for _, name := range w[1:] {
			s.files.missing = append(s.files.missing, hash(name))
		}
		return ""
	case "drop":
		return s.command("", &v1.Command{Op: &v1.Command_DropFiles{DropFiles: &v1.DropFiles{Hashes: []string{hash(w[1])}}}})
	case "limit":
		s.prop.limit = number(w[1])
		return ""
	case "tick":
		d, err := time.ParseDuration(w[1])
		if err != nil {
			s.t.Fatal(err)
		}
		s.clock.now = s.clock.now.Add(d)
		if err := s.d.Expire(s.t.Context()); err != nil {
			return err.Error() + "\n"
		}
		return ""
	case "lead":
		s.d.Disable()
		s.lead()
		return ""
	case "resign":
		s.d.Disable()
		return ""
	case "tasks":
		return s.tasks(w[1])
	case "running":
		return s.running()
	}
	s.t.Fatalf("unknown command %q", line)
	return ""
}

func number(s string) int32 {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return int32(n)
}

func worker(name string, keys map[string]string) *v1.WorkerInfo {
	info := &v1.WorkerInfo{Name: name, Session: keys["session"], Device: keys["device"],
		Fingerprint: &v1.Fingerprint{Cpu: "cpu", Variant: keys["variant"], Os: "linux"}}
	for _, k := range list(keys["kinds"]) {
		info.Kinds = append(info.Kinds, v1.TaskKind(v1.TaskKind_value["TASK_KIND_"+strings.ToUpper(k)]))
	}
	return info
}

func (s *scenario) command(job string, cmd *v1.Command) string {
	cmd.TimeMs = s.clock.now.UnixMilli()
	results, err := s.store.Apply(s.t.Context(), cmd)
	if err == nil {
		err = results[0].Err
	}
	if err != nil {
		return "error: " + err.Error() + "\n"
	}
	if job == "" {
		return ""
	}
	if !s.left {
		s.d.Changed(job)
	}
	return fmt.Sprintf("%s %s\n", job, strings.TrimPrefix(results[0].Job.GetState().String(), "JOB_STATE_"))
}

func (s *scenario) state(job string, state v1.JobState) string {
	return s.command(job, &v1.Command{Op: &v1.Command_SetJobState{SetJobState: &v1.SetJobState{Job: job, State: state}}})
}

func describe(e *v1.DispatchError) string {
	out := strings.TrimPrefix(e.GetCode().String(), "CODE_") + ": " + e.GetMessage()
	for _, f := range e.GetFiles() {
		out += " " + unhash(f)
	}
	return out + "\n"
}

func (s *scenario) claim(name, request string, keys map[string]string) string {
	reply := s.d.ClaimNow(s.t.Context(), &v1.ClaimRequest{RequestId: request, Worker: s.workers[name], Kinds: worker("", keys).GetKinds()})
	if e := reply.GetError(); e != nil {
		return describe(e)
	}
	l := reply.GetLease()
	if l == nil {
		return "nothing\n"
	}
	out := fmt.Sprintf("%s attempt %d", l.GetTask().GetId(), l.GetTask().GetAttempt())
	if f := l.GetParent(); f != nil {
		out += " from " + unhash(f.GetHash())
	}
	if f := l.GetArtifact(); f != nil {
		out += " run " + unhash(f.GetHash())
	}
	return out + "\n"
}

func (s *scenario) beat(name, task string, attempt int32) string {
	w := s.workers[name]
	reply := s.d.Heartbeat(&v1.HeartbeatRequest{Worker: name, Session: w.GetSession(), Beats: []*v1.Beat{
		{Task: task, Attempt: attempt, Progress: &v1.Progress{Stage: "train", Fraction: 0.5}}}})
	if e := reply.GetError(); e != nil {
		return describe(e)
	}
	return strings.TrimPrefix(reply.GetBeats()[0].GetVerdict().String(), "VERDICT_") + "\n"
}

// report reads: report WORKER TASK ATTEMPT KIND [acc= size= p50= name= reason=].
func (s *scenario) report(w []string, keys map[string]string) string {
	req := &v1.ReportRequest{Worker: w[1], Session: s.workers[w[1]].GetSession(), Task: w[2], Attempt: number(w[3])}
	if v, ok := keys["session"]; ok {
		req.Session = v
	}
	name := keys["name"]
	acc, size := 0.9, int64(1000)
	if v, ok := keys["acc"]; ok {
		acc, _ = strconv.ParseFloat(v, 64)
	}
	artifact := &v1.FileRef{Hash: hash(name + ".esp"), SizeBytes: size, Format: "esp"}
	checkpoint := &v1.FileRef{Hash: hash(name + ".ckpt"), SizeBytes: size, Format: "checkpoint"}
	switch w[4] {
	case "baseline":
		req.Outcome = &v1.ReportRequest_Baseline{Baseline: &v1.Baseline{Accuracy: acc, Variant: "avx2", Checkpoint: checkpoint,
			Artifacts: []*v1.FileRef{artifact}, Groups: []*v1.Group{{Name: "fc1", Weights: 10}}, Strategies: []string{"magnitude"}}}
	case "trial":
		req.Outcome = &v1.ReportRequest_Trial{Trial: &v1.TrialResult{Accuracy: acc, Checkpoint: checkpoint, Artifacts: []*v1.FileRef{artifact}}}
	case "measure":
		p50, _ := strconv.ParseInt(keys["p50"], 10, 64)
		req.Outcome = &v1.ReportRequest_Measurement{Measurement: &v1.Measurement{Device: s.workers[w[1]].GetDevice(), Format: "esp",
			Artifact: artifact.GetHash(), SizeBytes: size, P50Ns: p50, P95Ns: 2 * p50, Runs: 10}}
	case "fail":
		req.Outcome = &v1.ReportRequest_Failure{Failure: &v1.Failure{Reason: keys["reason"], Permanent: slices.Contains(w, "permanent")}}
	case "handback":
		req.Outcome = &v1.ReportRequest_HandBack{HandBack: &v1.HandBack{Reason: keys["reason"]}}
	case "none":
	default:
		s.t.Fatalf("unknown outcome %q", w[4])
	}
	reply := s.d.Report(s.t.Context(), req)
	if e := reply.GetError(); e != nil {
		return describe(e)
	}
	return strings.TrimPrefix(reply.GetStatus().String(), "STATUS_") + "\n"
}

func (s *scenario) tasks(job string) string {
	var out strings.Builder
	err := s.store.View(func(v *store.View) error {
		fmt.Fprintf(&out, "job %s", strings.TrimPrefix(v.Job(job).GetState().String(), "JOB_STATE_"))
		if r := v.Job(job).GetReason(); r != "" {
			fmt.Fprintf(&out, ": %s", r)
		}
		out.WriteString("\n")
		for _, t := range v.Tasks(job) {
			fmt.Fprintf(&out, "%s %s attempt %d", t.GetId(), strings.TrimPrefix(t.GetState().String(), "TASK_STATE_"), t.GetAttempt())
			if t.GetFailures()+t.GetLosses() > 0 {
				fmt.Fprintf(&out, " failures %d losses %d", t.GetFailures(), t.GetLosses())
			}
			out.WriteString("\n")
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return out.String()
}

func (s *scenario) running() string {
	var out strings.Builder
	for _, r := range s.d.Running("") {
		fmt.Fprintf(&out, "%s %s %.1f\n", r.GetTask().GetId(), r.GetProgress().GetStage(), r.GetProgress().GetFraction())
	}
	sc := bufio.NewScanner(strings.NewReader(out.String()))
	var lines []string
	for sc.Scan() {
		lines = append(lines, strings.TrimRight(sc.Text(), " "))
	}
	return strings.Join(lines, "\n") + "\n"
}

// TestBounds: what a worker says of itself and of its progress is bounded, since it is kept.
func TestBounds(t *testing.T) {
	s := newScenario(t)
	big := &v1.WorkerInfo{Name: "w", Session: "s", Labels: map[string]string{"x": strings.Repeat("y", 20_000)}}
	for name, req := range map[string]*v1.ClaimRequest{
		"labels":  {RequestId: "r", Worker: big},
		"name":    {RequestId: "r", Worker: &v1.WorkerInfo{Name: strings.Repeat("n", 300), Session: "s"}},
		"request": {Worker: &v1.WorkerInfo{Name: "w", Session: "s"}},
		"device":  {RequestId: "r", Worker: &v1.WorkerInfo{Name: "w", Session: "s", Device: "a/b"}},
	} {
		if got := s.d.ClaimNow(t.Context(), req).GetError().GetCode(); got != v1.DispatchError_CODE_INVALID {
			t.Errorf("%s: %v, want INVALID", name, got)
		}
	}
	for _, line := range []string{"worker w session=s1 variant=avx2", "submit j", "claim w r1"} {
		s.run(line)
	}
	s.d.Heartbeat(&v1.HeartbeatRequest{Worker: "w", Session: "s1", Beats: []*v1.Beat{
		{Task: "j/baseline", Attempt: 1, Progress: &v1.Progress{Stage: strings.Repeat("é", 5000)}}}})
	if got := len(s.d.Running("j")[0].GetProgress().GetStage()); got == 0 || got > 200 {
		t.Errorf("a stage of %d bytes is kept", got)
	}
}
