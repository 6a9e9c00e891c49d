package search

import (
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestRequestValidate(t *testing.T) {
	space := Space{Params: []Param{{Name: "a", Kind: Int, Max: 9}}}
	ok := Trial{Config: Config{1}, State: Complete, Objectives: []float64{1, 2}}
	valid := Request{Space: space, History: []Trial{ok, {Config: Config{2}, State: Failed}}, Pending: []Trial{{Config: Config{3}}}, N: 1, Objectives: 2}
	if err := valid.Validate(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Request){
		"n is -1":                        func(r *Request) { r.N = -1 },
		"first is -1":                    func(r *Request) { r.First = -1 },
		"objectives is 0":                func(r *Request) { r.Objectives = 0 },
		"trial 0 has 2 objectives":       func(r *Request) { r.Objectives = 3 },
		"trial 7 of the history is pend": func(r *Request) { r.History = []Trial{{Number: 7, Config: Config{1}}} },
		"trial 8 has 2 values":           func(r *Request) { r.Pending = []Trial{{Number: 8, Config: Config{1, 2}}} },
		"trial 9 has 0 values":           func(r *Request) { r.History = []Trial{{Number: 9, State: Failed}} },
	} {
		r := valid
		change(&r)
		if err := r.Validate(); !errors.Is(err, ErrRequest) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if err := (Request{Objectives: 1}).Validate(); !errors.Is(err, ErrSpace) {
		t.Errorf("empty space: %v", err)
	}
}

func TestTrialJSON(t *testing.T) {
	trial := Trial{Number: 3, Config: Config{1, math.NaN(), 0.5}, State: Infeasible, Violation: 2, Extra: map[string]float64{"epochs": 4}}
	text, err := json.Marshal(trial)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"number":3,"config":[1,null,0.5],"state":"infeasible","violation":2,"extra":{"epochs":4}}`
	if string(text) != want {
		t.Errorf("got %s, want %s", text, want)
	}
	var back Trial
	if err := json.Unmarshal(text, &back); err != nil || back.State != Infeasible || !back.Config.Equal(trial.Config) {
		t.Errorf("%s became %+v: %v", text, back, err)
	}
	if err := json.Unmarshal([]byte(`{"state":"lost"}`), &back); !errors.Is(err, ErrRequest) {
		t.Errorf("unknown state: %v", err)
	}
	if _, err := json.Marshal(Trial{State: 9}); err == nil {
		t.Error("an invalid state was written")
	}
	if _, err := json.Marshal(Trial{Config: Config{math.Inf(1)}}); err == nil {
		t.Error("an infinite value was written")
	}
}

func TestRandStreams(t *testing.T) {
	if once, again := Rand(3, 4).Uint64(), Rand(3, 4).Uint64(); once != again {
		t.Error("the same trial has two streams")
	}
	first := map[uint64]bool{}
	for seed := range uint64(100) {
		for number := range 100 {
			first[Rand(seed, number).Uint64()] = true
		}
	}
	if len(first) != 10000 {
		t.Errorf("10000 streams start with %d numbers", len(first))
	}
}

func TestSeen(t *testing.T) {
	s := Request{}.Seen()
	nan := math.NaN()
	rng := Rand(1, 1)
	var all []Config
	for range 3000 {
		c := Config{float64(rng.IntN(40)), nan, float64(rng.IntN(40))}
		if want := slices.ContainsFunc(all, c.Equal); s.Has(c) != want {
			t.Fatalf("has %v: %v, want %v", c, !want, want)
		}
		s.Add(c)
		if !s.Has(c) {
			t.Fatalf("%v is not in the set that it was added to", c)
		}
		if !slices.ContainsFunc(all, c.Equal) {
			all = append(all, c)
		}
	}
	if s.Len() != len(all) {
		t.Errorf("%d of %d configurations", s.Len(), len(all))
	}
	if s.Add(nil); s.Has(nil) || s.Len() != len(all) {
		t.Error("an empty configuration was added")
	}
}

func TestSeenSurvivesEqualHashes(t *testing.T) {
	s := Request{N: 4}.Seen()
	a, b := Config{1}, Config{2}
	*s.find(b.hash(), a) = seenSlot{b.hash(), a} // as if both had the same hash
	if s.Has(b) {
		t.Error("an unequal configuration of the same hash counts as seen")
	}
	if s.Add(b); !s.Has(b) {
		t.Error("a configuration is missing after it was added beside one of the same hash")
	}
}

func TestCollectExhaustsAFiniteSpace(t *testing.T) {
	space := Space{Params: []Param{
		{Name: "a", Kind: Choice, Choices: []string{"x", "y"}},
		{Name: "b", Kind: Int, Max: 49, When: &Condition{"a", []string{"x"}}},
	}}
	stuck := func(int, *rand.Rand, []Trial) func() Config { return func() Config { return Config{0, 7} } }
	got, err := Request{Space: space, N: 60, Objectives: 1}.Collect(stuck)
	if err != nil || len(got) != 51 {
		t.Fatalf("%d configurations, want all 51: %v", len(got), err)
	}
	keys := make([]string, len(got))
	var pending []Trial
	for i, c := range got {
		keys[i] = space.Key(c)
		pending = append(pending, Trial{Number: i, Config: c})
	}
	slices.Sort(keys)
	if n := len(slices.Compact(keys)); n != 51 {
		t.Errorf("only %d of them differ", n)
	}
	if _, err := (Request{Space: space, N: 1, Pending: pending, Objectives: 1}).Collect(stuck); !errors.Is(err, ErrExhausted) {
		t.Errorf("got %v, want ErrExhausted", err)
	}
}
