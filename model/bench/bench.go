// Package bench measures latency.
//
// A measurement is taken in rounds on one locked operating system thread with
// the garbage collector off. A round is a list of samples; a sample is one run,
// or as many as it takes for the clock's resolution and cost not to matter.
// What disturbs a measurement on a shared machine only ever adds time, and for
// stretches of many milliseconds: so the round with the lowest median is the
// least disturbed, and all that is reported is of that round. How far the
// rounds' medians lie apart is reported as drift.
package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

// What can go wrong. Every error of this package wraps one of these, or is that
// of the context or the function that is measured.
var (
	// ErrOptions: an option is out of range.
	ErrOptions = errors.New("invalid measurement options")
)

// Options says how long to measure. Zero fields get the values of Defaults.
type Options struct {
	WarmUp  time.Duration // time spent running before the first round
	Rounds  int           // how often to start over
	Round   time.Duration // time of one round
	Samples int           // the fewest samples of a round, however long they take
	Max     time.Duration // time after which no new round starts, and a round needs no more samples
}

// Defaults are the values of fields that are zero: about a second in all.
func Defaults() Options {
	return Options{WarmUp: 100 * time.Millisecond, Rounds: 7, Round: 120 * time.Millisecond, Samples: 30, Max: 10 * time.Second}
}

func (o Options) withDefaults() (Options, error) {
	d := Defaults()
	for _, f := range []struct {
		name string
		v    *time.Duration
		d    time.Duration
	}{{"warm-up", &o.WarmUp, d.WarmUp}, {"round", &o.Round, d.Round}, {"max", &o.Max, d.Max}} {
		if *f.v < 0 {
			return o, fmt.Errorf("%w: %s %v: want 0 or more", ErrOptions, f.name, *f.v)
		}
		if *f.v == 0 {
			*f.v = f.d
		}
	}
	for _, f := range []struct {
		name string
		v    *int
		d    int
	}{{"rounds", &o.Rounds, d.Rounds}, {"samples", &o.Samples, d.Samples}} {
		if *f.v < 0 || *f.v > 1e6 {
			return o, fmt.Errorf("%w: %s %d: want 0 to 1000000", ErrOptions, f.name, *f.v)
		}
		if *f.v == 0 {
			*f.v = f.d
		}
	}
	return o, nil
}

// Latency is the time that one run takes, from the round with the lowest
// median.
type Latency struct {
	P50    time.Duration `json:"p50_ns"`
	P95    time.Duration `json:"p95_ns"`
	Mean   time.Duration `json:"mean_ns"`
	Min    time.Duration `json:"min_ns"`
	Spread float64       `json:"spread"` // (p90 - p10) / p50 of the round
	Drift  float64       `json:"drift"`  // (highest - lowest) / lowest median of the rounds

	Samples   int `json:"samples"`    // of the round
	PerSample int `json:"per_sample"` // runs in a sample; percentiles are of such means
	Runs      int `json:"runs"`       // in all, warm-up included
	Rounds    int `json:"rounds"`
}

// sampleTime is how long a sample should last: five hundred times what reading
// the clock costs.
const sampleTime = 25 * time.Microsecond

// one lets a single measurement run at a time: two would measure each other,
// and the garbage collector's setting is the process's.
var one sync.Mutex

// Measure runs run again and again. It gives up with the error of ctx, or the
// first that run returns. Measurements in one process wait for each other.
func Measure(ctx context.Context, run func() error, o Options) (Latency, error) {
	o, err := o.withDefaults()
	if err != nil {
		return Latency{}, err
	}
	one.Lock()
	defer one.Unlock()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	runtime.GC()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	m := &measurement{ctx: ctx, run: run, o: o, start: time.Now()}
	if err := m.warmUp(); err != nil {
		return Latency{}, err
	}
	var best []time.Duration
	var low, high time.Duration
	rounds := 0
	for rounds < o.Rounds && (rounds == 0 || time.Since(m.start) < o.Max) {
		samples, err := m.round()
		if err != nil {
			return Latency{}, err
		}
		mid := percentile(samples, 0.5)
		if rounds == 0 || mid < low {
			best, low = samples, mid
		}
		high = max(high, mid)
		rounds++
	}
	l := summary(best)
	l.Drift = ratio(high-low, low)
	l.PerSample, l.Runs, l.Rounds = m.batch, m.runs, rounds
	return l, nil
}

type measurement struct {
	ctx   context.Context
	run   func() error
	o     Options
	start time.Time
	batch int // runs of a sample
	runs  int
}

// warmUp runs for a while and chooses how many runs make a sample.
func (m *measurement) warmUp() error {
	m.batch = 1
	start := time.Now()
	fastest := time.Duration(math.MaxInt64)
	for n := 0; n < 3 || time.Since(start) < m.o.WarmUp; n++ {
		d, err := m.sample()
		if err != nil {
			return err
		}
		fastest = min(fastest, max(d, 1))
		if time.Since(m.start) > m.o.Max {
			break
		}
	}
	m.batch = max(1, int((sampleTime+fastest-1)/fastest))
	return nil
}

// sample runs a batch and gives the mean time of a run.
func (m *measurement) sample() (time.Duration, error) {
	if err := m.ctx.Err(); err != nil {
		return 0, err
	}
	m.runs += m.batch
	t := time.Now()
	for range m.batch {
		if err := m.run(); err != nil {
			return 0, err
		}
	}
	return time.Since(t) / time.Duration(m.batch), nil
}

// round gathers samples and sorts them.
func (m *measurement) round() ([]time.Duration, error) {
	var samples []time.Duration
	start := time.Now()
	for {
		d, err := m.sample()
		if err != nil {
			return nil, err
		}
		samples = append(samples, d)
		if len(samples) >= m.o.Samples && time.Since(start) >= m.o.Round || time.Since(m.start) > m.o.Max {
			slices.Sort(samples)
			return samples, nil
		}
	}
}

// summary describes sorted samples.
func summary(samples []time.Duration) Latency {
	var sum time.Duration
	for _, s := range samples {
		sum += s
	}
	l := Latency{
		P50: percentile(samples, 0.5), P95: percentile(samples, 0.95), Mean: sum / time.Duration(len(samples)),
		Min: samples[0], Samples: len(samples),
	}
	l.Spread = ratio(percentile(samples, 0.9)-percentile(samples, 0.1), l.P50)
	return l
}

// percentile of sorted samples, by the nearest rank.
func percentile(sorted []time.Duration, p float64) time.Duration {
	return sorted[max(0, int(math.Ceil(p*float64(len(sorted))))-1)]
}

func ratio(a, b time.Duration) float64 {
	if b <= 0 {
		return 0
	}
	return float64(a) / float64(b)
}
