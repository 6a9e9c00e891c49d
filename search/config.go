package search

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
)

// Config is a point of a space: one number per parameter, in the space's order. A Choice is the index of its value, an
// inactive parameter is NaN.
type Config []float64

// MarshalJSON writes an array of numbers, null for an inactive parameter.
func (c Config) MarshalJSON() ([]byte, error) {
	if c == nil {
		return []byte("null"), nil
	}
	out := []byte{'['}
	for i, v := range c {
		if i > 0 {
			out = append(out, ',')
		}
		switch {
		case math.IsNaN(v):
			out = append(out, "null"...)
		case math.IsInf(v, 0):
			return nil, fmt.Errorf("%w: value %d is %v, it must be finite", ErrConfig, i, v)
		default:
			out = strconv.AppendFloat(out, v, 'g', -1, 64)
		}
	}
	return append(out, ']'), nil
}

// UnmarshalJSON reads what MarshalJSON writes.
func (c *Config) UnmarshalJSON(data []byte) error {
	var values []*float64
	if err := json.Unmarshal(data, &values); err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if values == nil {
		*c = nil
		return nil
	}
	out := make(Config, len(values))
	for i, v := range values {
		out[i] = math.NaN()
		if v != nil {
			out[i] = *v
		}
	}
	*c = out
	return nil
}

// Equal reports whether both have the same values; inactive equals inactive.
func (c Config) Equal(d Config) bool {
	return slices.EqualFunc(c, d, func(a, b float64) bool {
		return a == b || math.IsNaN(a) && math.IsNaN(b)
	})
}

// hash is the same for equal configurations.
func (c Config) hash() uint64 {
	h := uint64(len(c))
	for _, v := range c {
		bits := math.Float64bits(v + 0) // + 0 turns a negative zero into zero
		if v != v {
			bits = 1
		}
		h = (h ^ bits) * 0x9e3779b97f4a7c15
		h ^= h >> 32
	}
	return h
}

// Key returns the configuration's canonical text: equal configurations of a space, and no others, share it.
func (s Space) Key(c Config) string {
	out := make([]byte, 0, 12*len(c))
	for i, v := range c {
		if i > 0 {
			out = append(out, ',')
		}
		if math.IsNaN(v) {
			out = append(out, '-')
		} else {
			out = strconv.AppendFloat(out, v+0, 'g', -1, 64)
		}
	}
	return string(out)
}

// Check reports why c is not a point of the space, as an ErrConfig that names the parameter.
func (s Space) Check(c Config) error {
	if len(c) != len(s.Params) {
		return fmt.Errorf("%w: %d values for %d parameters", ErrConfig, len(c), len(s.Params))
	}
	for i, v := range c {
		p := &s.Params[i]
		if !s.Active(c, i) {
			if !math.IsNaN(v) {
				return fmt.Errorf("%w: %s is %v, it must be NaN while it is inactive", ErrConfig, p.Name, v)
			}
			continue
		}
		low, high := p.Bounds()
		switch {
		case math.IsNaN(v):
			return fmt.Errorf("%w: %s has no value", ErrConfig, p.Name)
		case v < low || v > high:
			return fmt.Errorf("%w: %s is %v, it must lie in [%v, %v]", ErrConfig, p.Name, v, low, high)
		case p.Kind != Float && v != math.Trunc(v):
			return fmt.Errorf("%w: %s is %v, it must be a whole number", ErrConfig, p.Name, v)
		}
	}
	return nil
}

// Valid reports whether c is a point of the space.
func (s Space) Valid(c Config) bool { return s.Check(c) == nil }

// Sample draws a configuration, every active parameter evenly along its scale.
func (s Space) Sample(rng *rand.Rand) Config {
	c := make(Config, len(s.Params))
	for i := range c {
		c[i] = math.NaN()
	}
	return s.Complete(c, rng)
}

// Complete returns the valid configuration nearest to c, in which active parameters without a value are drawn from rng.
// It panics unless c has one value per parameter.
func (s Space) Complete(c Config, rng *rand.Rand) Config {
	return s.fill(c, func(p *Param) float64 { return p.FromUnit(rng.Float64()) })
}

// Repair returns the valid configuration nearest to c: values cut to their bounds and rounded, inactive parameters
// NaN, active ones without a value in the middle of their scale. It panics unless c has one value per parameter.
func (s Space) Repair(c Config) Config {
	return s.fill(c, func(p *Param) float64 { return p.FromUnit(0.5) })
}

func (s Space) fill(c Config, missing func(*Param) float64) Config {
	out := slices.Clone(c)
	for i := range s.Params {
		switch {
		case !s.Active(out, i):
			out[i] = math.NaN()
		case math.IsNaN(out[i]):
			out[i] = missing(&s.Params[i])
		default:
			out[i] = s.Params[i].Clip(out[i])
		}
	}
	return out
}

// Get returns the named parameter's value: a float64, an int or a string. ok is false if the space has no such parameter
// or it is inactive in c.
func (s Space) Get(c Config, name string) (value any, ok bool) {
	i := s.Index(name)
	if i < 0 || i >= len(c) || math.IsNaN(c[i]) {
		return nil, false
	}
	return s.Params[i].value(c[i]), true
}

func (p Param) value(v float64) any {
	switch p.Kind {
	case Choice:
		return p.Choices[int(v)]
	case Int:
		return int64(v)
	}
	return v
}

// Decode returns the active parameters by name: float64, int64 or string. c must be valid, else the error is an ErrConfig.
func (s Space) Decode(c Config) (map[string]any, error) {
	if err := s.Check(c); err != nil {
		return nil, err
	}
	out := make(map[string]any, len(c))
	for i, v := range c {
		if !math.IsNaN(v) {
			out[s.Params[i].Name] = s.Params[i].value(v)
		}
	}
	return out, nil
}

// Encode is the inverse of Decode; numbers may be any of float64, int and int64. A name that the space lacks, a missing
// one, an inactive one and a value out of bounds are each an ErrConfig.
func (s Space) Encode(values map[string]any) (Config, error) {
	c := make(Config, len(s.Params))
	used := 0
	for i := range s.Params {
		p := &s.Params[i]
		c[i] = math.NaN()
		raw, ok := values[p.Name]
		if !ok {
			continue
		}
		used++
		v, err := p.number(raw)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrConfig, p.Name, err)
		}
		c[i] = v
	}
	if used < len(values) {
		for _, name := range slices.Sorted(keys(values)) {
			if s.Index(name) < 0 {
				return nil, fmt.Errorf("%w: %s is not a parameter of the space", ErrConfig, name)
			}
		}
	}
	return c, s.Check(c)
}

func keys(m map[string]any) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// number turns a decoded value into what a configuration stores.
func (p Param) number(raw any) (float64, error) {
	switch v := raw.(type) {
	case string:
		if p.Kind != Choice {
			return 0, fmt.Errorf("value %q must be a number", v)
		}
		if i := slices.Index(p.Choices, v); i >= 0 {
			return float64(i), nil
		}
		return 0, fmt.Errorf("value %q is none of %q", v, p.Choices)
	case float64:
		return v, p.wantNumber(raw)
	case int:
		return float64(v), p.wantNumber(raw)
	case int64:
		return float64(v), p.wantNumber(raw)
	}
	return 0, fmt.Errorf("value %v of type %T must be a number or a string", raw, raw)
}

func (p Param) wantNumber(raw any) error {
	if p.Kind == Choice {
		return fmt.Errorf("value %v must be one of %q", raw, p.Choices)
	}
	return nil
}
