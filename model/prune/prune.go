// Package prune decides what to remove from a network and removes it. Groups finds the
// layers whose channels must go together; a Strategy, looked up by name, makes a Plan:
// the channels to keep of each group and the weights to hold at zero; Rebuild carries
// it out, so that removed channels are physically gone from every coupled layer; Steps
// spreads sparsities over a schedule. All of it is deterministic.
//
// Sparsity is the fraction removed, 0 to 1: of a group's channels, or of the weights
// that remain in a group's layers. At least one channel (of a convolution in groups, two
// groups) and one weight stay in every layer, whatever is asked for.
package prune

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/espalier-ml/espalier/model"
)

// Sentinels of this package. Each wrapped error names the group or layer, the value
// and what would be right.
var (
	// ErrStrategy: no strategy has this name.
	ErrStrategy = errors.New("unknown strategy")
	// ErrSchedule: no schedule has this name, or its number of steps is wrong.
	ErrSchedule = errors.New("invalid schedule")
	// ErrTarget: a sparsity is wrong for the graph or for the strategy.
	ErrTarget = errors.New("invalid sparsity")
	// ErrNotApplicable: the graph has nothing that the strategy could remove.
	ErrNotApplicable = errors.New("strategy not applicable")
	// ErrWeights: weights, gradients or masks cannot be used: missing, not finite, or of
	// another shape.
	ErrWeights = errors.New("unusable weights")
	// ErrPlan: a plan does not fit the graph.
	ErrPlan = errors.New("invalid plan")
	// ErrTooLarge: the graph is too large to analyse.
	ErrTooLarge = errors.New("graph too large")
)

// Target is what to remove, by the names of groups. A group that is not named keeps
// everything.
type Target struct {
	Channels map[string]float64 // fraction of the group's channels
	Weights  map[string]float64 // fraction of the weights that remain in the group's layers
}

// Plan is what a strategy decided for one graph.
type Plan struct {
	Strategy string
	Keep     map[string][]int // group: the channels kept, ascending; a group not named keeps all
	Masks    *Masks           // weights to hold at zero, in the graph's own shapes; nil for none
}

// Input is what a strategy decides on.
type Input struct {
	Graph  *model.Graph
	Target Target

	// Gradients of the loss by layer, shaped as the layer's weight, averaged over
	// calibration batches; only for strategies with Info.NeedsGradients.
	Gradients map[string]*model.Tensor
	// Seed is used by random strategies only.
	Seed uint64
}

// Uniform is the target that asks for the same sparsities in all groups: channels
// where they are prunable, weights everywhere. A sparsity of 0 leaves the map empty.
func Uniform(groups []Group, channels, weights float64) Target {
	t := Target{Channels: map[string]float64{}, Weights: map[string]float64{}}
	for _, g := range groups {
		if g.Prunable && channels > 0 {
			t.Channels[g.Name] = channels
		}
		if weights > 0 {
			t.Weights[g.Name] = weights
		}
	}
	return t
}

// check verifies a target against the groups and the strategy's kinds of removal.
func (t Target) check(groups []Group, info Info) error {
	for _, part := range []struct {
		what    string
		values  map[string]float64
		allowed bool
	}{{"channels", t.Channels, info.Structured}, {"weights", t.Weights, info.Unstructured}} {
		for _, name := range slices.Sorted(maps.Keys(part.values)) {
			s := part.values[name]
			i := slices.IndexFunc(groups, func(g Group) bool { return g.Name == name })
			switch {
			case !(s >= 0 && s <= 1):
				return fmt.Errorf("%w: group %q: %s %v: want 0 to 1", ErrTarget, name, part.what, s)
			case i < 0:
				return fmt.Errorf("%w: %s of %q: the graph has no such group", ErrTarget, part.what, name)
			case s > 0 && !part.allowed:
				return fmt.Errorf("%w: group %q: %s %v: strategy %s removes no %s", ErrTarget, name, part.what, s, info.Name, part.what)
			case s > 0 && part.what == "channels" && !groups[i].Prunable:
				return fmt.Errorf("%w: group %q: channels %v: want 0, its channels cannot be removed", ErrTarget, name, s)
			}
		}
	}
	return nil
}

// count is the number removed of n at sparsity s, to the nearest.
func count(s float64, n int) int { return int(math.Floor(s*float64(n) + 0.5)) }
