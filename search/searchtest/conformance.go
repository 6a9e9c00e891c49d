package searchtest

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"sync"
	"testing"

	"github.com/espalier-ml/espalier/search"
)

// Conformance checks that samplers keep the contract of search.Sampler. fresh returns a new sampler each time.
func Conformance(t *testing.T, fresh func() search.Sampler) {
	for name, space := range spaces() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			suite := suite{fresh: fresh, space: space}
			t.Run("valid", suite.valid)
			t.Run("pure", suite.pure)
			t.Run("batch", suite.batch)
			t.Run("known", suite.known)
			t.Run("concurrent", suite.concurrent)
			t.Run("hostile history", suite.hostile)
			t.Run("objectives", suite.objectives)
		})
	}
	t.Run("exhausts a finite space", func(t *testing.T) { exhausts(t, fresh()) })
	t.Run("invalid requests", func(t *testing.T) { refuses(t, fresh()) })
	t.Run("seeds differ", func(t *testing.T) { seedsDiffer(t, fresh()) })
}

// spaces covers every kind of parameter, alone and together.
func spaces() map[string]search.Space {
	choice := func(name string, ordered bool, values ...string) search.Param {
		return search.Param{Name: name, Kind: search.Choice, Choices: values, Ordered: ordered}
	}
	when := func(p search.Param, name string, values ...string) search.Param {
		p.When = &search.Condition{Param: name, Values: values}
		return p
	}
	float := search.Param{Name: "float", Kind: search.Float, Min: -2, Max: 3}
	logFloat := search.Param{Name: "rate", Kind: search.Float, Min: 1e-5, Max: 1e-1, Log: true}
	integer := search.Param{Name: "int", Kind: search.Int, Min: -3, Max: 40}
	logInt := search.Param{Name: "width", Kind: search.Int, Min: 1, Max: 512, Log: true}
	fixed := search.Param{Name: "fixed", Kind: search.Float, Min: 0.25, Max: 0.25}
	return map[string]search.Space{
		"one float": {Params: []search.Param{float}},
		"numbers":   {Params: []search.Param{float, logFloat, integer, logInt, fixed}},
		"choices": {Params: []search.Param{choice("a", false, "p", "q", "r"), choice("b", true, "1", "2", "4", "8"), choice("c", false, "only"),
			choice("d", true, "0", "1", "2", "3", "4", "5", "6", "7"), choice("e", false, "0", "1", "2", "3", "4", "5")}},
		"conditional": {Params: []search.Param{choice("strategy", false, "plain", "channel", "hybrid"), float,
			when(choice("schedule", false, "once", "steps"), "strategy", "plain", "hybrid"),
			when(logInt, "schedule", "steps"), when(logFloat, "strategy", "channel"), when(fixed, "strategy", "hybrid")}},
	}
}

type suite struct {
	fresh func() search.Sampler
	space search.Space
}

// objectives is a smooth function of any configuration with a real conflict between its values.
func objectives(space search.Space, c search.Config, n int) []float64 {
	out := make([]float64, n)
	for j := range out {
		target := float64(j+1) / float64(n+1)
		for i, v := range c {
			u := 0.9
			if !math.IsNaN(v) {
				u = space.Params[i].Unit(v)
			}
			out[j] += (u - target) * (u - target) * float64(1+(i+j)%3)
		}
	}
	return out
}

// history makes n finished trials, every seventh failed and every eleventh infeasible, and some pending ones.
func (s suite) history(n, goals int, seed uint64) search.Request {
	req := search.Request{Space: s.space, Seed: seed, First: n + 3, N: 1, Objectives: goals}
	rng, seen := search.Rand(seed, -1), req.Seen()
	for i := range n + 3 {
		c, _ := seen.Fresh(s.space, rng, nil)
		seen.Add(c)
		t := search.Trial{Number: i, Config: c}
		switch {
		case i%(n/3+1) == n/3:
			req.Pending = append(req.Pending, t)
			continue
		case i%7 == 6:
			t.State = search.Failed
		case i%11 == 10:
			t.State, t.Violation = search.Infeasible, float64(i%4)
		default:
			t.State, t.Objectives = search.Complete, objectives(s.space, c, goals)
		}
		req.History = append(req.History, t)
	}
	return req
}

