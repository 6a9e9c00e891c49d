package data

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/espalier-ml/espalier/model"
)

// MaxClasses bounds the number of classes of a set.
const MaxClasses = 1 << 16

// Set is a labelled data set, held compactly. Exactly one of Images and
// Features holds the samples, one after the other, each channels last.
type Set struct {
	Name    string
	Shape   model.Shape // of one sample: {H, W, C} or {N}
	Classes []string    // names; a label is an index into it

	Images   []uint8   // N × Shape, when samples are bytes
	Features []float32 // N × Shape, when they are not; NaN is a missing value
	Labels   []int32   // N
	Groups   []int32   // N group numbers from 0, or nil: a group never spans splits

	// TestFrom is the number of samples before the first one that came from
	// test files; those are last. Len() when there were no test files.
	TestFrom int

	// Train, Validation and Test list samples by index, ascending. Set by Split.
	Train, Validation, Test []int32
	// Mean and Std are per channel (the last dimension) over Train, of x/255 for
	// Images and of x for Features; Std is 1 where a channel is constant. Set by
	// Split.
	Mean, Std []float32

	table [][256]float32 // per channel, normalised value of each byte; only for few channels
}

// Len is the number of samples.
func (s *Set) Len() int { return len(s.Labels) }

// Channels is the last dimension of a sample.
func (s *Set) Channels() int { return s.Shape[len(s.Shape)-1] }

// SizeBytes is the memory that samples, labels and groups take.
func (s *Set) SizeBytes() int64 {
	return int64(len(s.Images)) + 4*int64(len(s.Features)) + 4*int64(len(s.Labels)) + 4*int64(len(s.Groups))
}

// Validate checks that shape, samples, labels, groups and classes agree.
func (s *Set) Validate() error {
	if len(s.Shape) != 1 && len(s.Shape) != 3 {
		return fmt.Errorf("%w: shape %v: want {height, width, channels} or {features}", ErrFormat, []int(s.Shape))
	}
	if err := s.Shape.Check(); err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if s.Len() == 0 {
		return fmt.Errorf("%w: no samples", ErrNoData)
	}
	if s.Len() > math.MaxInt32 {
		return fmt.Errorf("%w: %d samples: want at most %d", ErrTooLarge, s.Len(), math.MaxInt32)
	}
	if (s.Images == nil) == (s.Features == nil) {
		return fmt.Errorf("%w: want either images or features", ErrFormat)
	}
	if have, want := int64(len(s.Images)+len(s.Features)), int64(s.Len())*int64(s.Shape.Elements()); have != want {
		return fmt.Errorf("%w: %d values for %d samples of %v: want %d", ErrFormat, have, s.Len(), []int(s.Shape), want)
	}
	if s.TestFrom < 0 || s.TestFrom > s.Len() {
		return fmt.Errorf("%w: test samples from %d of %d", ErrFormat, s.TestFrom, s.Len())
	}
	if n := len(s.Classes); n < 2 || n > MaxClasses {
		return fmt.Errorf("%w: %d classes: want 2 to %d", ErrFormat, n, MaxClasses)
	}
	for i, l := range s.Labels {
		if l < 0 || int(l) >= len(s.Classes) {
			return fmt.Errorf("%w: label %d of sample %d: want 0 to %d", ErrFormat, l, i, len(s.Classes)-1)
		}
	}
	if s.Groups != nil && len(s.Groups) != s.Len() {
		return fmt.Errorf("%w: %d group numbers for %d samples", ErrFormat, len(s.Groups), s.Len())
	}
	for i, g := range s.Groups {
		if g < 0 || int(g) >= s.Len() {
			return fmt.Errorf("%w: group %d of sample %d: want 0 to %d", ErrFormat, g, i, s.Len()-1)
		}
	}
	for i, v := range s.Features {
		if math.IsInf(float64(v), 0) {
			return fmt.Errorf("%w: value %d of sample %d is infinite", ErrFormat, i%s.Shape.Elements(), i/s.Shape.Elements())
		}
	}
	return nil
}

// Meta is what a model trained on the set should carry in its Graph.Meta: the
// names of the classes and the normalisation of raw values (bytes 0 to 255 for
// Images) over all of Train.
func (s *Set) Meta() map[string]string {
	unit := float64(1)
	if s.Images != nil {
		unit = 255
	}
	list := func(v []float32) string {
		parts := make([]string, len(v))
		for i, x := range v {
			parts[i] = strconv.FormatFloat(float64(float32(float64(x)*unit)), 'g', -1, 32)
		}
		return strings.Join(parts, ",")
	}
	m := map[string]string{model.MetaMean: list(s.Mean), model.MetaStd: list(s.Std)}
	if names := strings.Join(s.Classes, ","); strings.Count(names, ",") == len(s.Classes)-1 {
		m[model.MetaClasses] = names
	}
	return m
}

// UseMeta takes the normalisation that a model carries in its Graph.Meta, as Meta wrote
// it, in place of the set's own; a model without one changes nothing. Errors wrap
// ErrOption.
func (s *Set) UseMeta(meta map[string]string) error {
	if meta[model.MetaMean] == "" && meta[model.MetaStd] == "" {
		return nil
	}
	mean, err := s.fromList(model.MetaMean, meta[model.MetaMean])
	if err != nil {
		return err
	}
	std, err := s.fromList(model.MetaStd, meta[model.MetaStd])
	if err != nil {
		return err
	}
	for _, v := range std {
		if !(v > 0) {
			return fmt.Errorf("%w: the model's %s %q: want numbers above 0", ErrOption, model.MetaStd, meta[model.MetaStd])
		}
	}
	s.Mean, s.Std = mean, std
	s.tabulate()
	return nil
}

// fromList reads a number for each channel, of raw values.
func (s *Set) fromList(key, list string) ([]float32, error) {
	parts := strings.Split(list, ",")
	if len(parts) != s.Channels() {
		return nil, fmt.Errorf("%w: the model's %s %q: want %d numbers, one per channel of the data", ErrOption, key, list, s.Channels())
	}
	unit := float64(1)
	if s.Images != nil {
		unit = 255
	}
	out := make([]float32, len(parts))
	for i, p := range parts {
		v, err := strconv.ParseFloat(p, 32)
		if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, fmt.Errorf("%w: the model's %s %q: want finite numbers", ErrOption, key, list)
		}
		out[i] = float32(v / unit)
	}
	return out, nil
}

// numbered names n classes "0", "1", …
func numbered(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = strconv.Itoa(i)
	}
	return names
}
