package data

import (
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/espalier-ml/espalier/model"
)

func TestSplitCoversEverySampleOnceAndStratifies(t *testing.T) {
	for _, test := range []struct {
		name                        string
		n, testFrom                 int
		opt                         SplitOptions
		train, validation, testSize int
	}{
		{"no test files", 1000, 1000, SplitOptions{}, 810, 90, 100},
		{"test files", 1000, 800, SplitOptions{}, 720, 80, 200},
		{"fractions", 1000, 1000, SplitOptions{Seed: 3, Test: 0.2, Validation: 0.25}, 600, 200, 200},
		{"few", 30, 30, SplitOptions{}, 10, 10, 10},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := toy(t, test.n, 1, 10)
			s.TestFrom = test.testFrom
			mustSplit(t, s, test.opt)
			if got := []int{len(s.Train), len(s.Validation), len(s.Test)}; !slices.Equal(got, []int{test.train, test.validation, test.testSize}) {
				t.Fatalf("sizes %v", got)
			}
			all := slices.Concat(s.Train, s.Validation, s.Test)
			slices.Sort(all)
			if !slices.Equal(all, sequence(0, test.n)) {
				t.Fatal("not every sample exactly once")
			}
			count := make([]int, 10)
			for _, i := range s.Validation {
				count[s.Labels[i]]++
			}
			if slices.Min(count) != slices.Max(count) {
				t.Fatalf("validation is not stratified: %v", count)
			}
			if test.testFrom < test.n && int(s.Test[0]) != test.testFrom {
				t.Fatalf("first test sample %d", s.Test[0])
			}
		})
	}
}

func TestSplitHashFollowsSeedAndFractions(t *testing.T) {
	hash := func(o SplitOptions) string { return mustSplit(t, toy(t, 500, 1, 5), o).SplitHash() }
	if hash(SplitOptions{}) != hash(SplitOptions{Seed: 1, Test: 0.1, Validation: 0.1}) {
		t.Error("defaults differ from the same values written out")
	}
	seen := map[string]bool{}
	for _, o := range []SplitOptions{{}, {Seed: 2}, {Test: 0.3}, {Validation: 0.3}} {
		seen[hash(o)] = true
	}
	if len(seen) != 4 {
		t.Errorf("%d different splits of 4", len(seen))
	}
	const golden = "4fb3268a6cc678b80d67103506dbc26e2e7b63820c053b796c99ddc30dca7858" // the same on every platform
	if got := hash(SplitOptions{}); got != golden {
		t.Errorf("hash %s: want %s", got, golden)
	}
}

func TestSplitKeepsGroupsTogether(t *testing.T) {
	s := toy(t, 600, 1, 3)
	for i := range s.Labels {
		s.Groups = append(s.Groups, int32(i*i%40))
	}
	mustSplit(t, s, SplitOptions{})
	in := map[int32]string{}
	for name, list := range map[string][]int32{"train": s.Train, "validation": s.Validation, "test": s.Test} {
		if len(list) < 20 {
			t.Errorf("%s has %d samples", name, len(list))
		}
		for _, i := range list {
			if was, ok := in[s.Groups[i]]; ok && was != name {
				t.Fatalf("group %d in %s and %s", s.Groups[i], was, name)
			}
			in[s.Groups[i]] = name
		}
	}
}

func TestSplitRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*Set)
		opt    SplitOptions
		want   error
	}{
		"label out of range": {func(s *Set) { s.Labels[3] = 9 }, SplitOptions{}, ErrFormat},
		"negative label":     {func(s *Set) { s.Labels[3] = -1 }, SplitOptions{}, ErrFormat},
		"too few values":     {func(s *Set) { s.Images = s.Images[1:] }, SplitOptions{}, ErrFormat},
		"no samples":         {func(s *Set) { s.Images, s.Labels, s.TestFrom = []byte{}, nil, 0 }, SplitOptions{}, ErrNoData},
		"one class":          {func(s *Set) { s.Classes = s.Classes[:1] }, SplitOptions{}, ErrFormat},
		"shape":              {func(s *Set) { s.Shape = model.Shape{20, 1} }, SplitOptions{}, ErrFormat},
		"groups":             {func(s *Set) { s.Groups = []int32{1} }, SplitOptions{}, ErrFormat},
		"one group":          {func(s *Set) { s.Groups = make([]int32, len(s.Labels)) }, SplitOptions{}, ErrNoData},
		"all test":           {func(s *Set) { s.TestFrom = 0 }, SplitOptions{}, ErrNoData},
		"fraction 1":         {func(*Set) {}, SplitOptions{Test: 1}, ErrOption},
		"fraction NaN":       {func(*Set) {}, SplitOptions{Validation: math.NaN()}, ErrOption},
		"fraction below 0":   {func(*Set) {}, SplitOptions{Validation: -0.1}, ErrOption},
	} {
		t.Run(name, func(t *testing.T) {
			s := toy(t, 60, 1, 3)
			test.change(s)
			if err := s.Split(test.opt); !errors.Is(err, test.want) {
				t.Errorf("error %v: want %v", err, test.want)
			}
		})
	}
}