func suggest(t *testing.T, sampler search.Sampler, req search.Request) []search.Config {
	t.Helper()
	configs, err := sampler.Suggest(req)
	if err != nil {
		t.Fatalf("seed %d, %d finished: %v", req.Seed, len(req.History), err)
	}
	if len(configs) != req.N {
		t.Fatalf("seed %d, %d finished: %d configurations, want %d", req.Seed, len(req.History), len(configs), req.N)
	}
	return configs
}

// lengths of history that cross every sampler's start.
var lengths = []int{0, 1, 2, 5, 20, 60}

func (s suite) valid(t *testing.T) {
	sampler := s.fresh()
	for _, n := range lengths {
		for seed := range uint64(10) {
			req := s.history(n, 2, seed)
			req.N = 4
			seen := req.Seen()
			for _, c := range suggest(t, sampler, req) {
				if err := s.space.Check(c); err != nil {
					t.Fatal(err)
				}
				if seen.Has(c) {
					t.Fatalf("seed %d, %d finished: %v is known already", seed, n, c)
				}
				seen.Add(c)
			}
		}
	}
}

// known checks that a set of what is known changes neither the answer nor itself.
func (s suite) known(t *testing.T) {
	sampler := s.fresh()
	for _, n := range lengths {
		req := s.history(n, 2, 3)
		req.N = 4
		want := suggest(t, sampler, req)
		for _, pending := range []bool{false, true} {
			known := new(search.Seen)
			for _, trial := range req.History {
				known.Add(trial.Config)
			}
			for _, trial := range req.Pending {
				if pending {
					known.Add(trial.Config)
				}
			}
			size, with := known.Len(), req
			with.Known = known
			if got := suggest(t, sampler, with); !slices.EqualFunc(got, want, search.Config.Equal) {
				t.Fatalf("%d finished, pending among the known %t: %v, without %v", n, pending, got, want)
			}
			if known.Len() != size {
				t.Fatalf("%d finished: the set of what is known grew from %d to %d", n, size, known.Len())
			}
		}
	}
}

// pure checks that a call changes neither its request nor later answers.
func (s suite) pure(t *testing.T) {
	used := s.fresh()
	for _, n := range lengths {
		req := s.history(n, 3, 1)
		before := fmt.Sprintf("%v", req)
		first := suggest(t, used, req)
		if fmt.Sprintf("%v", req) != before {
			t.Fatal("the request was changed")
		}
		other := s.history(n+4, 3, 2)
		suggest(t, used, other)
		same := s.history(n, 3, 1)
		for name, again := range map[string][]search.Config{"same sampler": suggest(t, used, same), "new sampler": suggest(t, s.fresh(), same)} {
			if !slices.EqualFunc(first, again, search.Config.Equal) {
				t.Fatalf("%d finished: %v became %v with the %s", n, first, again, name)
			}
		}
		for _, c := range first { // the answer belongs to the caller
			for i := range c {
				c[i] = -99
			}
		}
		suggest(t, used, other)
		if fmt.Sprintf("%v", req) != before {
			t.Fatal("the answer shares memory with the request")
		}
		if again := suggest(t, used, same); !s.space.Valid(again[0]) {
			t.Fatal("the answer shares memory with the sampler")
		}
		// A caller that goes on appending to the same history must be told the truth about it.
		grown := req
		grown.History = append(slices.Clip(req.History), search.Trial{Number: 900, Config: other.History[0].Config, State: search.Complete, Objectives: []float64{0, 0, 0}})
		grown.Pending, grown.First = nil, 901
		if a, b := suggest(t, used, grown), suggest(t, s.fresh(), grown); !a[0].Equal(b[0]) {
			t.Fatalf("after one more result: %v, a new sampler says %v", a, b)
		}
		// Nor may a history of the same length and other contents be mistaken for the earlier one.
		changed := s.history(n, 3, 1)
		for i := range changed.History {
			if o := changed.History[i].Objectives; o != nil {
				slices.Reverse(o)
			}
		}
		if a, b := suggest(t, used, changed), suggest(t, s.fresh(), changed); !a[0].Equal(b[0]) {
			t.Fatalf("after other results: %v, a new sampler says %v", a, b)
		}
	}
}

