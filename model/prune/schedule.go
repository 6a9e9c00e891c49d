package prune

import (
	"fmt"
	"slices"
	"strings"

	"github.com/espalier-ml/espalier/model"
)

// The schedules: how a target is reached over the steps of a trial, each step pruning
// and then training.
const (
	OneShot    = "one-shot"   // everything at once
	Iterative  = "iterative"  // in equal parts
	Polynomial = "polynomial" // s·(1 - (1 - t)³): much at first, less and less later (Zhu and Gupta 2017, arXiv:1710.01878)
)

// MaxSteps bounds the steps of a schedule.
const MaxSteps = 1000

// Schedules lists the names of the schedules.
func Schedules() []string { return []string{OneShot, Iterative, Polynomial} }

// Steps gives the target of each of n steps, relative to the original graph; the last
// is t itself. One-shot has one step, whatever n is. Errors wrap ErrSchedule.
func Steps(schedule string, t Target, n int) ([]Target, error) {
	if !slices.Contains(Schedules(), schedule) {
		return nil, fmt.Errorf("%w: %q: want one of %s", ErrSchedule, schedule, strings.Join(Schedules(), ", "))
	}
	if n < 1 || n > MaxSteps {
		return nil, fmt.Errorf("%w: %s in %d steps: want 1 to %d", ErrSchedule, schedule, n, MaxSteps)
	}
	if schedule == OneShot {
		n = 1
	}
	out := make([]Target, n)
	for k := range out {
		part := float64(k+1) / float64(n)
		if schedule == Polynomial {
			part = 1 - (1-part)*(1-part)*(1-part)
		}
		if k == n-1 {
			part = 1
		}
		out[k] = t.scale(part)
	}
	return out, nil
}

func (t Target) scale(part float64) Target {
	scale := func(m map[string]float64) map[string]float64 {
		out := make(map[string]float64, len(m))
		for k, v := range m {
			out[k] = v * part
		}
		return out
	}
	return Target{Channels: scale(t.Channels), Weights: scale(t.Weights)}
}

// Remaining turns a target relative to the original graph into what is still to be
// removed from a graph rebuilt from it: as many channels as are missing, none where
// enough are gone already. Sparsities of weights stay: they count the weights that
// remain, of which those at zero are the smallest. Errors wrap ErrTarget.
func Remaining(original, current []Group, t Target) (Target, error) {
	out := Target{Channels: map[string]float64{}, Weights: t.Weights}
	for name, s := range t.Channels {
		i, j := indexOf(original, name), indexOf(current, name)
		if i < 0 || j < 0 {
			return Target{}, fmt.Errorf("%w: channels of %q: the graph has no such group", ErrTarget, name)
		}
		if !(s >= 0 && s <= 1) {
			return Target{}, fmt.Errorf("%w: group %q: channels %v: want 0 to 1", ErrTarget, name, s)
		}
		if original[i].Prunable && !current[j].Prunable {
			continue // at its least already
		}
		was, is := original[i].Channels, current[j].Channels
		if more := is - max(was-count(s, was), 1); more > 0 {
			out.Channels[name] = float64(more) / float64(is)
		}
	}
	return out, nil
}

func indexOf(groups []Group, name string) int {
	return slices.IndexFunc(groups, func(g Group) bool { return g.Name == name })
}

// Step carries out one step of a schedule: plan what is still to be removed from
// in.Graph to reach in.Target, which is relative to the original graph with these
// groups, and rebuild. in.Graph is unchanged. Errors are Remaining's, Plan's and
// Rebuild's.
func Step(s Strategy, in Input, original []Group) (*model.Graph, *Masks, error) {
	current, err := Groups(in.Graph)
	if err != nil {
		return nil, nil, err
	}
	if in.Target, err = Remaining(original, current, in.Target); err != nil {
		return nil, nil, err
	}
	plan, err := s.Plan(in)
	if err != nil {
		return nil, nil, err
	}
	return Rebuild(in.Graph, plan)
}
