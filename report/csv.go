package report

import (
	"encoding/csv"
	"io"
	"maps"
	"slices"
	"strconv"
)

// WriteCSV writes the baseline and the members, one row each, with the names
// that the JSON has. Each group's sparsity has a column of its own.
func WriteCSV(w io.Writer, f Front) error {
	groups := map[string]bool{}
	rows := f.Members
	if f.Baseline != nil {
		rows = append([]Member{*f.Baseline}, rows...)
	}
	for _, m := range rows {
		for g := range m.Sparsity {
			groups[g] = true
		}
	}
	names := slices.Sorted(maps.Keys(groups))
	head := []string{"trial", "strategy", "schedule", "accuracy", "test_accuracy", "size_bytes", "latency_p50_us",
		"latency_p95_us", "latency_spread", "params", "nonzeros", "macs", "format", "artifact", "weight_sparsity", "quantize"}
	for _, g := range names {
		head = append(head, "sparsity."+g)
	}
	c := csv.NewWriter(w)
	if err := c.Write(head); err != nil {
		return err
	}
	for _, m := range rows {
		row := []string{strconv.Itoa(m.Trial), m.Strategy, m.Schedule, float(m.Accuracy), float(m.TestAccuracy),
			integer(m.SizeBytes), float(m.LatencyP50), float(m.LatencyP95), float(m.Spread), integer(m.Params),
			integer(m.Nonzeros), integer(m.MACs), m.Format, m.Artifact, float(m.WeightSparsity), m.Quantize}
		for _, g := range names {
			row = append(row, float(m.Sparsity[g]))
		}
		if err := c.Write(row); err != nil {
			return err
		}
	}
	c.Flush()
	return c.Error()
}

func float(v float64) string { return strconv.FormatFloat(v, 'g', 8, 64) }
func integer(v int64) string { return strconv.FormatInt(v, 10) }
