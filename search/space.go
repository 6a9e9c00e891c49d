package search

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Errors of this package. Every error returned wraps one of them.
var (
	// ErrSpace marks a space that contradicts itself.
	ErrSpace = errors.New("invalid space")
	// ErrConfig marks a configuration that is not a point of its space.
	ErrConfig = errors.New("invalid configuration")
	// ErrRequest marks a request whose parts do not belong together.
	ErrRequest = errors.New("invalid request")
	// ErrExhausted says that every configuration of a finite space is already finished or pending.
	ErrExhausted = errors.New("search space exhausted")
)

// Kind is what values a parameter takes.
type Kind uint8

// The kinds of parameter. The zero Kind is invalid, so that a forgotten one is an error.
const (
	// Float is a real number in [Min, Max].
	Float Kind = iota + 1
	// Int is a whole number in [Min, Max].
	Int
	// Choice is one of Choices; a configuration stores its index.
	Choice
)

var kindNames = [...]string{Float: "float", Int: "int", Choice: "choice"}

// String returns "float", "int" or "choice".
func (k Kind) String() string {
	if k < Float || k > Choice {
		return fmt.Sprintf("kind(%d)", uint8(k))
	}
	return kindNames[k]
}

// MarshalText writes the name that String returns; an invalid kind is an ErrSpace.
func (k Kind) MarshalText() ([]byte, error) {
	if k < Float || k > Choice {
		return nil, fmt.Errorf("%w: kind %d is none of float, int, choice", ErrSpace, uint8(k))
	}
	return []byte(k.String()), nil
}

// UnmarshalText reads the name that String returns; anything else is an ErrSpace.
func (k *Kind) UnmarshalText(text []byte) error {
	for i := Float; i <= Choice; i++ {
		if kindNames[i] == string(text) {
			*k = i
			return nil
		}
	}
	return fmt.Errorf("%w: kind %q is none of float, int, choice", ErrSpace, text)
}

// Condition makes a parameter active only while an earlier choice has one of some values.
type Condition struct {
	// Param names a Choice that comes earlier in the space.
	Param string `json:"param"`
	// Values are those of its Choices for which the condition holds.
	Values []string `json:"values"`
}

// Param is one dimension of a space.
type Param struct {
	Name string `json:"name"`
	Kind Kind   `json:"kind"`
	// Min and Max bound a Float or an Int, both inclusive. Unused by a Choice.
	Min float64 `json:"min,omitempty"`
	Max float64 `json:"max,omitempty"`
	// Log spreads a Float or an Int evenly over its logarithm; Min must be positive (at least 1 for an Int).
	Log bool `json:"log,omitempty"`
	// Choices are the values of a Choice.
	Choices []string `json:"choices,omitempty"`
	// Ordered says that neighbouring Choices are alike (1, 2, 4 epochs), so that a small step between them means something.
	Ordered bool `json:"ordered,omitempty"`
	// When, if set, makes the parameter active only while it holds.
	When *Condition `json:"when,omitempty"`
}

// Space is an ordered list of parameters. A condition may name only an earlier parameter.
type Space struct {
	Params []Param `json:"params"`
}

const (
	// maxInt bounds an Int's range: beyond it float64 no longer holds every whole number.
	maxInt = 1 << 53
	// most bounds the parameters of a space and the choices of a parameter, since spaces come from users.
	most = 4096
)

// Validate reports the first contradiction of the space as an ErrSpace.
func (s Space) Validate() error {
	if len(s.Params) == 0 {
		return fmt.Errorf("%w: no parameters, at least one is needed", ErrSpace)
	}
	if len(s.Params) > most {
		return fmt.Errorf("%w: %d parameters, at most %d are possible", ErrSpace, len(s.Params), most)
	}
	seen := make(map[string]int, len(s.Params))
	for i, p := range s.Params {
		if p.Name == "" {
			return fmt.Errorf("%w: parameter %d has no name", ErrSpace, i)
		}
		if _, dup := seen[p.Name]; dup {
			return fmt.Errorf("%w: parameter %q occurs twice", ErrSpace, p.Name)
		}
		if err := p.validate(); err != nil {
			return fmt.Errorf("%w: parameter %q: %w", ErrSpace, p.Name, err)
		}
		if p.When != nil {
			if err := s.validateWhen(p.When, seen); err != nil {
				return fmt.Errorf("%w: parameter %q: %w", ErrSpace, p.Name, err)
			}
		}
		seen[p.Name] = i
	}
	return nil
}

