package prune

import (
	"errors"
	"math"
	"testing"

	"github.com/espalier-ml/espalier/model"
)

func TestSteps(t *testing.T) {
	target := Target{Channels: map[string]float64{"a": 0.8}, Weights: map[string]float64{"b": 0.4}}
	for _, tt := range []struct {
		schedule string
		n        int
		want     []float64 // fractions of the target
	}{
		{OneShot, 1, []float64{1}},
		{OneShot, 5, []float64{1}},
		{Iterative, 4, []float64{0.25, 0.5, 0.75, 1}},
		{Polynomial, 1, []float64{1}},
		{Polynomial, 4, []float64{1 - 27.0/64, 1 - 1.0/8, 1 - 1.0/64, 1}},
	} {
		got, err := Steps(tt.schedule, target, tt.n)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(tt.want) {
			t.Errorf("%s: %d steps, want %d", tt.schedule, len(got), len(tt.want))
			continue
		}
		for k, part := range tt.want {
			if math.Abs(got[k].Channels["a"]-0.8*part) > 1e-12 || math.Abs(got[k].Weights["b"]-0.4*part) > 1e-12 {
				t.Errorf("%s: step %d: %v, want %v of the target", tt.schedule, k, got[k], part)
			}
		}
		if last := got[len(got)-1]; last.Channels["a"] != 0.8 || last.Weights["b"] != 0.4 {
			t.Errorf("%s: ends at %v", tt.schedule, last)
		}
	}
	for _, n := range []int{0, -1, MaxSteps + 1} {
		if _, err := Steps(Iterative, target, n); !errors.Is(err, ErrSchedule) {
			t.Errorf("%d steps: error %v", n, err)
		}
	}
	if _, err := Steps("cosine", target, 1); !errors.Is(err, ErrSchedule) {
		t.Errorf("an unknown schedule: error %v", err)
	}
}

// Every schedule ends with exactly as many channels and zeros as one shot.
func TestStepsReachTheTarget(t *testing.T) {
	for _, x := range []struct {
		net   string
		input model.Shape
		n     int
	}{{"seed-cnn", model.Shape{32, 32, 3}, 10}, {"resnet-8", model.Shape{16, 16, 3}, 10}, {"ds-cnn", model.Shape{49, 10, 1}, 12}} {
		original := build(t, x.net, x.input, x.n)
		groups := groupsOf(t, original)
		target := Uniform(groups, 0.7, 0.83)
		for _, schedule := range Schedules() {
			steps, err := Steps(schedule, target, 5)
			if err != nil {
				t.Fatal(err)
			}
			g, masks := original, &Masks{}
			last := math.MaxInt
			for _, step := range steps {
				if g, masks, err = Step(lookup(t, "hybrid"), Input{Graph: g, Target: step}, groups); err != nil {
					t.Fatalf("%s, %s: %v", x.net, schedule, err)
				}
				c, err := g.Cost()
				if err != nil {
					t.Fatal(err)
				}
				if int(c.NonZeros) > last {
					t.Errorf("%s, %s: %d values after %d", x.net, schedule, c.NonZeros, last)
				}
				last = int(c.NonZeros)
			}
			for k, now := range groupsOf(t, g) {
				want := groups[k].Channels - count(target.Channels[now.Name], groups[k].Channels)
				if now.Channels != want {
					t.Errorf("%s, %s: group %q has %d channels, want %d", x.net, schedule, now.Name, now.Channels, want)
				}
			}
			if s := masks.Sparsity(); math.Abs(s-0.83) > 0.02 {
				t.Errorf("%s, %s: sparsity %v", x.net, schedule, s)
			}
		}
	}
}

// Where everything is asked for, the steps end at what must stay.
func TestStepsToTheLeast(t *testing.T) {
	for _, name := range []string{"ds-cnn", "resnet-8"} {
		g := build(t, name, model.Shape{32, 32, 1}, 10)
		groups := groupsOf(t, g)
		steps, err := Steps(Iterative, Uniform(groups, 1, 0), 6)
		if err != nil {
			t.Fatal(err)
		}
		for _, step := range append(steps, steps[len(steps)-1]) {
			if g, _, err = Step(lookup(t, "channel-l1"), Input{Graph: g, Target: step}, groups); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		for _, now := range groupsOf(t, g) {
			if now.Channels > 2 && now.Name != "fc1" {
				t.Errorf("%s: group %q has %d channels left", name, now.Name, now.Channels)
			}
		}
	}
}

func TestRemaining(t *testing.T) {
	groups := func(n int) []Group { return []Group{{Name: "a", Channels: n, Prunable: true}} }
	at := func(s float64) Target { return Target{Channels: map[string]float64{"a": s}} }
	for _, tt := range []struct {
		was, is int
		s       float64
		want    int // channels that the result removes of is
	}{
		{64, 64, 0.5, 32}, {64, 48, 0.5, 16}, {64, 32, 0.5, 0}, {64, 20, 0.5, 0}, {64, 64, 1, 63}, {7, 7, 0.5, 4}, {7, 5, 0.5, 2}, {3, 3, 0, 0},
	} {
		r, err := Remaining(groups(tt.was), groups(tt.is), at(tt.s))
		if err != nil {
			t.Fatal(err)
		}
		if got := count(r.Channels["a"], tt.is); got != tt.want {
			t.Errorf("%+v: removes %d", tt, got)
		}
	}
	if _, err := Remaining(groups(3), nil, at(0.5)); !errors.Is(err, ErrTarget) {
		t.Errorf("a group that is gone: error %v", err)
	}
	if _, err := Remaining(groups(3), groups(3), at(math.NaN())); !errors.Is(err, ErrTarget) {
		t.Errorf("not a number: error %v", err)
	}
}
