package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/espalier-ml/espalier/local"
	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// progress shows a job's status while it runs.
type progress interface {
	status(*espalierv1.JobStatus)
	close()
}

// newProgress shows bars on a terminal and plain lines elsewhere.
func newProgress(w io.Writer) progress {
	if _, ok := isTerminal(w); ok {
		return newBars(w)
	}
	return &lines{w: w}
}

// lines prints a line whenever something was finished, and every few seconds of
// the baseline.
type lines struct {
	w    io.Writer
	last string
	at   time.Time
}

// lineEvery is the least time between two lines that differ only in a fraction.
const lineEvery = 2 * time.Second

func (l *lines) status(s *espalierv1.JobStatus) {
	key := fmt.Sprint(s.Job.State, s.Job.Completed, s.Job.Failed, s.Job.Baseline != nil)
	if key == l.last && (s.Job.Baseline != nil || time.Since(l.at) < lineEvery) {
		return
	}
	l.last, l.at = key, time.Now()
	fmt.Fprintln(l.w, describe(s))
}

func (l *lines) close() {}

// describe says in one line where a job stands.
func describe(s *espalierv1.JobStatus) string {
	j := s.Job
	if j.Baseline == nil {
		parts := []string{"baseline"}
		for _, r := range s.Running {
			if p := r.Progress; p != nil {
				parts = append(parts, fmt.Sprintf("%s %.0f %%", p.Stage, 100*p.Fraction))
				if p.Loss > 0 {
					parts = append(parts, fmt.Sprintf("loss %.3f", p.Loss))
				}
			}
		}
		if j.State == espalierv1.JobState_JOB_STATE_FAILED {
			parts = append(parts, "failed")
		}
		return strings.Join(parts, " · ")
	}
	parts := []string{fmt.Sprintf("trials %s done", outOf(j))}
	if j.Failed > 0 {
		parts = append(parts, fmt.Sprintf("%d failed", j.Failed))
	}
	if n := len(s.Running); n > 0 {
		parts = append(parts, fmt.Sprintf("%d running", n))
	}
	for _, f := range s.Fronts {
		parts = append(parts, fmt.Sprintf("front %d", f.Members), fmt.Sprintf("hypervolume %.3f", f.Hypervolume))
	}
	if best := bestText(s); best != "" {
		parts = append(parts, best)
	}
	switch {
	case j.State != espalierv1.JobState_JOB_STATE_SEARCHING:
		parts = append(parts, local.StateName(j.State))
	case s.EtaMs > 0:
		parts = append(parts, roundTime(s.EtaMs)+" left")
	}
	return strings.Join(parts, " · ")
}

func outOf(j *espalierv1.Job) string {
	if n := j.Spec.Stop.Trials; n > 0 {
		return fmt.Sprintf("%d/%d", j.Completed, n)
	}
	return fmt.Sprint(j.Completed)
}

func roundTime(ms int64) string {
	d := time.Duration(ms) * time.Millisecond
	if d < 10*time.Second {
		return d.Round(time.Second / 10).String()
	}
	return d.Round(time.Second).String()
}

// bars draws one bar for the baseline and one for the trials, with a line of
// facts below.
type bars struct {
	all      *mpb.Progress
	baseline *mpb.Bar
	trials   *mpb.Bar

	mu   sync.Mutex
	last *espalierv1.JobStatus
}

func newBars(w io.Writer) *bars {
	b := &bars{all: mpb.New(mpb.WithOutput(w), mpb.WithWidth(64), mpb.WithRefreshRate(100*time.Millisecond))}
	b.baseline = b.add("baseline", 1000, b.baselineText)
	b.trials = b.add("trials", 1000, b.trialsText)
	return b
}

func (b *bars) add(name string, total int64, text func() string) *mpb.Bar {
	return b.all.New(total, mpb.BarStyle().Lbound("").Filler("━").Tip("━").Padding("─").Rbound(""),
		mpb.BarWidth(28),
		mpb.PrependDecorators(decor.Name(name, decor.WC{W: 9, C: decor.DindentRight})),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return " " + text() })),
	)
}

func (b *bars) status(s *espalierv1.JobStatus) {
	b.mu.Lock()
	b.last = s
	b.mu.Unlock()
	fraction := 0.0
	if s.Job.Baseline != nil {
		fraction = 1
	} else if len(s.Running) > 0 {
		fraction = s.Running[0].GetProgress().GetFraction()
	}
	b.baseline.SetCurrent(int64(1000 * fraction))
	if n := s.Job.Spec.Stop.Trials; n > 0 {
		done := float64(s.Job.Completed + s.Job.Failed)
		for _, r := range s.Running {
			if r.Task.Kind == espalierv1.TaskKind_TASK_KIND_TRIAL {
				done += r.GetProgress().GetFraction()
			}
		}
		b.trials.SetCurrent(min(999, int64(1000*done/float64(n))))
	}
	if s.Job.FinishedMs > 0 && s.PendingMeasures == 0 {
		b.trials.SetCurrent(1000)
	}
}

func (b *bars) seen() *espalierv1.JobStatus {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.last
}

func (b *bars) baselineText() string {
	s := b.seen()
	if s == nil {
		return "starting"
	}
	if base := s.Job.Baseline; base != nil {
		return fmt.Sprintf("accuracy %.2f %%, %d parameters", 100*base.Accuracy, base.Params)
	}
	return strings.TrimPrefix(describe(s), "baseline · ")
}

func (b *bars) trialsText() string {
	s := b.seen()
	if s == nil || s.Job.Baseline == nil {
		return "waiting for the baseline"
	}
	return strings.TrimPrefix(describe(s), "trials ")
}

// close leaves the bars as they stand.
func (b *bars) close() {
	b.baseline.Abort(false)
	b.trials.Abort(false)
	b.all.Wait()
}
