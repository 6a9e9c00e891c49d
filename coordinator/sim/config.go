package sim

import (
	"errors"
	"fmt"
	"time"

	"github.com/espalier-ml/espalier/search"
	"github.com/espalier-ml/espalier/search/sampler"
)

// Errors of this package.
var (
	// ErrConfig marks a configuration that cannot work.
	ErrConfig = errors.New("invalid simulation")
	// ErrBroken says that an invariant does not hold: an error of the program, never of its input.
	ErrBroken = errors.New("invariant broken")
	// ErrStuck says that the search does not end.
	ErrStuck = errors.New("simulation does not end")
	// ErrProblem says that the problem cannot be asked: the simulation ends.
	ErrProblem = errors.New("problem failed")
	// ErrTrial says that the problem refused one configuration: its trial fails.
	ErrTrial = errors.New("trial failed")
)

// Problem is what is searched.
type Problem interface {
	Space() search.Space
	// Reference bounds the hypervolume; its length is the number of objectives.
	Reference() []float64
	// Evaluate returns the objectives of a valid configuration, lower is better. An ErrTrial fails
	// the trial, any other error the simulation.
	Evaluate(c search.Config) ([]float64, error)
}

// Faults are probabilities, all from 0 to below 1.
type Faults struct {
	// Kill is that a worker dies during a task. It comes back later, as a new session.
	Kill float64
	// Sleep is that a worker stops during a task for longer than its lease, and then goes on as if nothing was.
	Sleep float64
	// Fail is that a task ends with a failure instead of a result.
	Fail float64
	// Lose, Duplicate and Late are what happens to each message, a late one taking up to 20 s.
	Lose, Duplicate, Late float64
	// Unclear is that a commit answers "outcome unknown", half of them after committing all the same.
	Unclear float64
	// Depose is that the leader is replaced, once per ten simulated seconds.
	Depose float64
}

// BadDay has some faults of every kind at once.
var BadDay = Faults{Kill: 0.2, Sleep: 0.05, Fail: 0.05, Lose: 0.05, Duplicate: 0.05, Late: 0.02, Unclear: 0.01, Depose: 0.05}

// Config describes one simulation.
type Config struct {
	Problem Problem
	// Sampler is a name of package sampler; "" is auto.
	Sampler string
	// Trials is when the search ends.
	Trials int
	// Workers, with one slot each; 0 means 8.
	Workers int
	// Seed fixes everything.
	Seed uint64
	// Deterministic runs the job in deterministic mode with Window.
	Deterministic bool
	Window        int
	// Stall ends the search after so many trials without progress; 0 never.
	Stall int
	Faults
	// TrialTime is how long a trial takes on average, in simulated time; 0 means 10 s.
	TrialTime time.Duration
}

func (c Config) withDefaults() Config {
	if c.Workers == 0 {
		c.Workers = 8
	}
	if c.TrialTime == 0 {
		c.TrialTime = 10 * time.Second
	}
	return c
}

// Validate reports the first field that cannot work, as an ErrConfig.
func (c Config) Validate() error {
	switch {
	case c.Problem == nil:
		return fmt.Errorf("%w: problem must be set", ErrConfig)
	case c.Trials < 1 || c.Trials > 1_000_000:
		return fmt.Errorf("%w: trials is %d, it must be from 1 to 1,000,000", ErrConfig, c.Trials)
	case c.Workers < 0 || c.Workers > 10_000:
		return fmt.Errorf("%w: workers is %d, it must be from 1 to 10,000", ErrConfig, c.Workers)
	case c.Window < 0 || c.Stall < 0 || c.TrialTime < 0:
		return fmt.Errorf("%w: window %d, stall %d and trial time %v must not be negative", ErrConfig, c.Window, c.Stall, c.TrialTime)
	}
	if _, err := sampler.New(c.Sampler); err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	f := c.Faults
	for name, p := range map[string]float64{"kill": f.Kill, "sleep": f.Sleep, "fail": f.Fail, "lose": f.Lose,
		"duplicate": f.Duplicate, "late": f.Late, "unclear": f.Unclear, "depose": f.Depose} {
		if !(p >= 0 && p <= 0.9) {
			return fmt.Errorf("%w: %s is %v, it must be from 0 to 0.9", ErrConfig, name, p)
		}
	}
	return nil
}

// Result is what a simulation came to. Field names of its JSON form stay.
type Result struct {
	Sampler     string  `json:"sampler"`
	Seed        uint64  `json:"seed"`
	Workers     int     `json:"workers"`
	Trials      int     `json:"trials"`
	Completed   int     `json:"completed"`
	Failed      int     `json:"failed"`
	Reason      string  `json:"reason"`
	Hypervolume float64 `json:"hypervolume"`
	// Curve is the hypervolume after 10, 20, 50, 100, 200, 500, … results.
	Curve []CurvePoint `json:"curve"`
	// Front holds the non-dominated trials by number.
	Front []Point `json:"front"`
	// SimulatedSeconds is the simulated time, Utilisation the share of it in which workers worked.
	SimulatedSeconds float64 `json:"simulated_seconds"`
	Utilisation      float64 `json:"utilisation"`
	Counts           Counts  `json:"counts"`
	// Digest is of the final records: the same for the same configuration.
	Digest string `json:"digest"`

	// History holds the finished trials in the order of their results.
	History []search.Trial `json:"-"`
}

// CurvePoint is the hypervolume after so many results.
type CurvePoint struct {
	Trials      int     `json:"trials"`
	Hypervolume float64 `json:"hypervolume"`
}

// Point is one trial of the front.
type Point struct {
	Trial      int            `json:"trial"`
	Parameters map[string]any `json:"parameters"`
	Objectives []float64      `json:"objectives"`
}

// Counts is what happened on the way.
type Counts struct {
	Steps      int `json:"steps"`
	Messages   int `json:"messages"`
	Lost       int `json:"lost"`
	Duplicated int `json:"duplicated"`
	Late       int `json:"late"`
	Kills      int `json:"kills"`
	Sleeps     int `json:"sleeps"`
	Failures   int `json:"failures"`
	Unclear    int `json:"unclear_commits"`
	Leaders    int `json:"leaders"`
	Stale      int `json:"stale_reports"`
	Repeated   int `json:"repeated_reports"`
	Accepted   int `json:"accepted_reports"`
	LostLeases int `json:"lost_leases"`
	Checks     int `json:"brute_force_checks"`
}
