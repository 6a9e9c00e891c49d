package leader

import (
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/search"
)

// Plan is how one job is searched: its space, how a point of it becomes a trial's configuration, and how a trial's record
// becomes objectives.
type Plan interface {
	Space() search.Space
	// Config translates a point of the space.
	Config(c search.Config) (*v1.TrialConfig, error)
	// Seed returns the point that trial number (from 1) takes whatever the sampler would say; ok is false if the sampler
	// decides.
	Seed(number int32) (c search.Config, ok bool)
	// Outcome translates a finished trial's result.
	Outcome(t *v1.Trial) Outcome
	// Reference is the corner of the objectives for the hypervolume; its length is their number.
	Reference() []float64
}

// Outcome is what a sampler learns of a finished trial.
type Outcome struct {
	// Objectives, lower is better.
	Objectives []float64
	// Violation says how far the trial lies outside what is of any use; 0 within.
	Violation float64
	// Predicted says that an objective was not measured.
	Predicted bool
}

// Planner makes the plan of a job whose baseline is done, and makes it again when the baseline is measured on a further
// device; only Outcome may then differ. formats are the file formats of the job's devices, in their order.
type Planner func(job *v1.Job, formats []string) (Plan, error)

// Pruning is the Planner of real jobs: the space of pruning configurations and the normalised objectives error, bytes
// and latency.
func Pruning(job *v1.Job, formats []string) (Plan, error) {
	p, err := newPlan(job.GetSpec(), job.GetBaseline())
	if err != nil {
		return nil, err
	}
	p.scale = scale{base: job.GetBaseline(), tabled: job.GetSpec().GetSearch().GetDeterministic()}
	for i, name := range job.GetDevices() {
		p.scale.devices = append(p.scale.devices, device{name, formats[i]})
	}
	if job.GetSpec().GetSearch().GetSampler() != "random" {
		p.seeds = p.seedCount(job.GetSpec().GetStop().GetTrials())
	}
	return p, nil
}

var _ Plan = (*plan)(nil)

// Space implements Plan.
func (p *plan) Space() search.Space { return p.space }

// Outcome implements Plan. A trial whose error is so large that it adds no hypervolume whatever its size violates the
// bound: else samplers would take every tiny broken model for a member of the front.
func (p *plan) Outcome(t *v1.Trial) Outcome {
	values, predicted := p.scale.objectives(t)
	return Outcome{Objectives: values, Violation: p.scale.violation(t), Predicted: predicted}
}

// Reference implements Plan.
func (p *plan) Reference() []float64 { return []float64{1, 1, 1} }
