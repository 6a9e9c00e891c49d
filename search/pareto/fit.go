package pareto

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
)

// ErrNoFit says that no member satisfies a budget.
var ErrNoFit = errors.New("nothing satisfies the budget")

// Budget is what a device allows. A zero limit does not limit.
type Budget struct {
	// Latency bounds the 95th percentile.
	Latency   time.Duration `json:"latency,omitempty"`
	SizeBytes int64         `json:"size,omitempty"`
	// Accuracy is the least that is wanted, in [0, 1].
	Accuracy float64 `json:"accuracy,omitempty"`
}

// Member is a measured model, as far as budgets and objectives look at it.
type Member struct {
	// Number is the trial's.
	Number int
	// Accuracy on the validation split, in [0, 1].
	Accuracy  float64
	SizeBytes int64
	// LatencyP50 and LatencyP95 were measured on the device; zero means not measured, which satisfies no latency limit.
	LatencyP50, LatencyP95 time.Duration
}

// Allows reports whether the member satisfies every limit; limits are met with equality.
func (b Budget) Allows(m Member) bool {
	return b.allowsLatency(m) && b.allowsSize(m) && b.allowsAccuracy(m)
}

func (b Budget) allowsLatency(m Member) bool {
	return b.Latency == 0 || m.LatencyP95 > 0 && m.LatencyP95 <= b.Latency
}
func (b Budget) allowsSize(m Member) bool     { return b.SizeBytes == 0 || m.SizeBytes <= b.SizeBytes }
func (b Budget) allowsAccuracy(m Member) bool { return b.Accuracy == 0 || m.Accuracy >= b.Accuracy }

// Fit returns the member within the budget that is most accurate; ties go to fewer bytes, then to the lower trial
// number. The comparisons are exact. If there is none the error is an ErrNoFit that names, for each limit, the best
// member value.
func Fit(members []Member, b Budget) (Member, error) {
	best := -1
	for i, m := range members {
		if b.Allows(m) && !math.IsNaN(m.Accuracy) && (best < 0 || compareFit(m, members[best]) < 0) {
			best = i
		}
	}
	if best < 0 {
		return Member{}, fmt.Errorf("%w: %s", ErrNoFit, b.misses(members))
	}
	return members[best], nil
}

func compareFit(a, b Member) int {
	return cmp.Or(
		cmp.Compare(b.Accuracy, a.Accuracy),
		cmp.Compare(a.SizeBytes, b.SizeBytes),
		cmp.Compare(a.Number, b.Number),
	)
}

// misses describes each limit by how many members meet it and the best value there is.
func (b Budget) misses(members []Member) string {
	if len(members) == 0 {
		return "the front is empty"
	}
	var parts []string
	say := func(limit string, ok func(Member) bool, value func(Member) string, better func(a, b Member) bool) {
		met, best := 0, members[0]
		for _, m := range members {
			if ok(m) {
				met++
			}
			if better(m, best) {
				best = m
			}
		}
		parts = append(parts, fmt.Sprintf("%s is met by %d of %d (best %s)", limit, met, len(members), value(best)))
	}
	if b.Latency > 0 {
		say(fmt.Sprintf("latency p95 up to %v", b.Latency), b.allowsLatency, func(m Member) string {
			if m.LatencyP95 == 0 {
				return "not measured"
			}
			return m.LatencyP95.String()
		}, func(m, n Member) bool {
			return m.LatencyP95 > 0 && (n.LatencyP95 == 0 || m.LatencyP95 < n.LatencyP95)
		})
	}
	if b.SizeBytes > 0 {
		say(fmt.Sprintf("size up to %d bytes", b.SizeBytes), b.allowsSize,
			func(m Member) string { return fmt.Sprintf("%d bytes", m.SizeBytes) },
			func(m, n Member) bool { return m.SizeBytes < n.SizeBytes })
	}
	if b.Accuracy > 0 {
		say(fmt.Sprintf("accuracy from %v", b.Accuracy), b.allowsAccuracy,
			func(m Member) string { return fmt.Sprint(m.Accuracy) },
			func(m, n Member) bool { return m.Accuracy > n.Accuracy })
	}
	return strings.Join(parts, ", ")
}