func (p Param) validate() error {
	switch p.Kind {
	case Choice:
		return p.validateChoice()
	case Float, Int:
	default:
		return fmt.Errorf("kind %d is none of float, int, choice", uint8(p.Kind))
	}
	switch {
	case len(p.Choices) > 0:
		return fmt.Errorf("choices are for a choice, not for kind %s", p.Kind)
	case p.Ordered:
		return fmt.Errorf("ordered is for a choice, kind %s is always ordered", p.Kind)
	case !finite(p.Min) || !finite(p.Max):
		return fmt.Errorf("bounds [%v, %v] must be finite", p.Min, p.Max)
	case p.Min > p.Max:
		return fmt.Errorf("min %v is above max %v", p.Min, p.Max)
	case math.IsInf(p.Max-p.Min, 0):
		return fmt.Errorf("bounds [%v, %v] are too far apart", p.Min, p.Max)
	case p.Kind == Int && (p.Min != math.Trunc(p.Min) || p.Max != math.Trunc(p.Max)):
		return fmt.Errorf("bounds [%v, %v] of an int must be whole numbers", p.Min, p.Max)
	case p.Kind == Int && (p.Min < -maxInt || p.Max > maxInt):
		return fmt.Errorf("bounds [%v, %v] of an int must lie within ±2^53", p.Min, p.Max)
	case p.Log && p.Kind == Float && p.Min <= 0:
		return fmt.Errorf("min %v of a log scale must be positive", p.Min)
	case p.Log && p.Kind == Int && p.Min < 1:
		return fmt.Errorf("min %v of an int's log scale must be at least 1", p.Min)
	}
	return nil
}

func (p Param) validateChoice() error {
	if len(p.Choices) == 0 {
		return errors.New("a choice needs at least one value")
	}
	if len(p.Choices) > most {
		return fmt.Errorf("%d choices, at most %d are possible", len(p.Choices), most)
	}
	if p.Log || p.Min != 0 || p.Max != 0 {
		return errors.New("min, max and log are for numbers, not for a choice")
	}
	for i, c := range p.Choices {
		if c == "" {
			return fmt.Errorf("value %d of the choice is empty", i)
		}
		if slices.Contains(p.Choices[:i], c) {
			return fmt.Errorf("value %q of the choice occurs twice", c)
		}
	}
	return nil
}

func (s Space) validateWhen(w *Condition, earlier map[string]int) error {
	i, ok := earlier[w.Param]
	if !ok {
		return fmt.Errorf("condition names %q, which is not an earlier parameter", w.Param)
	}
	parent := s.Params[i]
	if parent.Kind != Choice {
		return fmt.Errorf("condition names %q of kind %s, it must be a choice", w.Param, parent.Kind)
	}
	if len(w.Values) == 0 {
		return fmt.Errorf("condition on %q has no values", w.Param)
	}
	for i, v := range w.Values {
		if !slices.Contains(parent.Choices, v) {
			return fmt.Errorf("condition value %q is none of %q's: %s", v, w.Param, strings.Join(parent.Choices, ", "))
		}
		if slices.Contains(w.Values[:i], v) {
			return fmt.Errorf("condition value %q occurs twice", v)
		}
	}
	return nil
}

// Index returns the position of the named parameter, or -1.
func (s Space) Index(name string) int {
	return slices.IndexFunc(s.Params, func(p Param) bool { return p.Name == name })
}

