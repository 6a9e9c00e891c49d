package leader

import (
	"errors"
	"fmt"
	"math"
	"strconv"

	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/search"
)

// ErrNoSpace marks a job whose specification and baseline leave nothing to search.
var ErrNoSpace = errors.New("nothing to search")

// Names of a job's parameters; per group the name follows the slash.
const (
	paramStrategy   = "strategy"
	paramChannels   = "sparsity/"   // fraction of a group's channels to remove
	paramKeep       = "keep/"       // fraction of a group's weights to keep, logarithmic
	paramKeepAll    = "keep"        // fraction of all weights to keep, logarithmic
	paramKeepHybrid = "keep-weight" // fraction to keep of what a hybrid strategy's channels leave, logarithmic
	paramSchedule   = "schedule"
	paramEpochs     = "epochs"
	paramRate       = "rate"
	paramQuantize   = "quantize"
	paramDistill    = "distill"
)

// leastKeep bounds the logarithmic scale of what is kept.
const leastKeep = 0.001

// plan is how one job is searched: its space, and how a point of it becomes a trial's configuration.
//
// Weights are searched by the logarithm of the fraction kept, since bytes count by their logarithm and single weights
// stand high sparsities; channels by the fraction removed, since bytes and time fall with about the square of the
// channels kept. A choice with a single value takes no parameter, but for the strategy, to which conditions refer.
type plan struct {
	space      search.Space
	strategies []string
	prunable   []*v1.Group // groups whose channels may go
	weighted   []*v1.Group // groups with weights
	spec       *v1.SpaceSpec
	scale      scale
	seeds      int32
}

// newPlan builds the plan from a specification and the baseline's groups. Without a strategy that applies the error is an
// ErrNoSpace.
func newPlan(spec *v1.JobSpec, base *v1.Baseline) (*plan, error) {
	p := &plan{spec: spec.GetSpace(), strategies: base.GetStrategies()}
	for _, g := range base.GetGroups() {
		if g.GetPrunable() {
			p.prunable = append(p.prunable, g)
		}
		if g.GetWeights() > 0 {
			p.weighted = append(p.weighted, g)
		}
	}
	if len(p.prunable) == 0 {
		p.strategies = filter(p.strategies, weights, overall)
	}
	if len(p.weighted) == 0 {
		p.strategies = nil
	}
	if len(p.strategies) == 0 {
		return nil, fmt.Errorf("%w: none of the strategies %q applies to this model", ErrNoSpace, p.spec.GetStrategies())
	}
	p.addParams()
	if err := p.space.Validate(); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *plan) add(param search.Param) { p.space.Params = append(p.space.Params, param) }

// addChoice adds a choice unless it has no alternative.
func (p *plan) addChoice(name string, ordered bool, values []string) {
	if len(values) > 1 {
		p.add(search.Param{Name: name, Kind: search.Choice, Choices: values, Ordered: ordered})
	}
}

func (p *plan) addParams() {
	p.add(search.Param{Name: paramStrategy, Kind: search.Choice, Choices: p.strategies})
	when := func(units ...unit) *search.Condition {
		if names := filter(p.strategies, units...); len(names) > 0 {
			return &search.Condition{Param: paramStrategy, Values: names}
		}
		return nil
	}
	sparsity := p.spec.GetSparsity()
	keep := search.Param{Kind: search.Float, Log: true,
		Min: max(1-sparsity.GetMax(), leastKeep), Max: max(1-sparsity.GetMin(), leastKeep)}
	named := func(q search.Param, name string, c *search.Condition) search.Param {
		q.Name, q.When = name, c
		return q
	}
	if c := when(channels, both); c != nil {
		for _, g := range p.prunable {
			p.add(search.Param{Name: paramChannels + g.GetName(), Kind: search.Float,
				Min: sparsity.GetMin(), Max: sparsity.GetMax(), When: c})
		}
	}
	if c := when(weights); c != nil {
		for _, g := range p.weighted {
			p.add(named(keep, paramKeep+g.GetName(), c))
		}
	}
	if c := when(overall); c != nil {
		p.add(named(keep, paramKeepAll, c))
	}
	if c := when(both); c != nil {
		p.add(named(keep, paramKeepHybrid, c))
	}
	p.addChoice(paramSchedule, false, p.spec.GetSchedules())
	p.addChoice(paramEpochs, true, numbers(p.spec.GetFinetuneEpochs()))
	if r := p.spec.GetFinetuneRate(); r.GetMin() < r.GetMax() {
		p.add(search.Param{Name: paramRate, Kind: search.Float, Min: r.GetMin(), Max: r.GetMax(), Log: r.GetLog()})
	}
	p.addChoice(paramQuantize, false, p.spec.GetQuantize())
	if len(p.spec.GetDistill()) > 1 {
		p.addChoice(paramDistill, false, []string{"false", "true"})
	}
}

func numbers(values []float64) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = strconv.FormatFloat(v, 'g', -1, 64)
	}
	return out
}

// Config implements Plan.
func (p *plan) Config(c search.Config) (*v1.TrialConfig, error) {
	if err := p.space.Check(c); err != nil {
		return nil, err
	}
	out := &v1.TrialConfig{
		Strategy:       p.strategies[int(c[0])],
		Sparsity:       map[string]float64{},
		Schedule:       p.choice(c, paramSchedule, p.spec.GetSchedules()),
		FinetuneEpochs: first(p.spec.GetFinetuneEpochs()),
		FinetuneRate:   p.number(c, paramRate, p.spec.GetFinetuneRate().GetMin()),
		Quantize:       p.choice(c, paramQuantize, p.spec.GetQuantize()),
		Distill:        first(p.spec.GetDistill()),
		Point:          c,
	}
	if i := p.space.Index(paramEpochs); i >= 0 {
		out.FinetuneEpochs = p.spec.GetFinetuneEpochs()[int(c[i])]
	}
	if i := p.space.Index(paramDistill); i >= 0 {
		out.Distill = c[i] == 1
	}
	p.fillSparsity(out, c)
	return out, nil
}

func (p *plan) fillSparsity(out *v1.TrialConfig, c search.Config) {
	switch unitOf(out.GetStrategy()) {
	case both:
		out.WeightSparsity = 1 - p.number(c, paramKeepHybrid, 1)
		fallthrough
	case channels:
		for _, g := range p.prunable {
			out.Sparsity[g.GetName()] = p.number(c, paramChannels+g.GetName(), 0)
		}
	case overall:
		for _, g := range p.weighted {
			out.Sparsity[g.GetName()] = 1 - p.number(c, paramKeepAll, 1)
		}
	default:
		for _, g := range p.weighted {
			out.Sparsity[g.GetName()] = 1 - p.number(c, paramKeep+g.GetName(), 1)
		}
	}
}

// number returns the named parameter's value, or fallback where the space lacks it or it is inactive.
func (p *plan) number(c search.Config, name string, fallback float64) float64 {
	if i := p.space.Index(name); i >= 0 && !math.IsNaN(c[i]) {
		return c[i]
	}
	return fallback
}

// choice returns the named parameter's value, or the only one of values where the space lacks it.
func (p *plan) choice(c search.Config, name string, values []string) string {
	if i := p.space.Index(name); i >= 0 {
		return p.space.Params[i].Choices[int(c[i])]
	}
	return first(values)
}

func first[T any](values []T) (out T) {
	if len(values) > 0 {
		out = values[0]
	}
	return out
}
