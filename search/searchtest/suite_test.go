package searchtest

import (
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/espalier-ml/espalier/search"
	"github.com/espalier-ml/espalier/search/problem"
	"github.com/espalier-ml/espalier/search/random"
)

// broken samplers each break one promise of the contract; the value says which part of the suite must notice.
var broken = map[string]struct {
	fresh  func() search.Sampler
	notice string
}{
	"counts its calls":       {func() search.Sampler { return &counting{} }, "/pure"},
	"draws from nowhere":     {func() search.Sampler { return wrap(func(r *search.Request) { r.Seed = rand.Uint64() }) }, "/pure"},
	"keeps the first answer": {func() search.Sampler { return &keeping{byLength: map[int][]search.Config{}} }, "/pure"},
	"changes the history": {func() search.Sampler {
		return wrap(func(r *search.Request) {
			if len(r.History) > 0 {
				r.History[0].Number++
			}
		})
	}, "/pure"},
	"forgets the history":      {func() search.Sampler { return wrap(func(r *search.Request) { r.History = nil }) }, "exhausts_a_finite_space"},
	"forgets what is pending":  {func() search.Sampler { return wrap(func(r *search.Request) { r.Pending = nil }) }, "exhausts_a_finite_space"},
	"ignores the seed":         {func() search.Sampler { return wrap(func(r *search.Request) { r.Seed = 0 }) }, "seeds_differ"},
	"ignores the number":       {func() search.Sampler { return wrap(func(r *search.Request) { r.First = 0 }) }, "seeds_differ"},
	"takes anything":           {func() search.Sampler { return wrap(func(r *search.Request) { r.Objectives = 1 }) }, "invalid_requests"},
	"leaves bounds":            {func() search.Sampler { return after(func(c search.Config) { c[0] += 100 }) }, "/valid"},
	"gives inactive values":    {func() search.Sampler { return after(fillIn) }, "conditional/valid"},
	"hands out its own memory": {func() search.Sampler { return sharing{} }, "/pure"},
}

type counting struct {
	mutex sync.Mutex
	calls int
}

func (s *counting) Suggest(req search.Request) ([]search.Config, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.calls++
	req.Seed += uint64(s.calls)
	return random.Sampler{}.Suggest(req)
}

type keeping struct {
	mutex    sync.Mutex
	byLength map[int][]search.Config
}

func (s *keeping) Suggest(req search.Request) ([]search.Config, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if got := s.byLength[len(req.History)]; got != nil {
		return got, nil
	}
	got, err := random.Sampler{}.Suggest(req)
	s.byLength[len(req.History)] = got
	return got, err
}

type wrap func(*search.Request)

func (f wrap) Suggest(req search.Request) ([]search.Config, error) {
	f(&req)
	return random.Sampler{}.Suggest(req)
}

type after func(search.Config)

func (f after) Suggest(req search.Request) ([]search.Config, error) {
	got, err := random.Sampler{}.Suggest(req)
	for _, c := range got {
		f(c)
	}
	return got, err
}

func fillIn(c search.Config) {
	for i := range c {
		if math.IsNaN(c[i]) {
			c[i] = 1
		}
	}
}

type sharing struct{}

func (sharing) Suggest(req search.Request) ([]search.Config, error) {
	got, err := random.Sampler{}.Suggest(req)
	if len(req.History) > 0 && len(got) > 0 {
		got[0] = req.History[0].Config
	}
	return got, err
}

const brokenEnv = "ESPALIER_TEST_BROKEN_SAMPLER"

// TestSuiteNotices runs the suite on each broken sampler in a process of its own, where it must fail.
func TestSuiteNotices(t *testing.T) {
	if name := os.Getenv(brokenEnv); name != "" {
		Conformance(t, broken[name].fresh)
		return
	}
	for name, b := range broken {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(os.Args[0], "-test.run", "^TestSuiteNotices$")
			cmd.Env = append(os.Environ(), brokenEnv+"="+name)
			out, err := cmd.CombinedOutput()
			if failed := (*exec.ExitError)(nil); !errors.As(err, &failed) {
				t.Fatalf("the suite passed: %v", err)
			}
			if !slices.ContainsFunc(strings.Split(string(out), "\n"), func(line string) bool {
				return strings.Contains(line, "--- FAIL") && strings.Contains(line, b.notice)
			}) {
				t.Errorf("no failure of %q in:\n%s", b.notice, out)
			}
		})
	}
}

func TestRunIsRepeatableWithWorkers(t *testing.T) {
	p, err := problem.Get("zdt1")
	if err != nil {
		t.Fatal(err)
	}
	s := Search{Problem: p, Sampler: random.Sampler{}, Seed: 3, Trials: 50, Workers: 8}
	a, err := s.Run()
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Run()
	if err != nil || !reflect.DeepEqual(a, b) {
		t.Errorf("two runs differ: %v", err)
	}
	numbers := make([]int, len(a))
	for i := range a {
		numbers[i] = a[i].Number
	}
	if slices.IsSorted(numbers) {
		t.Error("eight workers ended in the order in which they started")
	}
	slices.Sort(numbers)
	if len(slices.Compact(numbers)) != 50 || numbers[49] != 49 {
		t.Errorf("numbers are %v", numbers)
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{{[]float64{3}, 3}, {[]float64{4, 1}, 2.5}, {[]float64{9, 1, 5}, 5}} {
		if got := Median(c.values); got != c.want {
			t.Errorf("median of %v is %v", c.values, got)
		}
	}
}
