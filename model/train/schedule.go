package train

import (
	"fmt"
	"math"
)

// ScheduleKind names how the learning rate changes over a training.
type ScheduleKind string

// The kinds of schedule. p is the part of the training after warm-up that is
// done, from 0 to 1.
const (
	Constant   ScheduleKind = "constant"
	Step       ScheduleKind = "step"       // times Factor at each of At
	Cosine     ScheduleKind = "cosine"     // from 1 to Floor along half a cosine (Loshchilov and Hutter, 2017)
	Polynomial ScheduleKind = "polynomial" // from 1 to Floor as (1-p)^Power
)

// Schedule is the learning rate over a training, as a factor of Options.Rate.
type Schedule struct {
	Kind   ScheduleKind
	WarmUp float64   // part of the training in which the rate rises from 0, in [0, 1)
	At     []float64 // of Step: where the rate drops, as parts of the training after warm-up; default 0.5 and 0.75
	Factor float64   // of Step; default 0.1
	Floor  float64   // of Cosine and Polynomial: the factor at the end, in [0, 1]
	Power  float64   // of Polynomial; default 1
}

func (s Schedule) withDefaults() Schedule {
	if s.Kind == "" {
		s.Kind = Constant
	}
	if s.Kind == Step {
		if s.At == nil {
			s.At = []float64{0.5, 0.75}
		}
		if s.Factor == 0 {
			s.Factor = 0.1
		}
	}
	if s.Kind == Polynomial && s.Power == 0 {
		s.Power = 1
	}
	return s
}

// Validate checks the schedule; the error wraps ErrOptions.
func (s Schedule) Validate() error {
	s = s.withDefaults()
	switch s.Kind {
	case Constant, Step, Cosine, Polynomial:
	default:
		return fmt.Errorf("%w: schedule %q: want constant, step, cosine or polynomial", ErrOptions, s.Kind)
	}
	if !(s.WarmUp >= 0 && s.WarmUp < 1) {
		return fmt.Errorf("%w: warm-up %v: want 0 or more and below 1", ErrOptions, s.WarmUp)
	}
	if s.Kind == Step && !(s.Factor > 0 && finite(s.Factor)) {
		return fmt.Errorf("%w: schedule factor %v: want more than 0", ErrOptions, s.Factor)
	}
	if !(s.Floor >= 0 && s.Floor <= 1) {
		return fmt.Errorf("%w: schedule floor %v: want 0 to 1", ErrOptions, s.Floor)
	}
	if s.Kind == Polynomial && !(s.Power > 0 && finite(s.Power)) {
		return fmt.Errorf("%w: schedule power %v: want more than 0", ErrOptions, s.Power)
	}
	for i, v := range s.At {
		if !(v >= 0 && v <= 1) || i > 0 && v < s.At[i-1] {
			return fmt.Errorf("%w: schedule drops at %v: want 0 to 1, ascending", ErrOptions, s.At)
		}
	}
	return nil
}

// factor is that of step, counted from 0, of steps.
func (s Schedule) factor(step, steps int) float64 {
	warm := int(math.Ceil(s.WarmUp * float64(steps)))
	if step < warm {
		return float64(step+1) / float64(warm+1)
	}
	p := 0.0
	if rest := steps - warm; rest > 1 {
		p = float64(step-warm) / float64(rest)
	}
	switch s.Kind {
	case Step:
		f := 1.0
		for _, at := range s.At {
			if p >= at {
				f *= s.Factor
			}
		}
		return f
	case Cosine:
		return s.Floor + (1-s.Floor)*(1+math.Cos(math.Pi*p))/2
	case Polynomial:
		return s.Floor + (1-s.Floor)*math.Pow(1-p, s.Power)
	}
	return 1
}