// batch checks that asking for several is asking for one after another.
func (s suite) batch(t *testing.T) {
	for _, n := range lengths {
		req := s.history(n, 2, 3)
		one := req
		req.N = 5
		for i, want := range suggest(t, s.fresh(), req) {
			got := suggest(t, s.fresh(), one)[0]
			if !got.Equal(want) {
				t.Fatalf("%d finished: number %d of a batch is %v, alone %v", n, i, want, got)
			}
			one.Pending = append(slices.Clip(one.Pending), search.Trial{Number: one.First, Config: got})
			one.First++
		}
	}
}

func (s suite) concurrent(t *testing.T) {
	sampler := s.fresh()
	var group sync.WaitGroup
	for worker := range 4 {
		group.Go(func() {
			for _, n := range lengths {
				req := s.history(n, 2, uint64(worker%2))
				got, err := sampler.Suggest(req)
				want, _ := s.fresh().Suggest(req)
				if err != nil || !reflect.DeepEqual(fmt.Sprint(got), fmt.Sprint(want)) {
					t.Errorf("%d finished: got %v, %v, want %v", n, got, err, want)
				}
			}
		})
	}
	group.Wait()
}

// hostile feeds histories that a search can really have: nothing but failures, no difference, absurd values, doubles.
func (s suite) hostile(t *testing.T) {
	change := map[string]func(i int, t *search.Trial){
		"all failed":     func(_ int, t *search.Trial) { t.State, t.Objectives = search.Failed, nil },
		"all infeasible": func(i int, t *search.Trial) { t.State, t.Objectives, t.Violation = search.Infeasible, nil, float64(i) },
		"one complete": func(i int, t *search.Trial) {
			if i != 5 {
				t.State, t.Objectives = search.Failed, nil
			} else {
				t.State, t.Objectives = search.Complete, []float64{1, 2}
			}
		},
		"all equal":    func(_ int, t *search.Trial) { t.State, t.Objectives = search.Complete, []float64{1, 2} },
		"not a number": func(_ int, t *search.Trial) { t.State, t.Objectives = search.Complete, []float64{math.NaN(), 0} },
		"infinite": func(i int, t *search.Trial) {
			t.State, t.Objectives = search.Complete, []float64{math.Inf(1 - i%2*2), float64(i)}
		},
		"huge": func(i int, t *search.Trial) {
			t.State, t.Objectives = search.Complete, []float64{1e308 * float64(i%3-1), -1e308}
		},
		"no conflict": func(i int, t *search.Trial) {
			t.State, t.Objectives = search.Complete, []float64{float64(i), float64(i)}
		},
		"known numbers": func(_ int, t *search.Trial) { t.Number = 7 },
		"same config":   func(_ int, t *search.Trial) { t.Config = s.space.Repair(make(search.Config, len(t.Config))) },
	}
	for name, f := range change {
		sampler := s.fresh()
		for _, n := range []int{30, 60} {
			req := s.history(n, 2, 5)
			for i := range req.History {
				f(i, &req.History[i])
			}
			req.N = 3
			seen := req.Seen()
			for _, c := range suggest(t, sampler, req) {
				if err := s.space.Check(c); err != nil || seen.Has(c) {
					t.Fatalf("%s: suggested %v, known %v: %v", name, c, seen.Has(c), err)
				}
			}
		}
	}
}