// Active reports whether parameter i takes a value, given the values in c of the parameters before it. A parameter
// whose condition names an inactive one is inactive too.
func (s Space) Active(c Config, i int) bool {
	w := s.Params[i].When
	if w == nil {
		return true
	}
	for j := range i {
		if p := &s.Params[j]; p.Name == w.Param {
			return c[j] >= 0 && c[j] < float64(len(p.Choices)) && slices.Contains(w.Values, p.Choices[int(c[j])])
		}
	}
	return false
}

// Size returns how many configurations the space has, +Inf when a Float can vary.
func (s Space) Size() float64 {
	n := 1.0
	for i := range s.Params {
		if s.Params[i].When == nil {
			n *= s.sizeBelow(i)
		}
	}
	return n
}

// sizeBelow counts the values of parameter i together with those of all parameters that depend on it.
func (s Space) sizeBelow(i int) float64 {
	p := &s.Params[i]
	if p.Kind != Choice {
		return p.Levels()
	}
	var total float64
	for _, value := range p.Choices {
		n := 1.0
		for j := i + 1; j < len(s.Params); j++ {
			if w := s.Params[j].When; w != nil && w.Param == p.Name && slices.Contains(w.Values, value) {
				n *= s.sizeBelow(j)
			}
		}
		total += n
	}
	return total
}

// Levels returns how many values the parameter has, +Inf for a Float that can vary.
func (p Param) Levels() float64 {
	switch {
	case p.Kind == Choice:
		return float64(len(p.Choices))
	case p.Min == p.Max:
		return 1
	case p.Kind == Int:
		return p.Max - p.Min + 1
	}
	return math.Inf(1)
}

// Numeric reports whether a small step between neighbouring values means something: numbers and ordered choices.
func (p Param) Numeric() bool { return p.Kind != Choice || p.Ordered }

// Bounds returns the least and the greatest number that a configuration can hold for the parameter: indices for a Choice.
func (p Param) Bounds() (low, high float64) {
	if p.Kind == Choice {
		return 0, float64(len(p.Choices) - 1)
	}
	return p.Min, p.Max
}

// Unit maps a value to [0, 1] along the parameter's scale (linear or logarithmic). A whole number or an index sits inside its
// cell, so that FromUnit(Unit(v)) is v and evenly spread units give evenly spread values.
func (p Param) Unit(v float64) float64 { return p.unit(v) }

// Cell returns the part of [0, 1] that FromUnit maps to v: the share of a whole number or an index, a point for a Float.
func (p Param) Cell(v float64) (low, high float64) {
	if p.Kind == Float {
		return p.unit(v), p.unit(v)
	}
	return p.unit(v - 0.5), p.unit(v + 0.5)
}

func (p *Param) unit(v float64) float64 {
	low, high := p.scale()
	if low == high {
		return 0.5
	}
	if p.Log {
		v = math.Log(v)
	}
	return min(max((v-low)/(high-low), 0), 1)
}

// FromUnit is the inverse of Unit: it maps u, cut to [0, 1], to a valid value.
func (p Param) FromUnit(u float64) float64 {
	switch low, high := p.Bounds(); {
	case u <= 0:
		return low
	case u >= 1:
		return high
	}
	low, high := p.scale()
	v := low + float64(u*(high-low))
	if p.Log {
		v = math.Exp(v)
	}
	return p.Clip(v)
}

// scale returns the ends of the parameter's scale, logarithms for a Log one; whole numbers reach half a step beyond.
func (p *Param) scale() (low, high float64) {
	low, high = p.Bounds()
	if p.Kind != Float {
		low, high = low-0.5, high+0.5
	}
	if p.Log {
		low, high = math.Log(low), math.Log(high)
	}
	return low, high
}

// Clip returns the valid value nearest to v, the middle of the scale for NaN.
func (p Param) Clip(v float64) float64 {
	if math.IsNaN(v) {
		return p.FromUnit(0.5)
	}
	if p.Kind != Float {
		v = math.RoundToEven(v)
	}
	low, high := p.Bounds()
	return min(max(v, low), high) + 0 // + 0 turns a negative zero into zero
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
