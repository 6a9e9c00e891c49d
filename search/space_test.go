package search

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
)

// pruning is a space with every kind of parameter and a condition on a conditional parameter.
func pruning() Space {
	return Space{Params: []Param{
		{Name: "strategy", Kind: Choice, Choices: []string{"magnitude", "channel", "hybrid"}},
		{Name: "sparsity", Kind: Float, Max: 0.98},
		{Name: "schedule", Kind: Choice, Choices: []string{"one-shot", "polynomial"}, When: &Condition{"strategy", []string{"magnitude", "hybrid"}}},
		{Name: "steps", Kind: Int, Min: 1, Max: 100, Log: true, When: &Condition{"schedule", []string{"polynomial"}}},
		{Name: "epochs", Kind: Choice, Choices: []string{"1", "2", "4"}, Ordered: true},
		{Name: "rate", Kind: Float, Min: 1e-4, Max: 1e-2, Log: true},
	}}
}

func TestSpaceValidate(t *testing.T) {
	if err := pruning().Validate(); err != nil {
		t.Fatal(err)
	}
	choice := Param{Name: "a", Kind: Choice, Choices: []string{"x", "y"}}
	when := func(param string, values ...string) Param {
		return Param{Name: "b", Kind: Float, Max: 1, When: &Condition{param, values}}
	}
	for _, c := range []struct {
		name, want string
		params     []Param
	}{
		{"empty", "no parameters", nil},
		{"too many", "4097 parameters, at most 4096", make([]Param, 4097)},
		{"too many choices", "4097 choices, at most 4096", []Param{{Name: "a", Kind: Choice, Choices: make([]string, 4097)}}},
		{"unnamed", "parameter 0 has no name", []Param{{Kind: Float}}},
		{"twice", `"a" occurs twice`, []Param{choice, choice}},
		{"no kind", "kind 0 is none of", []Param{{Name: "a"}}},
		{"float with choices", "choices are for a choice", []Param{{Name: "a", Kind: Float, Choices: []string{"x"}}}},
		{"ordered int", "ordered is for a choice", []Param{{Name: "a", Kind: Int, Ordered: true}}},
		{"nan", "must be finite", []Param{{Name: "a", Kind: Float, Min: math.NaN()}}},
		{"reversed", "min 2 is above max 1", []Param{{Name: "a", Kind: Float, Min: 2, Max: 1}}},
		{"too wide", "too far apart", []Param{{Name: "a", Kind: Float, Min: -math.MaxFloat64, Max: math.MaxFloat64}}},
		{"fraction", "must be whole numbers", []Param{{Name: "a", Kind: Int, Max: 1.5}}},
		{"huge", "within ±2^53", []Param{{Name: "a", Kind: Int, Max: 1e17}}},
		{"log of zero", "must be positive", []Param{{Name: "a", Kind: Float, Max: 1, Log: true}}},
		{"int log of zero", "at least 1", []Param{{Name: "a", Kind: Int, Max: 1, Log: true}}},
		{"no choices", "at least one value", []Param{{Name: "a", Kind: Choice}}},
		{"log choice", "are for numbers", []Param{{Name: "a", Kind: Choice, Choices: []string{"x"}, Log: true}}},
		{"empty choice", "value 1 of the choice is empty", []Param{{Name: "a", Kind: Choice, Choices: []string{"x", ""}}}},
		{"same choice", `value "x" of the choice occurs twice`, []Param{{Name: "a", Kind: Choice, Choices: []string{"x", "x"}}}},
		{"when later", "not an earlier parameter", []Param{when("a", "x"), choice}},
		{"when self", "not an earlier parameter", []Param{when("b", "x")}},
		{"when number", "it must be a choice", []Param{{Name: "a", Kind: Int, Max: 1}, when("a", "x")}},
		{"when empty", "has no values", []Param{choice, when("a")}},
		{"when unknown", `"z" is none of "a"'s: x, y`, []Param{choice, when("a", "z")}},
		{"when twice", `"x" occurs twice`, []Param{choice, when("a", "x", "x")}},
	} {
		err := Space{c.params}.Validate()
		if !errors.Is(err, ErrSpace) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

func TestCheck(t *testing.T) {
	nan := math.NaN()
	for _, c := range []struct {
		config Config
		want   string
	}{
		{Config{0, 0.5, 1, 10, 2, 1e-3}, ""},
		{Config{1, 0.5, nan, nan, 2, 1e-3}, ""},
		{Config{0, 0.5, 0, nan, 2, 1e-3}, ""},
		{Config{1, 0.5}, "2 values for 6 parameters"},
		{Config{1, 0.5, 0, nan, 2, 1e-3}, "schedule is 0, it must be NaN"},
		{Config{1, 0.5, nan, 3, 2, 1e-3}, "steps is 3, it must be NaN"},
		{Config{nan, 0.5, nan, nan, 2, 1e-3}, "strategy has no value"},
		{Config{3, 0.5, nan, nan, 2, 1e-3}, "strategy is 3, it must lie in [0, 2]"},
		{Config{1, 1, nan, nan, 2, 1e-3}, "sparsity is 1, it must lie in [0, 0.98]"},
		{Config{0, 0.5, 1, 1.5, 2, 1e-3}, "steps is 1.5, it must be a whole number"},
	} {
		err := pruning().Check(c.config)
		if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%v: got %v, want %q", c.config, err, c.want)
		}
	}
}

func TestSampleRepairDecode(t *testing.T) {
	s := pruning()
	rng := Rand(1, 2)
	keys := map[string]bool{}
	for range 500 {
		c := s.Sample(rng)
		if err := s.Check(c); err != nil {
			t.Fatal(err)
		}
		if !s.Repair(c).Equal(c) {
			t.Fatalf("repair changed the valid %v", c)
		}
		values, err := s.Decode(c)
		if err != nil {
			t.Fatal(err)
		}
		back, err := s.Encode(values)
		if err != nil || !back.Equal(c) {
			t.Fatalf("%v became %v: %v", c, back, err)
		}
		text, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		var read Config
		if err := json.Unmarshal(text, &read); err != nil || !read.Equal(c) || read.hash() != c.hash() {
			t.Fatalf("%v became %v by %s: %v", c, read, text, err)
		}
		keys[s.Key(c)] = true

		broken := Config{rng.NormFloat64() * 3, rng.NormFloat64(), math.NaN(), rng.NormFloat64() * 90, math.Inf(1), math.Inf(-1)}
		for _, fixed := range []Config{s.Repair(broken), s.Complete(broken, rng)} {
			if err := s.Check(fixed); err != nil {
				t.Fatalf("%v repaired to %v: %v", broken, fixed, err)
			}
		}
	}
	if len(keys) < 490 {
		t.Errorf("500 samples have only %d keys", len(keys))
	}
	if v, ok := s.Get(Config{1, 0.5, math.NaN(), math.NaN(), 2, 1e-3}, "epochs"); !ok || v != "4" {
		t.Errorf("epochs is %v, %v", v, ok)
	}
	if v, ok := s.Get(Config{1, 0.5, math.NaN(), math.NaN(), 2, 1e-3}, "steps"); ok {
		t.Errorf("inactive steps is %v", v)
	}
}

func TestActiveOfAnything(t *testing.T) {
	s := pruning()
	for _, v := range []float64{-1, 3, 1e300, -1e300, math.Inf(1), math.Inf(-1), math.NaN()} {
		if s.Active(Config{v, 0, 0, 0, 0, 0}, 2) {
			t.Errorf("schedule is active while the strategy is %v", v)
		}
	}
}

func TestEncodeRefuses(t *testing.T) {
	s := pruning()
	valid := map[string]any{"strategy": "channel", "sparsity": 0.5, "epochs": "2", "rate": 0.001}
	if _, err := s.Encode(valid); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(m map[string]any){
		"speed is not a parameter":            func(m map[string]any) { m["speed"] = 1 },
		`rate: value "fast" must be a number`: func(m map[string]any) { m["rate"] = "fast" },
		"epochs: value 2 must be one of":      func(m map[string]any) { m["epochs"] = 2 },
		`strategy: value "none" is none of`:   func(m map[string]any) { m["strategy"] = "none" },
		"rate has no value":                   func(m map[string]any) { delete(m, "rate") },
		"steps is 3, it must be NaN":          func(m map[string]any) { m["steps"] = int64(3) },
		"of type bool":                        func(m map[string]any) { m["rate"] = true },
	} {
		m := map[string]any{}
		for k, v := range valid {
			m[k] = v
		}
		change(m)
		if _, err := s.Encode(m); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want %q", err, name)
		}
	}
}

