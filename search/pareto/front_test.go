package pareto

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestFront(t *testing.T) {
	var f Front
	for _, c := range []struct {
		number     int
		objectives []float64
		added      bool
		removed    []int
	}{
		{4, []float64{2, 2}, true, nil},
		{5, []float64{3, 1}, true, nil},
		{6, []float64{3, 3}, false, nil},
		{3, []float64{2, 2}, true, nil},  // equal points are both members
		{4, []float64{0, 0}, false, nil}, // the first result of a trial counts
		{7, []float64{math.NaN(), 0}, false, nil},
		{8, []float64{1}, false, nil},
		{9, []float64{1, 2}, true, []int{3, 4}},
	} {
		added, removed := f.Add(Point{c.number, c.objectives})
		if added != c.added || !slices.Equal(removed, c.removed) {
			t.Errorf("adding %d %v: %v, removed %v", c.number, c.objectives, added, removed)
		}
	}
	if got := f.Numbers(); !slices.Equal(got, []int{9, 5}) || f.Len() != 2 || !f.Has(9) || f.Has(4) {
		t.Errorf("members are %v", got)
	}
	if got := f.Hypervolume([]float64{4, 4}); got != 3*2+1*1 {
		t.Errorf("hypervolume is %v, want 7", got)
	}
}

func TestFrontDoesNotDependOnOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	for objectives := 1; objectives <= 4; objectives++ {
		for range 50 {
			cloud := cloud(rng, 30, objectives, 4)
			points := make([]Point, len(cloud))
			var want []Point
			for i, p := range cloud {
				points[i] = Point{i, p}
				if !slices.ContainsFunc(cloud, func(q []float64) bool { return Dominates(q, p) }) {
					want = append(want, points[i])
				}
			}
			slices.SortFunc(want, comparePoints)
			rng.Shuffle(len(points), func(i, j int) { points[i], points[j] = points[j], points[i] })
			var f Front
			for _, p := range points {
				f.Add(p)
			}
			if got := f.Members(); !reflect.DeepEqual(got, want) {
				t.Fatalf("members are %v, want %v", got, want)
			}
		}
	}
}

func TestFit(t *testing.T) {
	ms := time.Millisecond
	members := []Member{
		{Number: 5, Accuracy: 0.90, SizeBytes: 300, LatencyP50: 4 * ms, LatencyP95: 6 * ms},
		{Number: 4, Accuracy: 0.88, SizeBytes: 200, LatencyP50: 3 * ms, LatencyP95: 5 * ms},
		{Number: 3, Accuracy: 0.88, SizeBytes: 200, LatencyP50: 2 * ms, LatencyP95: 5 * ms},
		{Number: 2, Accuracy: 0.88, SizeBytes: 250, LatencyP50: 1 * ms, LatencyP95: 2 * ms},
		{Number: 1, Accuracy: 0.95, SizeBytes: 400},
		{Number: 0, Accuracy: math.NaN(), SizeBytes: 1, LatencyP95: 1},
	}
	for _, c := range []struct {
		budget Budget
		want   int
		err    string
	}{
		{Budget{}, 1, ""},
		{Budget{Latency: 6 * ms}, 5, ""},
		{Budget{Latency: 6*ms - 1}, 3, ""},
		{Budget{SizeBytes: 200}, 3, ""},
		{Budget{SizeBytes: 299, Latency: 4 * ms}, 2, ""},
		{Budget{Latency: 5 * ms, SizeBytes: 200, Accuracy: 0.88}, 3, ""},
		{Budget{Latency: ms, Accuracy: 0.5}, 0, "latency p95 up to 1ms is met by 1 of 6 (best 1ns), accuracy from 0.5 is met by 5 of 6 (best 0.95)"},
		{Budget{SizeBytes: 199, Accuracy: 0.1}, 0, "size up to 199 bytes is met by 1 of 6 (best 1 bytes)"},
	} {
		got, err := Fit(members, c.budget)
		switch {
		case c.err == "" && (err != nil || got.Number != c.want):
			t.Errorf("%+v: got %d, %v, want %d", c.budget, got.Number, err, c.want)
		case c.err != "" && (!errors.Is(err, ErrNoFit) || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%+v: got %v, want %q", c.budget, err, c.err)
		}
	}
	if _, err := Fit(nil, Budget{}); !errors.Is(err, ErrNoFit) || !strings.Contains(err.Error(), "the front is empty") {
		t.Errorf("empty front: %v", err)
	}
	if _, err := Fit(members[4:5], Budget{Latency: ms}); err == nil || !strings.Contains(err.Error(), "best not measured") {
		t.Errorf("unmeasured: %v", err)
	}
}

func TestNormalise(t *testing.T) {
	b := Baseline{Error: 0.10, SizeBytes: 1000, LatencyP50: time.Second}
	for _, c := range []struct {
		member Member
		want   []float64
	}{
		{Member{Accuracy: 0.9, SizeBytes: 1000, LatencyP50: time.Second}, []float64{0.5, 1, 1}},
		{Member{Accuracy: 1, SizeBytes: 1, LatencyP50: 10 * time.Millisecond}, []float64{0, 0, 0}},
		{Member{Accuracy: 0.8, SizeBytes: 100, LatencyP50: 100 * time.Millisecond}, []float64{1, 2.0 / 3, 0.5}},
		{Member{Accuracy: 0.1, SizeBytes: 5000, LatencyP50: time.Hour}, []float64{1, 1, 1}},
		{Member{Accuracy: math.NaN()}, []float64{1, 1, 1}},
	} {
		got := b.Normalise(c.member)
		for i := range c.want {
			if math.Abs(got[i]-c.want[i]) > 1e-12 {
				t.Errorf("%+v: got %v, want %v", c.member, got, c.want)
				break
			}
		}
	}
	half := Member{Accuracy: 0.9, SizeBytes: 100, LatencyP50: 100 * time.Millisecond}
	if got, want := b.Hypervolume([]Member{half}), 0.5/3*0.5; math.Abs(got-want) > 1e-12 {
		t.Errorf("hypervolume is %v, want %v", got, want)
	}
	b.LatencyP50 = 0
	if got := fmt.Sprint(len(b.Normalise(half)), b.Reference()); got != "2 [1 1]" {
		t.Errorf("without latency: %s", got)
	}
	if got, want := b.Hypervolume([]Member{half}), 0.5/3; math.Abs(got-want) > 1e-12 {
		t.Errorf("hypervolume without latency is %v, want %v", got, want)
	}
}