// objectives checks any number of them.
func (s suite) objectives(t *testing.T) {
	for _, goals := range []int{1, 2, 3, 4, 6} {
		req := s.history(40, goals, 9)
		if c := suggest(t, s.fresh(), req)[0]; !s.space.Valid(c) {
			t.Fatalf("%d objectives: %v", goals, c)
		}
	}
}

// exhausts runs a search over a small space, three trials at a time, to its end.
func exhausts(t *testing.T, sampler search.Sampler) {
	space := search.Space{Params: []search.Param{
		{Name: "a", Kind: search.Choice, Choices: []string{"x", "y"}},
		{Name: "b", Kind: search.Int, Max: 19, When: &search.Condition{Param: "a", Values: []string{"x"}}},
		{Name: "c", Kind: search.Choice, Choices: []string{"1", "2", "4"}, Ordered: true},
	}}
	size := int(space.Size())
	req := search.Request{Space: space, Seed: 4, N: 1, Objectives: 2}
	seen := req.Seen()
	for req.First < size {
		c := suggest(t, sampler, req)[0]
		if seen.Has(c) || !space.Valid(c) {
			t.Fatalf("trial %d of %d: %v is known or invalid", req.First, size, c)
		}
		seen.Add(c)
		req.Pending = append(req.Pending, search.Trial{Number: req.First, Config: c})
		if len(req.Pending) == 3 {
			ended := req.Pending[0]
			req.Pending = slices.Clone(req.Pending[1:])
			ended.State, ended.Objectives = search.Complete, objectives(space, ended.Config, 2)
			if req.First%5 == 4 {
				ended.State, ended.Objectives = search.Failed, nil
			}
			req.History = append(req.History, ended)
		}
		if req.First++; req.First == size-2 {
			long := req
			long.N = 10
			if rest, err := sampler.Suggest(long); err != nil || len(rest) != 2 {
				t.Fatalf("%d of the last 2 configurations: %v", len(rest), err)
			}
		}
	}
	if rest, err := sampler.Suggest(req); !errors.Is(err, search.ErrExhausted) || len(rest) != 0 {
		t.Errorf("after all %d: %v, %v, want ErrExhausted", size, rest, err)
	}
	req.N = 0
	if rest, err := sampler.Suggest(req); err != nil || len(rest) != 0 {
		t.Errorf("asked for none: %v, %v", rest, err)
	}
}

func refuses(t *testing.T, sampler search.Sampler) {
	space := search.Space{Params: []search.Param{{Name: "a", Kind: search.Float, Max: 1}}}
	for name, req := range map[string]search.Request{
		"no space":          {Objectives: 1, N: 1},
		"no objectives":     {Space: space, N: 1},
		"negative":          {Space: space, N: -1, Objectives: 1},
		"another dimension": {Space: space, N: 1, Objectives: 1, Pending: []search.Trial{{Config: search.Config{1, 2}}}},
	} {
		if _, err := sampler.Suggest(req); !errors.Is(err, search.ErrRequest) && !errors.Is(err, search.ErrSpace) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func seedsDiffer(t *testing.T, sampler search.Sampler) {
	s := suite{space: spaces()["numbers"]}
	for _, n := range lengths {
		a, b := s.history(n, 2, 1), s.history(n, 2, 1)
		b.Seed = 2
		if x, y := suggest(t, sampler, a)[0], suggest(t, sampler, b)[0]; x.Equal(y) {
			t.Errorf("%d finished: two seeds both give %v", n, x)
		}
		b.Seed, b.First = 1, b.First+1
		if x, y := suggest(t, sampler, a)[0], suggest(t, sampler, b)[0]; x.Equal(y) {
			t.Errorf("%d finished: two numbers both give %v", n, x)
		}
	}
}