func TestUnit(t *testing.T) {
	for _, p := range pruning().Params {
		low, high := p.Bounds()
		for i := range 101 {
			v := p.Clip(low + float64(i)/100*(high-low))
			u := p.Unit(v)
			if back := p.FromUnit(u); u < 0 || u > 1 || math.Abs(back-v) > 1e-12*max(1, math.Abs(v)) {
				t.Errorf("%s: %v became %v by %v", p.Name, v, back, u)
			}
		}
		for v := low; p.Kind != Float && v <= high; v++ {
			a, b := p.Cell(v)
			if e := (b - a) / 100; a >= b || p.FromUnit(a+e) != v || p.FromUnit(b-e) != v {
				t.Errorf("%s: %v has the cell [%v, %v], whose ends map to %v, %v", p.Name, v, a, b, p.FromUnit(a+e), p.FromUnit(b-e))
			}
		}
		if p.FromUnit(0) != low || p.FromUnit(1) != high {
			t.Errorf("%s: ends map to %v, %v, want %v, %v", p.Name, p.FromUnit(0), p.FromUnit(1), low, high)
		}
	}
}

func TestSampleIsEvenAlongTheScale(t *testing.T) {
	s, rng := pruning(), Rand(7, 0)
	const n = 20000
	var rate, steps, channel float64
	for range n {
		c := s.Sample(rng)
		if c[5] < 1e-3 {
			rate++
		}
		if c[3] <= 10 {
			steps++
		}
		if c[0] == 1 {
			channel++
		}
	}
	wantSteps := n * (2.0 / 3) * 0.5 * (math.Log(10.5) - math.Log(0.5)) / (math.Log(100.5) - math.Log(0.5))
	for name, got := range map[string][2]float64{"rate": {rate, n / 2}, "steps": {steps, wantSteps}, "channel": {channel, n / 3.0}} {
		if math.Abs(got[0]-got[1]) > 5*math.Sqrt(n/4) {
			t.Errorf("%s: %v draws, want about %.0f", name, got[0], got[1])
		}
	}
}

