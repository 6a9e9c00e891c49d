package leader

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/espalier-ml/espalier/coordinator/store"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/search"
)

// defaultWindow is how many trials a deterministic job runs side by side.
const defaultWindow = 8

// job is what the leader keeps of one job, a cache of the store.
type job struct {
	mu sync.Mutex
	id string

	record *v1.Job
	// live: this leader has seen it search; its end is news.
	live bool
	// problem is why the job cannot be searched.
	problem error
	plan    Plan
	// measuredOn is on how many devices the baseline was measured when the plan was made.
	measuredOn int
	sampler    search.Sampler
	// history holds the finished trials in the order of their results, in deterministic mode by number and without gaps.
	history []search.Trial
	// at finds trials in history by number, counted from 1.
	at map[int32]int
	// early holds finished trials of deterministic jobs for which an earlier one is missing.
	early map[int32]search.Trial
	// pending holds the trials without a result.
	pending map[int32]search.Trial
	// tried holds the configurations of all trials, so that no proposal need read the history for them.
	tried search.Seen
	// seen is the order of the last result read, known the last trial.
	seen, known int32
	// stall is the last answer of the stall rule and the number of results that it was for.
	stall struct {
		results int
		holds   bool
	}
	exhausted bool
}

func (j *job) deterministic() bool { return j.record.GetSpec().GetSearch().GetDeterministic() }

func (j *job) window() int32 {
	if w := j.record.GetSpec().GetSearch().GetWindow(); w > 0 {
		return w
	}
	return defaultWindow
}

// read brings j up to date. A job that is not there is an error.
func (j *job) read(v *store.View, cfg *Config) error {
	record := v.Job(j.id)
	if record == nil {
		return fmt.Errorf("read job %s: %w", j.id, store.ErrNotFound)
	}
	measured := len(record.GetBaseline().GetMeasurements())
	fresh := j.plan == nil || measured != j.measuredOn
	j.record = record
	if record.GetBaseline() == nil || j.problem != nil {
		return nil
	}
	if fresh {
		if j.problem = j.begin(v, cfg); j.problem != nil {
			return nil
		}
		j.measuredOn = measured
	}
	j.readResults(v)
	return j.readPending(v, record.GetLastTrial())
}

// resultsPage is how many results are read at once: a job may have very many.
const resultsPage = 256

// readResults reads the trials that have finished since.
func (j *job) readResults(v *store.View) {
	for {
		page := v.TrialsByOrder(j.id, j.seen, resultsPage)
		for _, t := range page {
			j.finish(t)
			j.seen = t.GetOrder()
		}
		if len(page) < resultsPage {
			return
		}
	}
}

// readPending reads the trials up to the last one that are new and have not finished.
func (j *job) readPending(v *store.View, last int32) error {
	for n := j.known + 1; n <= last; n++ {
		if !j.finished(n) {
			t := v.Trial(j.id, n)
			if t == nil {
				return fmt.Errorf("read trial %d of job %s: %w", n, j.id, store.ErrNotFound)
			}
			j.pending[n] = search.Trial{Number: int(n) - 1, Config: t.GetConfig().GetPoint()}
			j.tried.Add(t.GetConfig().GetPoint())
		}
		j.known = n
	}
	return nil
}

// finished tells whether a trial's result was read.
func (j *job) finished(n int32) bool {
	_, early := j.early[n]
	_, done := j.at[n]
	return early || done
}

// begin makes the plan, and computes the objectives of finished trials again if there was one before.
func (j *job) begin(v *store.View, cfg *Config) (err error) {
	formats := make([]string, len(j.record.GetDevices()))
	for i, name := range j.record.GetDevices() {
		formats[i] = v.Device(name).GetFormat()
	}
	if j.plan, err = cfg.Planner(j.record, formats); err != nil {
		return err
	}
	if j.sampler == nil {
		if j.sampler, err = cfg.Sampler(j.record.GetSpec().GetSearch().GetSampler()); err != nil {
			return err
		}
		j.at, j.early, j.pending = map[int32]int{}, map[int32]search.Trial{}, map[int32]search.Trial{}
	}
	for n, i := range j.at {
		if t := v.Trial(j.id, n); t != nil {
			j.history[i] = j.translate(t)
		}
	}
	return nil
}

// predictedKey marks, in a search.Trial's Extra, that an objective is a prediction and no measurement. Such values reach
// the sampler and the stall rule only, never a front.
const predictedKey = "predicted"

// predictedExtra is shared by all trials that it is true of, since there may be many. Nobody changes it.
var predictedExtra = map[string]float64{predictedKey: 1}

// translate turns a finished trial's record into the sampler's. Its number counts from 0, the store's from 1.
func (j *job) translate(t *v1.Trial) search.Trial {
	out := search.Trial{Number: int(t.GetNumber()) - 1, Config: t.GetConfig().GetPoint(), State: search.Failed}
	if t.GetState() != v1.TrialState_TRIAL_STATE_DONE {
		return out
	}
	o := j.plan.Outcome(t)
	out.State, out.Objectives = search.Complete, o.Objectives
	if o.Violation > 0 {
		out.State, out.Violation = search.Infeasible, o.Violation
	}
	if o.Predicted {
		out.Extra = predictedExtra
	}
	return out
}

