package search

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// State is how a trial ended.
type State uint8

// The states of a trial.
const (
	// Pending is a trial that was suggested and has no result yet.
	Pending State = iota
	// Complete is a trial with all its objectives.
	Complete
	// Failed is a trial that ended without objectives: an error, a loss that is not a number.
	Failed
	// Infeasible is a trial that ended outside a declared limit.
	Infeasible
)

var stateNames = [...]string{Pending: "pending", Complete: "complete", Failed: "failed", Infeasible: "infeasible"}

// String returns "pending", "complete", "failed" or "infeasible".
func (s State) String() string {
	if int(s) >= len(stateNames) {
		return fmt.Sprintf("state(%d)", uint8(s))
	}
	return stateNames[s]
}

// MarshalText writes the name that String returns; an invalid state is an ErrRequest.
func (s State) MarshalText() ([]byte, error) {
	if int(s) >= len(stateNames) {
		return nil, fmt.Errorf("%w: state %d is none of %s", ErrRequest, uint8(s), strings.Join(stateNames[:], ", "))
	}
	return []byte(s.String()), nil
}

// UnmarshalText reads the name that String returns; anything else is an ErrRequest.
func (s *State) UnmarshalText(text []byte) error {
	i := slices.Index(stateNames[:], string(text))
	if i < 0 {
		return fmt.Errorf("%w: state %q is none of %s", ErrRequest, text, strings.Join(stateNames[:], ", "))
	}
	*s = State(i)
	return nil
}

// Trial is one configuration and what is known of it.
type Trial struct {
	// Number is the trial's place in its job, from 0, in the order of suggestion.
	Number int    `json:"number"`
	Config Config `json:"config"`
	State  State  `json:"state"`
	// Objectives of a Complete trial, lower is better. Other states may leave them nil.
	Objectives []float64 `json:"objectives,omitempty"`
	// Violation of an Infeasible trial says how far it lies outside its limits, 0 when that is unknown; lower is better.
	Violation float64 `json:"violation,omitempty"`
	// Extra facts by name, which a sampler may use if it knows them and must do without.
	Extra map[string]float64 `json:"extra,omitempty"`
}

// Request is everything that a sampler may know.
type Request struct {
	Space Space
	// Seed is the job's.
	Seed uint64
	// History holds the finished trials in the order in which they finished, failed and infeasible ones too.
	History []Trial
	// Pending holds the trials that were suggested and have not finished, by number.
	Pending []Trial
	// Known, if it is set, holds every configuration of History, and maybe of Pending, and no others; and the caller has
	// checked the history's shapes and states. It spares a sampler that asks nothing else of the history reading it all.
	// It changes nothing in the answer, and is not changed.
	Known *Seen
	// First is the number of the first trial to suggest; the others follow it.
	First int
	// N is how many to suggest.
	N int
	// Objectives is how many objectives a complete trial has.
	Objectives int
}

// Sampler proposes configurations.
//
// Suggest is pure: the same request gives the same answer, in any process, after any other calls, from any number of
// goroutines; it changes nothing that it is given. Suggesting n at once is the same as suggesting them one after
// another, each pending for the next. A configuration that is finished or pending is not suggested again while the
// space has others; if it has none at all the answer is empty and the error ErrExhausted, and if it has fewer than
// N the answer is shorter. An invalid request is an ErrRequest or ErrSpace.
type Sampler interface {
	Suggest(Request) ([]Config, error)
}

// Validate reports the first contradiction of the request as an ErrRequest or ErrSpace. Only the shapes of past
// configurations are checked, so that its cost stays small beside a long history.
func (r Request) Validate() error {
	if err := r.Space.Validate(); err != nil {
		return err
	}
	switch {
	case r.N < 0:
		return fmt.Errorf("%w: n is %d, it must not be negative", ErrRequest, r.N)
	case r.First < 0:
		return fmt.Errorf("%w: first is %d, it must not be negative", ErrRequest, r.First)
	case r.Objectives < 1:
		return fmt.Errorf("%w: objectives is %d, it must be at least 1", ErrRequest, r.Objectives)
	}
	for i := range r.History {
		if r.Known != nil {
			break
		}
		t := &r.History[i]
		if err := r.checkShape(t); err != nil {
			return err
		}
		if t.State == Pending {
			return fmt.Errorf("%w: trial %d of the history is pending", ErrRequest, t.Number)
		}
		if t.State == Complete && len(t.Objectives) != r.Objectives {
			return fmt.Errorf("%w: trial %d has %d objectives, it must have %d", ErrRequest, t.Number, len(t.Objectives), r.Objectives)
		}
	}
	for i := range r.Pending {
		if err := r.checkShape(&r.Pending[i]); err != nil {
			return err
		}
	}
	return nil
}

func (r Request) checkShape(t *Trial) error {
	if len(t.Config) != len(r.Space.Params) {
		return fmt.Errorf("%w: trial %d has %d values for %d parameters", ErrRequest, t.Number, len(t.Config), len(r.Space.Params))
	}
	return nil
}

// Usable reports whether the trial is complete and all its objectives are finite numbers. A sampler treats any other
// finished trial as failed or infeasible.
func (t *Trial) Usable() bool {
	if t.State != Complete {
		return false
	}
	for _, v := range t.Objectives {
		if !finite(v) {
			return false
		}
	}
	return true
}

// Rand returns the random source of one trial of a job: the same for the same seed and number, unlike any other.
func Rand(seed uint64, number int) *rand.Rand {
	return rand.New(rand.NewPCG(mix(seed), mix(mix(seed)^uint64(number))))
}

// mix is the finaliser of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
