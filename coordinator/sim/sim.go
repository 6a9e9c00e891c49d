package sim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/espalier-ml/espalier/coordinator/store"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/search"
	"github.com/espalier-ml/espalier/search/pareto"
)

const (
	jobID   = "sim"
	variant = "simulated"
	// stepLimit is how many steps per trial are taken for an endless search.
	stepLimit = 5000
)

// value is what the problem said of a trial.
type value struct {
	objectives []float64
	err        error
}

// sim is one simulation.
type sim struct {
	timeline
	ctx    context.Context
	cfg    Config
	counts Counts
	local  *store.Local
	leaderState
	workers []*worker
	// values are the problem's answers by trial.
	values map[int32]value
	// present are the files that were uploaded.
	present map[string]bool
	ledger  ledger
	err     error

	began time.Time
	work  time.Duration
}

// Run simulates one search. Its errors are ErrConfig, ErrBroken, ErrStuck, ctx's, or those of the problem and the sampler.
func Run(ctx context.Context, cfg Config) (*Result, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	dir, err := os.MkdirTemp("", "espalier-sim-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	local, err := store.OpenLocal(dir)
	if err != nil {
		return nil, err
	}
	s := &sim{ctx: ctx, cfg: cfg, local: local, values: map[int32]value{}, present: map[string]bool{}, ledger: newLedger(),
		timeline: timeline{rng: search.Rand(cfg.Seed, -2), clock: clock{time.UnixMilli(1_700_000_000_000)}}}
	out, err := s.run()
	return out, errors.Join(err, local.Close())
}

func (s *sim) run() (*Result, error) {
	if err := s.submit(); err != nil {
		return nil, err
	}
	s.began = s.clock.now
	s.crown()
	for i := range s.cfg.Workers {
		w := &worker{s: s, info: &v1.WorkerInfo{Name: fmt.Sprintf("w%04d", i), Device: deviceName, Slots: 1,
			Fingerprint: &v1.Fingerprint{Cpu: "simulated", Variant: variant}}}
		s.workers = append(s.workers, w)
		s.after(s.between(0, time.Second), w.start)
	}
	s.after(time.Second, s.tick)
	s.after(10*time.Second, s.reign)
	for !s.over() {
		if err := s.ctx.Err(); err != nil {
			return nil, err
		}
		if s.counts.Steps > 100_000+stepLimit*s.cfg.Trials || !s.next() {
			return nil, fmt.Errorf("%w: after %d steps", ErrStuck, s.counts.Steps)
		}
		s.counts.Steps++
		if s.err == nil {
			s.err = s.verify()
		}
		if s.err != nil {
			return nil, fmt.Errorf("seed %d, step %d, after %v: %w", s.cfg.Seed, s.counts.Steps, s.clock.now.Sub(s.began), s.err)
		}
	}
	if err := s.verifyEnd(); err != nil {
		return nil, fmt.Errorf("seed %d, at the end: %w", s.cfg.Seed, err)
	}
	return s.result()
}

// submit records the job.
func (s *sim) submit() error {
	spec := &v1.JobSpec{Name: "simulation", Devices: []string{deviceName},
		Search: &v1.SearchSpec{Sampler: s.cfg.Sampler, Seed: s.cfg.Seed, Deterministic: s.cfg.Deterministic, Window: int32(s.cfg.Window)},
		Stop:   &v1.StopSpec{Trials: int32(s.cfg.Trials), Stall: int32(s.cfg.Stall)}}
	results, err := s.local.Apply(s.ctx, &v1.Command{TimeMs: s.clock.now.UnixMilli(), Op: &v1.Command_SubmitJob{SubmitJob: &v1.SubmitJob{
		Id: jobID, RequestId: "simulation", Spec: spec, Devices: spec.GetDevices()}}})
	if err != nil {
		return err
	}
	return results[0].Err
}

// over reports whether the job has ended, its measures too, and nobody has anything left to say.
func (s *sim) over() bool {
	if !s.ledger.ended {
		return false
	}
	for _, w := range s.workers {
		if w.lease != nil {
			return false
		}
	}
	return s.ledger.measuresLeft == 0
}

// busy and idle count the time in which workers work.
func (s *sim) busy(w *worker) { w.began = s.clock.now }

func (s *sim) idle(w *worker) {
	if w.lease != nil {
		s.work += s.clock.now.Sub(w.began)
	}
}

// fail ends the simulation with an error.
func (s *sim) fail(err error) {
	if s.err == nil {
		s.err = err
	}
}

// tolerate passes over what the simulation itself brought about.
func (s *sim) tolerate(err error) {
	if !errors.Is(err, store.ErrUncertain) {
		s.fail(err)
	}
}

func (s *sim) result() (*Result, error) {
	span := s.clock.now.Sub(s.began)
	out := &Result{Sampler: s.cfg.Sampler, Seed: s.cfg.Seed, Workers: s.cfg.Workers, Counts: s.counts,
		SimulatedSeconds: span.Seconds(), Utilisation: s.work.Seconds() / (span.Seconds() * float64(s.cfg.Workers))}
	err := s.local.View(func(v *store.View) error {
		job := v.Job(jobID)
		out.Trials, out.Completed, out.Failed, out.Reason = int(job.GetLastTrial()), int(job.GetCompleted()), int(job.GetFailed()), job.GetReason()
		out.Digest = v.Digest()
		for _, t := range v.TrialsByOrder(jobID, 0, 0) {
			st := search.Trial{Number: int(t.GetNumber()) - 1, Config: t.GetConfig().GetPoint(), State: search.Failed}
			if t.GetState() == v1.TrialState_TRIAL_STATE_DONE {
				st.State, st.Objectives = search.Complete, s.values[t.GetNumber()].objectives
			}
			out.History = append(out.History, st)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, out.summarise(s.cfg.Problem)
}

// summarise fills in what follows from the history.
func (r *Result) summarise(p Problem) error {
	var points [][]float64
	var numbers []int
	next := 10
	for i, t := range r.History {
		if t.Usable() {
			points = append(points, t.Objectives)
			numbers = append(numbers, i)
		}
		if i+1 == next || i+1 == len(r.History) {
			r.Curve = append(r.Curve, CurvePoint{i + 1, pareto.Hypervolume(points, p.Reference())})
			next = nextMark(next)
		}
	}
	if n := len(r.Curve); n > 0 {
		r.Hypervolume = r.Curve[n-1].Hypervolume
	}
	for _, i := range pareto.NonDominated(points) {
		t := r.History[numbers[i]]
		params, err := p.Space().Decode(t.Config)
		if err != nil {
			return err
		}
		r.Front = append(r.Front, Point{t.Number + 1, params, t.Objectives})
	}
	return nil
}

// nextMark is the next of 10, 20, 50, 100, …
func nextMark(n int) int {
	for lead := n; ; lead /= 10 {
		switch lead {
		case 2:
			return n / 2 * 5
		case 1, 5:
			return n * 2
		}
	}
}