// finish moves a trial from pending to the history.
func (j *job) finish(t *v1.Trial) {
	n := t.GetNumber()
	delete(j.pending, n)
	j.tried.Add(t.GetConfig().GetPoint())
	if !j.deterministic() {
		j.at[n] = len(j.history)
		j.history = append(j.history, j.translate(t))
		return
	}
	j.early[n] = j.translate(t)
	for {
		next := int32(len(j.history)) + 1
		done, ok := j.early[next]
		if !ok {
			return
		}
		delete(j.early, next)
		j.at[next] = len(j.history)
		j.history = append(j.history, done)
	}
}

// measured replaces a predicted latency by a measured one.
func (j *job) measured(t *v1.Trial) {
	if i, ok := j.at[t.GetNumber()]; ok && !j.deterministic() {
		j.history[i] = j.translate(t)
	}
}

// reason returns why the job should stop now, or "".
func (j *job) reason(now time.Time) string {
	if j.exhausted {
		return "space: every configuration was tried"
	}
	history := j.history
	if j.deterministic() {
		history = j.visible(j.known + 1)
		if history == nil {
			return ""
		}
	}
	return stopReason(j.record, now, func(n int) bool { return j.stalls(history, n) })
}

// stalledBefore reports whether a deterministic job stops before trial k, so that a batch of proposals ends where
// proposals one by one would.
func (j *job) stalledBefore(k int32) bool {
	n := int(j.record.GetSpec().GetStop().GetStall())
	return n > 0 && j.stalls(j.visible(k), n)
}

// stalls is the stall rule, computed once for each further result.
func (j *job) stalls(history []search.Trial, n int) bool {
	if j.stall.results != len(history) {
		j.stall.results, j.stall.holds = len(history), stalled(history, j.plan.Reference(), n)
	}
	return j.stall.holds
}

// visible returns what the proposal of trial k of a deterministic job may see: the trials up to k - window; nil while one
// of them is missing.
func (j *job) visible(k int32) []search.Trial {
	n := max(k-1-j.window()+1, 0)
	if int(n) > len(j.history) {
		return nil
	}
	if n == 0 {
		return []search.Trial{}
	}
	return j.history[:n:n]
}

// propose asks for up to n trials after the last one.
func (j *job) propose(n int) ([]*v1.NewTrial, error) {
	if limit := j.record.GetSpec().GetStop().GetTrials(); limit > 0 {
		n = min(n, int(limit-j.known))
	}
	if n <= 0 || j.exhausted {
		return nil, nil
	}
	var out []*v1.NewTrial
	add := func(c search.Config, seen int) error {
		config, err := j.plan.Config(c)
		if err != nil {
			return err
		}
		out = append(out, &v1.NewTrial{Job: j.id, Number: j.known + 1 + int32(len(out)), Config: config, Seen: int32(seen)})
		return nil
	}
	pending := j.pendingTrials()
	for len(out) < n {
		number := j.known + 1 + int32(len(out))
		c, ok := j.seed(number)
		if !ok {
			break
		}
		if err := add(c, 0); err != nil {
			return nil, err
		}
		pending = append(pending, search.Trial{Number: int(number) - 1, Config: c})
	}
	for len(out) < n {
		k, want := j.known+1+int32(len(out)), n-len(out)
		history, hidden := j.history, pending
		if j.deterministic() {
			if history = j.visible(k); history == nil || j.stalledBefore(k) {
				break
			}
			want, hidden = 1, j.hidden(k, pending)
		}
		configs, err := j.suggest(k, want, history, hidden)
		if err != nil || len(configs) == 0 {
			return out, err
		}
		for _, c := range configs {
			pending = append(pending, search.Trial{Number: int(j.known) + len(out), Config: c})
			if err := add(c, len(history)); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// seed returns the point of the fixed design for a trial. In deterministic mode the design must fit the window, so that its
// trials need no results.
func (j *job) seed(number int32) (search.Config, bool) {
	if j.deterministic() && number > j.window() {
		return nil, false
	}
	return j.plan.Seed(number)
}

func (j *job) suggest(k int32, n int, history, pending []search.Trial) ([]search.Config, error) {
	configs, err := j.sampler.Suggest(search.Request{
		Space: j.plan.Space(), Seed: j.record.GetSpec().GetSearch().GetSeed(), History: history, Pending: pending,
		Known: &j.tried, First: int(k) - 1, N: n, Objectives: len(j.plan.Reference()),
	})
	if errors.Is(err, search.ErrExhausted) {
		j.exhausted = true
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("suggest trial %d of job %s: %w", k, j.id, err)
	}
	return configs, nil
}

// pendingTrials returns the trials without a result by number.
func (j *job) pendingTrials() []search.Trial {
	out := make([]search.Trial, 0, len(j.pending))
	for _, t := range j.pending {
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b search.Trial) int { return a.Number - b.Number })
	return out
}

// hidden returns the trials that the proposal of trial k of a deterministic job knows of without their results: those
// after k - window, whether they have finished or not, by number.
func (j *job) hidden(k int32, pending []search.Trial) []search.Trial {
	out := slices.Clone(pending)
	for _, t := range j.history[len(j.visible(k)):] {
		out = append(out, search.Trial{Number: t.Number, Config: t.Config})
	}
	for _, t := range j.early {
		out = append(out, search.Trial{Number: t.Number, Config: t.Config})
	}
	slices.SortFunc(out, func(a, b search.Trial) int { return a.Number - b.Number })
	return out
}
