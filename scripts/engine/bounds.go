package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// bound is what a row is held to. Faster bounds say how many times as fast as the other
// at least; the rest how much of the other's time, or how many megabytes, at most.
type bound struct {
	what    string // of the row
	network string
	threads int
	kernel  string // variant
	against string // what the other's name begins with; any if empty
	faster  bool
	least   float64 // what must hold
	aim     float64 // what it should come to
}

const (
	stepRow   = "training step, batch 64"
	pairRow   = "two trials at once, per step of either"
	taxRow    = "step by Gorgonia, without the optimizer"
	denseRow  = "latency, batch 1"
	sparseRow = "latency, 90 % single weights pruned"
	blockRow  = "latency, 90 % 4×1 blocks pruned"
	int8Row   = "latency, int8"
)

// bounds are ratios on one machine, not times: they hold wherever both sides have the
// same instructions.
var bounds = []bound{
	{stepRow, "seed-cnn", 1, "avx512", "torch", true, 1.8, 2.5},
	{stepRow, "mlp-784-128-10", 1, "avx512", "torch", true, 2, 3},
	{stepRow, "seed-cnn", 1, "avx2", "torch", true, 1.6, 2},
	{stepRow, "mlp-784-128-10", 1, "avx2", "torch", true, 1.8, 2},
	{stepRow, "ds-cnn", 1, "avx512", "torch", true, 1.5, 2.5},
	{stepRow, "resnet-8", 1, "avx512", "torch", true, 1.5, 2.5},
	{stepRow, "seed-cnn", 2, "avx512", "torch", true, 2.6, 3.5},
	{pairRow, "seed-cnn", 1, "avx512", "2 processes of torch", true, 1.8, 2.5},
	{taxRow, "seed-cnn", 1, "", "plain loop", false, 1.10, 1.03},
	{taxRow, "seed-cnn", 2, "", "plain loop", false, 1.15, 1.03},
	{denseRow, "seed-cnn", 1, "avx512", ortFloat, false, 0.9, 0.75},
	{denseRow, "resnet-8", 1, "avx512", ortFloat, false, 0.9, 0.75},
	{denseRow, "ds-cnn", 1, "avx512", ortFloat, false, 0.9, 0.75},
	{denseRow, "seed-cnn", 1, "avx2", ortFloat, false, 1.05, 0.9},
	{denseRow, "resnet-8", 1, "avx2", ortFloat, false, 1.05, 0.9},
	{denseRow, "ds-cnn", 1, "avx2", ortFloat, false, 1.05, 0.9},
	{sparseRow, "seed-cnn", 1, "avx512", ortFloat, false, 0.5, 0.35},
	{blockRow, "seed-cnn", 1, "avx512", ortFloat, false, 0.4, 0.3},
	{int8Row, "seed-cnn", 1, "avx512", ownFloat, false, 0.7, 0.4},
	{int8Row, "seed-cnn", 1, "avx512", ortBytes, false, 1, 0.4},
}

// memoryBounds are megabytes beyond what is given.
var memoryBounds = []struct {
	what, network string
	least         float64
}{{memoryTraining, "seed-cnn", 150}, {memoryInference, "", 20}}

// verdict is a bound with what was measured, as JSON.
type verdict struct {
	What     string  `json:"what"`
	Network  string  `json:"network"`
	Threads  int     `json:"threads,omitempty"`
	Kernel   string  `json:"kernel,omitempty"`
	Against  string  `json:"against,omitempty"`
	Unit     string  `json:"unit"` // what Measured counts
	Measured float64 `json:"measured"`
	Bound    float64 `json:"bound"`
	Aim      float64 `json:"aim,omitempty"`
	Faster   bool    `json:"at_least"` // Measured should be at least Bound, not at most
	Met      bool    `json:"met"`
	AimMet   bool    `json:"aim_met"`
}

// judge compares what was measured with the bounds; what was not is left out.
func (r *result) judge() {
	for _, b := range bounds {
		i := slices.IndexFunc(r.Rows, b.fits)
		if i < 0 {
			continue
		}
		row := r.Rows[i]
		v := verdict{What: row.What, Network: row.Network, Threads: row.Threads, Kernel: row.Kernel, Against: row.Against,
			Unit: "of their time", Measured: 1 / row.Ratio, Bound: b.least, Aim: b.aim, Faster: b.faster}
		if b.faster {
			v.Unit, v.Measured = "times as fast", row.Ratio
		}
		v.decide()
		r.Bounds = append(r.Bounds, v)
	}
	for _, b := range memoryBounds {
		for _, m := range r.Memory {
			if m.What == b.what && (b.network == "" || b.network == m.Network) {
				v := verdict{What: m.What, Network: m.Network, Against: "beyond the " + m.GivenName, Unit: "MB resident", Measured: m.beyond(), Bound: b.least}
				v.decide()
				r.Bounds = append(r.Bounds, v)
			}
		}
	}
}

func (b bound) fits(r row) bool {
	return r.What == b.what && r.Network == b.network && r.Threads == b.threads && (b.kernel == "" || r.Kernel == b.kernel) &&
		r.Ratio > 0 && strings.HasPrefix(r.Against, b.against)
}

// decide compares as the table shows: to two decimals.
func (v *verdict) decide() {
	m := math.Round(100*v.Measured) / 100
	holds := func(limit float64) bool { return v.Faster && m >= limit || !v.Faster && m <= limit }
	v.Met, v.AimMet = holds(v.Bound), v.Aim > 0 && holds(v.Aim)
}

// printBounds writes the table of bounds.
func (r *result) printBounds(w io.Writer) {
	fmt.Fprintln(w, "\nbound\tnetwork\tthreads\tkernel\tagainst\tmeasured\tbound\taim\tverdict")
	for _, v := range r.Bounds {
		sign, aim, threads, end := "≤", "–", "–", "short"
		if v.Faster {
			sign = "≥"
		}
		if v.Aim > 0 {
			aim = fmt.Sprintf("%s %.2f", sign, v.Aim)
		}
		if v.Threads > 0 {
			threads = fmt.Sprint(v.Threads)
		}
		switch {
		case v.AimMet:
			end = "met, and the aim"
		case v.Met:
			end = "met"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%.2f %s\t%s %.2f\t%s\t%s\n", v.What, v.Network, threads, v.Kernel, v.Against, v.Measured, v.Unit, sign, v.Bound, aim, end)
	}
}
