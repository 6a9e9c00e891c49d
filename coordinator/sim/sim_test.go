package sim

import (
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/espalier-ml/espalier/search"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var seeds = flag.Int("seeds", 6, "how many seeds TestFaults takes")

func open(t *testing.T, name string) Problem {
	t.Helper()
	p, done, err := OpenProblem(context.WithoutCancel(t.Context()), name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := done(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func run(t *testing.T, cfg Config) *Result {
	t.Helper()
	out, err := Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestCalm: without faults nothing is lost, stale or done twice, and all workers are busy.
func TestCalm(t *testing.T) {
	r := run(t, Config{Problem: open(t, "zdt1"), Sampler: "random", Trials: 200, Workers: 10, Seed: 1})
	c := r.Counts
	if r.Completed != 200 || r.Failed != 0 || c.Stale+c.Repeated+c.LostLeases+c.Lost != 0 || c.Leaders != 1 {
		t.Errorf("%d completed, %d failed, %+v", r.Completed, r.Failed, c)
	}
	if r.Utilisation < 0.8 || r.Hypervolume <= 0 || len(r.Front) == 0 || c.Checks < 200 {
		t.Errorf("utilisation %v, hypervolume %v, front of %d, %d checks", r.Utilisation, r.Hypervolume, len(r.Front), c.Checks)
	}
}

// TestFaults: on a bad day every search still ends, and the invariants hold after every step.
func TestFaults(t *testing.T) {
	problems := []string{"zdt1", "dtlz2", "levels"}
	samplers := []string{"random", "nsga2"}
	var sum Counts
	for seed := range uint64(*seeds) {
		r := run(t, Config{Problem: open(t, problems[seed%3]), Sampler: samplers[seed%2], Trials: 150, Workers: 4 + int(seed)*3, Seed: seed, Faults: BadDay})
		if r.Completed+r.Failed != 150 {
			t.Errorf("seed %d: %d completed, %d failed", seed, r.Completed, r.Failed)
		}
		sum.Kills += r.Counts.Kills
		sum.Stale += r.Counts.Stale
		sum.Repeated += r.Counts.Repeated
		sum.LostLeases += r.Counts.LostLeases
		sum.Leaders += r.Counts.Leaders
		sum.Unclear += r.Counts.Unclear
		sum.Steps += r.Counts.Steps
	}
	t.Logf("%+v", sum)
	if sum.Kills == 0 || sum.Stale == 0 || sum.Repeated == 0 || sum.LostLeases == 0 || sum.Leaders <= *seeds || sum.Unclear == 0 {
		t.Errorf("not every kind of fault came about: %+v", sum)
	}
}

// TestSameSeed: the same configuration takes the same course, to the last record.
func TestSameSeed(t *testing.T) {
	cfg := Config{Problem: open(t, "zdt2"), Sampler: "nsga2", Trials: 60, Workers: 5, Seed: 9, Faults: BadDay}
	a, b := run(t, cfg), run(t, cfg)
	if a.Digest != b.Digest || a.Counts != b.Counts {
		t.Errorf("two runs differ: %s %+v, %s %+v", a.Digest, a.Counts, b.Digest, b.Counts)
	}
	cfg.Seed = 10
	if c := run(t, cfg); c.Digest == a.Digest {
		t.Error("another seed takes the same course")
	}
}

// TestDeterministic: the trials of a deterministic job do not depend on how many workers there are, how fast, and what
// befalls them.
func TestDeterministic(t *testing.T) {
	for _, stall := range []int{0, 6} {
		var first []search.Config
		for i, cfg := range []Config{
			{Workers: 1, Seed: 4}, {Workers: 3, Seed: 4}, {Workers: 12, Seed: 4},
			{Workers: 5, Seed: 4, Faults: Faults{Kill: 0.2, Sleep: 0.1, Lose: 0.05, Duplicate: 0.1, Late: 0.05, Unclear: 0.02, Depose: 0.1}},
		} {
			cfg.Problem, cfg.Sampler, cfg.Trials, cfg.Deterministic, cfg.Stall = open(t, "levels"), "nsga2", 120, true, stall
			r := run(t, cfg)
			configs := make([]search.Config, len(r.History))
			for _, h := range r.History {
				configs[h.Number] = h.Config
			}
			if i == 0 {
				first = configs
				if stall > 0 && len(first) == 120 {
					t.Errorf("stall %d: the search did not stop early", stall)
				}
			}
			if len(configs) != len(first) {
				t.Fatalf("stall %d, case %d: %d trials, with one worker %d", stall, i, len(configs), len(first))
			}
			for n := range configs {
				if !configs[n].Equal(first[n]) {
					t.Fatalf("stall %d, case %d: trial %d is %v, with one worker %v", stall, i, n+1, configs[n], first[n])
				}
			}
		}
	}
}

// TestNoticesBrokenRules: the checks fail when the records are tampered with.
func TestNoticesBrokenRules(t *testing.T) {
	s := &sim{ledger: newLedger()}
	s.finish(3, 1)
	if s.finish(3, 2); !errors.Is(s.err, ErrBroken) {
		t.Errorf("a trial that ends twice: %v", s.err)
	}
	got := bruteForce([]point{{1, 0.5, 10, 10}, {2, 0.5, 10, 10}, {3, 0.4, 20, 10}, {4, 0.6, 10, 10}, {5, 0.6, 10, 9}})
	if len(got) != 4 || got[0] != 1 || got[1] != 2 || got[2] != 3 || got[3] != 5 {
		t.Errorf("brute force gives %v, want 1, 2, 3, 5", got)
	}
}

// TestManyTrials: a thousand trials, with an exhausted space in another run.
func TestManyTrials(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: long: a thousand trials")
	}
	r := run(t, Config{Problem: open(t, "zdt1"), Sampler: "random", Trials: 1000, Workers: 50, Seed: 2, Faults: Faults{Kill: 0.2, Lose: 0.02, Depose: 0.05}})
	if r.Completed+r.Failed != 1000 {
		t.Errorf("%d completed, %d failed", r.Completed, r.Failed)
	}
	t.Logf("utilisation %.3f, %d steps", r.Utilisation, r.Counts.Steps)
}

func TestConfig(t *testing.T) {
	p := open(t, "zdt1")
	for _, cfg := range []Config{{}, {Problem: p}, {Problem: p, Trials: 1, Workers: -1}, {Problem: p, Trials: 1, Faults: Faults{Kill: 1}},
		{Problem: p, Trials: 1, Sampler: "magic"}, {Problem: p, Trials: 1, Stall: -1}} {
		if _, err := Run(t.Context(), cfg); !errors.Is(err, ErrConfig) {
			t.Errorf("%+v: %v, want ErrConfig", cfg, err)
		}
	}
	if _, _, err := OpenProblem(t.Context(), "nothing"); err == nil {
		t.Error("an unknown problem opens")
	}
}

const program = `#!/bin/sh
echo '{"params":[{"name":"kind","kind":"choice","choices":["a","b"]},{"name":"x","kind":"float","min":0,"max":1},{"name":"n","kind":"int","min":1,"max":9,"when":{"param":"kind","values":["b"]}}],"reference":[2,2]}'
while read -r line; do
  case "$line" in
    *'"kind":"b"'*) echo '{"objectives":[0.5,1.5]}' ;;
    *) echo '{"error":"no a today"}' ;;
  esac
done
`

func TestExec(t *testing.T) {
	path := filepath.Join(t.TempDir(), "problem.sh")
	if err := os.WriteFile(path, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	r := run(t, Config{Problem: open(t, "exec:sh "+path), Sampler: "random", Trials: 30, Seed: 1})
	if r.Completed == 0 || r.Failed == 0 || r.Completed+r.Failed != 30 || r.Hypervolume != 0.75 {
		t.Errorf("%d completed, %d failed, hypervolume %v", r.Completed, r.Failed, r.Hypervolume)
	}
	for _, command := range []string{"exec:true", "exec:echo '{'", `exec:echo '{"params":[],"reference":[1]}'`, `exec:echo '{"params":[{"name":"x","kind":"float"}]}'`} {
		if _, _, err := OpenProblem(t.Context(), command); !errors.Is(err, ErrProblem) {
			t.Errorf("%s: %v, want ErrProblem", command, err)
		}
	}
	dies, done, err := OpenProblem(t.Context(), `exec:echo '{"params":[{"name":"x","kind":"float","max":1}],"reference":[1,1]}'`)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Run(t.Context(), Config{Problem: dies, Trials: 5}); !errors.Is(err, ErrProblem) {
		t.Errorf("a program that has ended: %v, want ErrProblem", err)
	}
	_ = done() // it may have died of the closed pipe

}
