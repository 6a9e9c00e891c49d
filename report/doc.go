// Package report shows a front to people and programs: JSON and CSV with stable
// names, a plot as SVG or PNG, a page that opens without a network, and a table
// and plot for the terminal.
//
// It is a room of its own because the results folder of an embedded run and the
// commands that ask a cluster write the same things.
package report

import (
	"fmt"
	"time"

	"github.com/espalier-ml/espalier/job"
	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// Front is a front as JSON. The names stay.
type Front struct {
	Job         string   `json:"job"`
	Name        string   `json:"name"`
	Device      string   `json:"device"`
	Hypervolume float64  `json:"hypervolume"`
	Baseline    *Member  `json:"baseline"`
	Members     []Member `json:"members"`
	Measured    []Member `json:"-"` // for plots: every measured trial
}

// Member is one trial on a front, as JSON. Trial 0 is the dense model.
type Member struct {
	Trial          int                `json:"trial"`
	Strategy       string             `json:"strategy"`
	Schedule       string             `json:"schedule,omitempty"`
	Quantize       string             `json:"quantize,omitempty"` // int8, or none
	Sparsity       map[string]float64 `json:"sparsity"`           // reached, by group
	WeightSparsity float64            `json:"weight_sparsity"`    // of hybrid: asked for besides
	Accuracy       float64            `json:"accuracy"`           // on the validation split
	TestAccuracy   float64            `json:"test_accuracy"`
	SizeBytes      int64              `json:"size_bytes"`
	LatencyP50     float64            `json:"latency_p50_us"`
	LatencyP95     float64            `json:"latency_p95_us"`
	Spread         float64            `json:"latency_spread"` // (p90 - p10) / p50
	Params         int64              `json:"params"`
	Nonzeros       int64              `json:"nonzeros"`
	MACs           int64              `json:"macs"`
	Format         string             `json:"format"`
	Artifact       string             `json:"artifact"`        // SHA-256 of the file
	Model          string             `json:"model,omitempty"` // its path in a results folder
	Note           string             `json:"note,omitempty"`  // what happened to its files: lost, made again
}

// FromProto translates a front.
func FromProto(f *espalierv1.Front) Front {
	out := Front{
		Job: f.Job, Name: f.Name, Device: f.Device, Hypervolume: f.Hypervolume,
		Members: make([]Member, 0, len(f.Members)),
	}
	if f.Baseline != nil {
		b := MemberFromProto(f.Baseline)
		out.Baseline = &b
	}
	for _, m := range f.Members {
		out.Members = append(out.Members, MemberFromProto(m))
	}
	for _, m := range f.Measured {
		out.Measured = append(out.Measured, MemberFromProto(m))
	}
	return out
}

// MemberFromProto translates one member.
func MemberFromProto(m *espalierv1.FrontMember) Member {
	out := Member{
		Trial: int(m.Trial), Strategy: m.Strategy, Sparsity: m.Sparsity,
		Accuracy: m.Accuracy, TestAccuracy: m.TestAccuracy, SizeBytes: m.SizeBytes,
		LatencyP50: micros(m.LatencyP50Ns), LatencyP95: micros(m.LatencyP95Ns), Spread: m.Spread,
		Params: m.Params, Nonzeros: m.Nonzeros, MACs: m.Macs, Format: m.Format, Artifact: m.Artifact, Note: m.Note,
	}
	if m.Config != nil {
		out.Schedule, out.WeightSparsity, out.Quantize = m.Config.Schedule, m.Config.WeightSparsity, m.Config.Quantize
	}
	if out.Sparsity == nil {
		out.Sparsity = map[string]float64{}
	}
	if m.Trial == 0 {
		out.Strategy = "dense"
	}
	return out
}

// How is the strategy, and that the file is int8 where it is, for people.
func (m Member) How() string {
	if m.Quantize == job.QuantizeInt8 {
		return m.Strategy + ", int8"
	}
	return m.Strategy
}

func micros(ns int64) float64 { return float64(ns) / float64(time.Microsecond) }

// Latency writes microseconds for people.
func Latency(us float64) string {
	switch {
	case us >= 1e6:
		return fmt.Sprintf("%.3g s", us/1e6)
	case us >= 1e3:
		return fmt.Sprintf("%.3g ms", us/1e3)
	}
	return fmt.Sprintf("%.3g µs", us)
}

// Percent writes a fraction as a percentage with two decimals.
func Percent(v float64) string { return fmt.Sprintf("%.2f %%", 100*v) }
