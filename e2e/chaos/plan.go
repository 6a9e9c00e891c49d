//go:build linux

package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"
)

// Kind is one way to break something.
type Kind string

// Kinds of faults.
const (
	KillServer     Kind = "kill server"
	KillWorker     Kind = "kill worker"
	KillAll        Kind = "kill all servers"
	RestartServer  Kind = "restart server"
	RestartWorker  Kind = "restart worker"
	PauseServer    Kind = "pause server"
	PauseWorker    Kind = "pause worker"
	CutServer      Kind = "partition a server"
	CutHalf        Kind = "partition server and workers"
	CutOneWay      Kind = "partition one way"
	SlowServer     Kind = "slow link of a server"
	SlowWorker     Kind = "slow link of a worker"
	FullServer     Kind = "full disk of a server"
	FullWorker     Kind = "full disk of a worker"
	Duplicate      Kind = "duplicated and delayed messages"
	ClockJump      Kind = "clock jump"
	TransferLead   Kind = "transfer of the lead"
	leaderVictim        = "leader"
	followerVictim      = "follower"
)

// weights say how often each kind comes.
var weights = []struct {
	kind Kind
	n    int
}{
	{KillServer, 5}, {KillWorker, 4}, {KillAll, 1}, {RestartServer, 2}, {RestartWorker, 2}, {PauseServer, 3}, {PauseWorker, 3},
	{CutServer, 3}, {CutHalf, 2}, {CutOneWay, 3}, {SlowServer, 2}, {SlowWorker, 1}, {FullServer, 2}, {FullWorker, 1},
	{Duplicate, 3}, {ClockJump, 3}, {TransferLead, 2},
}

// Fault breaks one thing for a while.
type Fault struct {
	// At is from the beginning of its period.
	At, For time.Duration
	Kind    Kind
	// Victim is a process, or "leader" or "follower": whoever that is then.
	Victim string
	// With further processes: on the victim's side of a partition, or those that it does not hear.
	With []string
	// Amount is kilobits per second of a slow link, or how far a clock jumps in milliseconds.
	Amount int64
}

// String is one line for people.
func (f Fault) String() string {
	s := fmt.Sprintf("%5.1fs %s", f.At.Seconds(), f.Kind)
	if f.Victim != "" {
		s += " " + f.Victim
	}
	if len(f.With) > 0 {
		s += fmt.Sprintf(" with %v", f.With)
	}
	switch {
	case f.Kind == ClockJump:
		s += fmt.Sprintf(" by %v", time.Duration(f.Amount)*time.Millisecond)
	case f.Amount > 0:
		s += fmt.Sprintf(" to %d kbit/s", f.Amount)
	}
	if f.For > 0 {
		s += fmt.Sprintf(" for %.1fs", f.For.Seconds())
	}
	return s
}

// Period is a time of faults; then everything is mended, and work must go on.
type Period struct {
	Faults []Fault
	Length time.Duration
	Heal   time.Duration
}

// plan is the plan of a run.
func (o options) plan() []Period {
	return newPlan(o.Seed, time.Duration(o.Minutes*float64(time.Minute)), serverNames(), workerNames())
}

// printPlan writes a line for each period and each fault.
func printPlan(w io.Writer, plan []Period) {
	for i, p := range plan {
		fmt.Fprintf(w, "period %d: %v of faults, %v to heal\n", i+1, p.Length, p.Heal)
		for _, f := range p.Faults {
			fmt.Fprintln(w, " ", f)
		}
	}
}

// newPlan makes the plan of a seed: always the same for the same names and length.
func newPlan(seed uint64, length time.Duration, servers, workers []string) []Period {
	r := rand.New(rand.NewPCG(seed, 0xc4a05))
	var plan []Period
	for left := length; left > 0; {
		p := Period{Length: between(r, 14*time.Second, 26*time.Second), Heal: between(r, 8*time.Second, 14*time.Second)}
		for range 2 + r.IntN(4) {
			p.Faults = append(p.Faults, newFault(r, p.Length, servers, workers))
		}
		slices.SortStableFunc(p.Faults, func(a, b Fault) int { return int(a.At - b.At) })
		plan = append(plan, p)
		left -= p.Length + p.Heal
	}
	return plan
}

func between(r *rand.Rand, least, most time.Duration) time.Duration {
	return (least + time.Duration(r.Int64N(int64(most-least)+1))).Truncate(100 * time.Millisecond)
}

func newFault(r *rand.Rand, length time.Duration, servers, workers []string) Fault {
	f := Fault{Kind: pickKind(r), At: between(r, 0, length*2/3), For: between(r, time.Second, 10*time.Second)}
	server := func() string {
		return pick(r, append([]string{leaderVictim, leaderVictim, followerVictim}, servers...))
	}
	switch f.Kind {
	case KillServer, RestartServer, PauseServer, CutServer, FullServer:
		f.Victim = server()
	case KillWorker, RestartWorker, PauseWorker, FullWorker:
		f.Victim = pick(r, workers)
	case CutHalf:
		f.Victim, f.With = server(), some(r, workers)
	case CutOneWay:
		f.Victim, f.With = server(), some(r, servers)
	case SlowServer:
		f.Victim, f.Amount = server(), 100+r.Int64N(900)
	case SlowWorker:
		f.Victim, f.Amount = pick(r, workers), 50+r.Int64N(450)
	case ClockJump:
		f.Victim, f.Amount = server(), pick(r, []int64{-3_600_000, -30_000, -2_000, 2_000, 30_000, 3_600_000})
	case TransferLead:
		f.For = 0
	}
	return f
}

func pickKind(r *rand.Rand) Kind {
	all := 0
	for _, w := range weights {
		all += w.n
	}
	n := r.IntN(all)
	for _, w := range weights {
		if n -= w.n; n < 0 {
			return w.kind
		}
	}
	panic("unreachable: the weights add up")
}

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

// some takes at least one.
func some(r *rand.Rand, from []string) []string {
	out := slices.Clone(from)
	r.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	out = out[:1+r.IntN(len(out))]
	slices.Sort(out)
	return out
}
