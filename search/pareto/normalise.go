package pareto

import (
	"math"
	"time"
)

// Baseline holds the dense model's numbers on one device, which fix the scale of a job's normalised objectives.
type Baseline struct {
	// Error on the validation split, in [0, 1].
	Error     float64
	SizeBytes int64
	// LatencyP50 on the device; zero means not measured: then there are two objectives.
	LatencyP50 time.Duration
}

// slack is how far beyond the baseline's an error still counts.
const slack = 0.10

// NormalisedError returns error / (baseline error + 0.10), cut to [0, 1]; NaN gives 1.
func (b Baseline) NormalisedError(err float64) float64 { return cut(err / (b.Error + slack)) }

// NormalisedSize returns ln(1000 · bytes/dense) / ln 1000, cut to [0, 1]: the dense size gives 1, a thousandth gives 0.
func (b Baseline) NormalisedSize(bytes int64) float64 {
	return logScale(float64(bytes), float64(b.SizeBytes), 1000)
}

// NormalisedLatency returns ln(100 · p50/dense) / ln 100, cut to [0, 1]: the dense latency gives 1, a hundredth gives 0. A
// latency that was not measured, on either side, gives 1.
func (b Baseline) NormalisedLatency(p50 time.Duration) float64 {
	return logScale(float64(p50), float64(b.LatencyP50), 100)
}

// logScale returns ln(span · v/dense) / ln span, cut to [0, 1], and 1 unless both are positive.
func logScale(v, dense, span float64) float64 {
	if v <= 0 || dense <= 0 {
		return 1
	}
	return cut(math.Log(span*v/dense) / math.Log(span))
}

// cut limits to [0, 1]; NaN, which nobody can rely on, is the worst.
func cut(v float64) float64 {
	if math.IsNaN(v) {
		return 1
	}
	return min(max(v, 0), 1)
}

// Normalise returns the member's objectives on the baseline's scale: error, size and, if the baseline's latency was
// measured, latency.
func (b Baseline) Normalise(m Member) []float64 {
	out := []float64{b.NormalisedError(1 - m.Accuracy), b.NormalisedSize(m.SizeBytes)}
	if b.LatencyP50 > 0 {
		out = append(out, b.NormalisedLatency(m.LatencyP50))
	}
	return out
}

// Reference returns the corner (1, …, 1) that goes with Normalise.
func (b Baseline) Reference() []float64 {
	if b.LatencyP50 > 0 {
		return []float64{1, 1, 1}
	}
	return []float64{1, 1}
}

// Hypervolume returns the share of the normalised box that the members dominate, in [0, 1].
func (b Baseline) Hypervolume(members []Member) float64 {
	points := make([][]float64, len(members))
	for i, m := range members {
		points[i] = b.Normalise(m)
	}
	return Hypervolume(points, b.Reference())
}
