package leader

import (
	"time"

	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/search/pareto"
)

// overhead is the share of the dense model's latency that a prediction does not scale with the MACs.
const overhead = 0.2

// scale turns records into the sampler's objectives, on the normalised scale that the baseline fixes.
type scale struct {
	base *v1.Baseline
	// devices in the job's order, each with its file format.
	devices []device
	// tabled takes every latency from the prediction, so that nothing depends on when a measurement arrives.
	tabled bool
}

type device struct{ name, format string }

// objectives returns error, bytes and latency of a trial with a result, each in [0, 1], lower is better; bytes and
// latency are means over the devices. predicted says that at least one latency was not measured.
func (s *scale) objectives(t *v1.Trial) (out []float64, predicted bool) {
	var size, latency float64
	for _, d := range s.devices {
		dense := s.base.GetMeasurements()[d.name]
		m := t.GetMeasurements()[d.name]
		b := pareto.Baseline{
			Error:      1 - s.base.GetAccuracy(),
			SizeBytes:  denseSize(s.base, dense, d.format),
			LatencyP50: time.Duration(dense.GetP50Ns()),
		}
		bytes := fileSize(t.GetResult().GetArtifacts(), d.format)
		size += b.NormalisedSize(bytes)
		if m.GetP50Ns() > 0 && b.LatencyP50 > 0 && !s.tabled {
			latency += b.NormalisedLatency(time.Duration(m.GetP50Ns()))
			continue
		}
		predicted = true
		latency += s.predict(t.GetResult().GetMacs())
	}
	n := float64(max(len(s.devices), 1))
	b := pareto.Baseline{Error: 1 - s.base.GetAccuracy()}
	return []float64{b.NormalisedError(1 - t.GetResult().GetAccuracy()), size / n, latency / n}, predicted
}

// errorBound is how far above the baseline's an error is still of use: beyond it the normalised error is 1.
const errorBound = 0.10

// violation is how far the trial's error lies beyond the bound.
func (s *scale) violation(t *v1.Trial) float64 {
	return max(s.base.GetAccuracy()-t.GetResult().GetAccuracy()-errorBound, 0)
}

// predict returns the latency term of a model with so many MACs: a fixed share of the dense latency and the rest in
// proportion to the MACs.
func (s *scale) predict(macs int64) float64 {
	ratio := 1.0
	if dense := s.base.GetMacs(); dense > 0 && macs > 0 {
		ratio = min(float64(macs)/float64(dense), 1)
	}
	const unit = time.Hour // any unit: only the ratio counts
	b := pareto.Baseline{LatencyP50: unit}
	return b.NormalisedLatency(time.Duration(float64(unit) * (overhead + (1-overhead)*ratio)))
}

func denseSize(base *v1.Baseline, dense *v1.Measurement, format string) int64 {
	if n := dense.GetSizeBytes(); n > 0 {
		return n
	}
	return fileSize(base.GetArtifacts(), format)
}

// fileSize returns the size of the artifact in the given format, of the first one if none has it.
func fileSize(files []*v1.FileRef, format string) int64 {
	for _, f := range files {
		if f.GetFormat() == format {
			return f.GetSizeBytes()
		}
	}
	if len(files) > 0 {
		return files[0].GetSizeBytes()
	}
	return 0
}
