package prune

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/espalier-ml/espalier/model"
)

// Strategy chooses what to remove.
type Strategy interface {
	Info() Info
	// Applicable tells, by an error that wraps ErrNotApplicable, that the strategy could
	// remove nothing from g. Other errors are Groups'.
	Applicable(g *model.Graph) error
	// Plan chooses what to remove. Equal inputs give equal plans; ties go by index, the
	// first being removed. Errors wrap ErrTarget, ErrWeights, or are Groups'.
	Plan(in Input) (*Plan, error)
}

// Info describes a strategy.
type Info struct {
	Name           string // channel-… removes channels, hybrid… channels and weights, others weights
	Summary        string // one line
	Source         string // the publication it is from, or "baseline"
	Structured     bool   // removes channels: uses Target.Channels
	Unstructured   bool   // zeroes weights: uses Target.Weights
	NeedsGradients bool   // uses Input.Gradients
}

// Names lists the strategies, the simplest first.
func Names() []string {
	out := make([]string, len(strategies))
	for i, s := range strategies {
		out[i] = s.info.Name
	}
	return out
}

// Lookup finds a strategy by name. The error wraps ErrStrategy.
func Lookup(name string) (Strategy, error) {
	for i := range strategies {
		if strategies[i].info.Name == name {
			return &strategies[i], nil
		}
	}
	return nil, fmt.Errorf("%w: %q: want one of %s", ErrStrategy, name, strings.Join(Names(), ", "))
}

// The registry. A strategy is a way to score channels, a way to choose weights among
// what remains, or both; docs/strategies.md lists them.
var strategies = []strategy{
	{info: Info{Name: "magnitude", Summary: "zeroes each layer's smallest weights",
		Source: "Han et al. 2015, arXiv:1506.02626"}, weights: magnitude},
	{info: Info{Name: "magnitude-global", Summary: "zeroes the smallest weights of all layers together, as many as the groups' sparsities add up to",
		Source: "Han et al. 2015, arXiv:1506.02626; Blalock et al. 2020, arXiv:2003.03033"}, weights: magnitudeGlobal},
	{info: Info{Name: "channel-l1", Summary: "removes the channels whose filters have the smallest L1 norm",
		Source: "Li et al. 2017, arXiv:1608.08710"}, channels: channelL1},
	{info: Info{Name: "hybrid", Summary: "removes channels by L1 norm, then zeroes the smallest of each layer's remaining weights",
		Source: "Li et al. 2017, arXiv:1608.08710, with Han et al. 2015, arXiv:1506.02626"}, channels: channelL1, weights: magnitude},
	{info: Info{Name: "channel-l2", Summary: "removes the channels whose filters have the smallest L2 norm",
		Source: "He et al. 2018, arXiv:1808.06866"}, channels: channelL2},
	{info: Info{Name: "channel-bn-scale", Summary: "removes the channels that batch normalisation scales least; by L1 norm where there is none",
		Source: "Liu et al. 2017, arXiv:1708.06519"}, channels: channelBNScale, needs: needsBatchNorm},
	{info: Info{Name: "channel-fpgm", Summary: "removes the channels whose filters are nearest to all others of their layer (geometric median)",
		Source: "He et al. 2019, arXiv:1811.00250"}, channels: channelFPGM},
	{info: Info{Name: "channel-taylor", Summary: "removes the channels whose removal changes the loss least, to first order",
		Source: "Molchanov et al. 2019, arXiv:1906.10771", NeedsGradients: true}, channels: channelTaylor},
	{info: Info{Name: "block-4x1", Summary: "zeroes the smallest blocks of 4 adjacent output channels × 1 weight, for the block-sparse kernels",
		Source: "Gray et al. 2017, GPU kernels for block-sparse weights; Elsen et al. 2020, arXiv:1911.09723"}, weights: block4x1},
	{info: Info{Name: "hybrid-block-4x1", Summary: "removes channels by L1 norm, then zeroes the smallest 4×1 blocks of the remaining weights",
		Source: "Li et al. 2017, arXiv:1608.08710, with Elsen et al. 2020, arXiv:1911.09723"}, channels: channelL1, weights: block4x1},
	{info: Info{Name: "channel-random", Summary: "removes channels at random, from the seed",
		Source: "baseline"}, channels: randomChannel},
}

// init derives what each strategy removes from how it is composed.
func init() {
	for i := range strategies {
		s := &strategies[i]
		s.info.Structured, s.info.Unstructured = s.channels != nil, s.weights != nil
	}
}

type strategy struct {
	info Info
	// channels scores the channels of a group: the lowest go first.
	channels func(*request, *Group) []float64
	// weights masks weights among those that remain.
	weights func(*request, *Masks)
	// needs refuses graphs without what the strategy looks at.
	needs func(*analysis) error
}

var _ Strategy = (*strategy)(nil)

func (s *strategy) Info() Info { return s.info }

func (s *strategy) Applicable(g *model.Graph) error {
	a, err := analyse(g)
	if err != nil {
		return err
	}
	prunable := slices.ContainsFunc(a.groups, func(g Group) bool { return g.Prunable })
	if len(a.groups) == 0 || (!s.info.Unstructured && !prunable) {
		return fmt.Errorf("%w: %s: the graph has no channels that can be removed", ErrNotApplicable, s.info.Name)
	}
	if s.needs != nil {
		return s.needs(a)
	}
	return nil
}

// request is one call of Plan.
type request struct {
	*analysis
	in   Input
	kept *surgery // what remains after the channels are chosen
}

func (s *strategy) Plan(in Input) (*Plan, error) {
	a, err := analyse(in.Graph)
	if err != nil {
		return nil, err
	}
	if err := in.Target.check(a.groups, s.info); err != nil {
		return nil, err
	}
	r := &request{analysis: a, in: in}
	if err := r.checkValues(s.info); err != nil {
		return nil, err
	}
	p := &Plan{Strategy: s.info.Name, Keep: map[string][]int{}}
	for k := range a.groups {
		g := &a.groups[k]
		if x := in.Target.Channels[g.Name]; x > 0 {
			p.Keep[g.Name] = g.choose(s.channels(r, g), count(x, g.Channels))
		}
	}
	if s.weights == nil || len(in.Target.Weights) == 0 {
		return p, nil
	}
	if r.kept, err = a.surgery(p); err != nil {
		return nil, err
	}
	p.Masks = &Masks{}
	s.weights(r, p.Masks)
	return p, nil
}

// checkValues refuses weights and gradients that cannot be compared.
func (r *request) checkValues(info Info) error {
	for i := range r.g.Layers {
		l := &r.g.Layers[i]
		for _, name := range l.ParamNames() {
			if !l.Params[name].Finite() {
				return fmt.Errorf("%w: layer %q: %s is not finite", ErrWeights, l.Name, name)
			}
		}
		w := l.Params[model.Weight]
		if w == nil || !info.NeedsGradients {
			continue
		}
		t := r.in.Gradients[l.Name]
		if t == nil || !t.Shape.Equal(w.Shape) || t.Check() != nil || !t.Finite() {
			return fmt.Errorf("%w: layer %q: strategy %s needs finite gradients of shape %v", ErrWeights, l.Name, info.Name, []int(w.Shape))
		}
	}
	return nil
}

// mean of a slice that is not empty.
func mean(v []float64) float64 {
	s := 0.0
	for _, x := range v {
		s += x
	}
	return s / math.Max(float64(len(v)), 1)
}
