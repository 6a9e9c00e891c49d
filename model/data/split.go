package data

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
)

// Defaults of SplitOptions.
const (
	DefaultSeed       = 1
	DefaultTest       = 0.10
	DefaultValidation = 0.10
)

// SplitOptions fixes a split. The zero value is the default split.
type SplitOptions struct {
	Seed       uint64  // 0 means DefaultSeed
	Test       float64 // fraction held out for test if there were no test files; 0 means DefaultTest
	Validation float64 // fraction of what is not test; 0 means DefaultValidation
}

func (o SplitOptions) withDefaults() (SplitOptions, error) {
	if o.Seed == 0 {
		o.Seed = DefaultSeed
	}
	if o.Test == 0 {
		o.Test = DefaultTest
	}
	if o.Validation == 0 {
		o.Validation = DefaultValidation
	}
	for name, f := range map[string]float64{"test": o.Test, "validation": o.Validation} {
		if !(f > 0 && f < 1) {
			return o, fmt.Errorf("%w: %s fraction %v: want more than 0 and less than 1", ErrOption, name, f)
		}
	}
	return o, nil
}

// Purposes of random streams, so that no two draw the same numbers.
const (
	streamTest = iota + 1
	streamValidation
	streamEpoch
	streamAugment
	streamShape
)

// Split validates the set, fixes its Train, Validation and Test, and computes
// Mean and Std over Train alone. Samples from test files are Test; without any a
// fraction is held out first. Then Validation is taken from the rest. Both draw
// the same fraction of every class, or whole groups at random where the set has
// groups. The same samples, seed and fractions give the same split everywhere.
func (s *Set) Split(o SplitOptions) error {
	o, err := o.withDefaults()
	if err != nil {
		return err
	}
	if err := s.Validate(); err != nil {
		return err
	}
	rest := sequence(0, s.TestFrom)
	test := sequence(s.TestFrom, s.Len())
	if len(test) == 0 {
		rest, test = s.holdOut(rest, o.Test, newRandom(o.Seed, streamTest))
	}
	train, validation := s.holdOut(rest, o.Validation, newRandom(o.Seed, streamValidation))
	for _, p := range []struct {
		name string
		v    []int32
	}{{"train", train}, {"validation", validation}, {"test", test}} {
		if len(p.v) == 0 {
			return fmt.Errorf("%w: the %s split of %d samples is empty: want more samples, or more groups", ErrNoData, p.name, s.Len())
		}
	}
	s.Train, s.Validation, s.Test = train, validation, test
	s.normalise()
	return nil
}

// SplitHash is the SHA-256, in hexadecimal, of the three index lists.
func (s *Set) SplitHash() string {
	h := sha256.New()
	var b []byte
	for _, list := range [][]int32{s.Train, s.Validation, s.Test} {
		b = binary.LittleEndian.AppendUint32(b[:0], uint32(len(list)))
		for _, i := range list {
			b = binary.LittleEndian.AppendUint32(b, uint32(i))
		}
		h.Write(b)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func sequence(from, to int) []int32 {
	v := make([]int32, 0, to-from)
	for i := from; i < to; i++ {
		v = append(v, int32(i))
	}
	return v
}

// holdOut takes about fraction of the indices, stratified by class, or whole
// groups. Both results are ascending.
func (s *Set) holdOut(indices []int32, fraction float64, r random) (rest, held []int32) {
	take := make(map[int32]bool)
	if s.Groups != nil {
		s.takeGroups(take, indices, fraction, r)
	} else {
		s.takeOfEachClass(take, indices, fraction, r)
	}
	for _, i := range indices {
		if take[i] {
			held = append(held, i)
		} else {
			rest = append(rest, i)
		}
	}
	return rest, held
}

func (s *Set) takeOfEachClass(take map[int32]bool, indices []int32, fraction float64, r random) {
	of := make([][]int32, len(s.Classes))
	for _, i := range indices {
		of[s.Labels[i]] = append(of[s.Labels[i]], i)
	}
	for _, v := range of {
		r.shuffle(v)
		n := int(math.Round(float64(len(v)) * fraction))
		if n == 0 && len(v) > 1 {
			n = 1
		}
		for _, i := range v[:n] {
			take[i] = true
		}
	}
}

// takeGroups takes groups in random order while that brings the number of
// samples nearer to the fraction, at least one, and never the last.
func (s *Set) takeGroups(take map[int32]bool, indices []int32, fraction float64, r random) {
	of := make(map[int32][]int32)
	var order []int32
	for _, i := range indices {
		g := s.Groups[i]
		if of[g] == nil {
			order = append(order, g)
		}
		of[g] = append(of[g], i)
	}
	slices.Sort(order)
	r.shuffle(order)
	want := int(math.Round(float64(len(indices)) * fraction))
	taken := 0
	for k, g := range order {
		n := len(of[g])
		if k == len(order)-1 || taken > 0 && taken+n-want > want-taken {
			break
		}
		taken += n
		for _, i := range of[g] {
			take[i] = true
		}
	}
}