func TestSizeAndNext(t *testing.T) {
	s := Space{Params: []Param{
		{Name: "a", Kind: Choice, Choices: []string{"x", "y", "z"}},
		{Name: "b", Kind: Choice, Choices: []string{"p", "q"}, When: &Condition{"a", []string{"x", "y"}}},
		{Name: "c", Kind: Int, Min: -1, Max: 2, When: &Condition{"b", []string{"q"}}},
		{Name: "d", Kind: Float, Min: 3, Max: 3},
		{Name: "e", Kind: Int, Min: 0, Max: 1},
	}}
	if got := s.Size(); got != 22 { // (2·(1+4) + 1) · 2
		t.Fatalf("size is %v, want 22", got)
	}
	if got := pruning().Size(); !math.IsInf(got, 1) {
		t.Errorf("size of a space with a float is %v", got)
	}
	start := s.Sample(Rand(1, 1))
	seen := map[string]bool{}
	for c := start; ; {
		if err := s.Check(c); err != nil {
			t.Fatal(err)
		}
		if seen[s.Key(c)] = true; len(seen) > 22 {
			t.Fatal("more configurations than the size")
		}
		if c = s.next(c); c.Equal(start) {
			break
		}
	}
	if len(seen) != 22 {
		t.Errorf("walked over %d configurations, want 22", len(seen))
	}
}

func TestSpaceJSON(t *testing.T) {
	text, err := json.Marshal(pruning())
	if err != nil {
		t.Fatal(err)
	}
	var back Space
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	again, _ := json.Marshal(back)
	if string(again) != string(text) {
		t.Errorf("%s became %s", text, again)
	}
	if err := json.Unmarshal([]byte(`{"params":[{"kind":"real"}]}`), &back); !errors.Is(err, ErrSpace) {
		t.Errorf("unknown kind: %v", err)
	}
}
