package report

import (
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"

	"github.com/espalier-ml/espalier/job"
)

// WriteTable writes the front for people: the dense model first, then the
// members from the most accurate to the smallest, with ratios to the dense one.
func WriteTable(w io.Writer, f Front) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "trial\tstrategy\taccuracy\ttest\tsize\t\tp50\tp95\t\tparameters\t")
	row := func(m Member, name string) {
		smaller, faster := "", ""
		if b := f.Baseline; b != nil && m.Trial != 0 {
			smaller = ratio(float64(b.SizeBytes), float64(m.SizeBytes)) + " smaller"
			faster = ratio(b.LatencyP50, m.LatencyP50) + " faster"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t\n", name, m.How(), Percent(m.Accuracy), Percent(m.TestAccuracy),
			job.FormatSize(m.SizeBytes), smaller, Latency(m.LatencyP50), Latency(m.LatencyP95), faster, m.Nonzeros)
	}
	if f.Baseline != nil {
		row(*f.Baseline, "dense")
	}
	for _, m := range f.Members {
		row(m, fmt.Sprint(m.Trial))
	}
	return t.Flush()
}

func ratio(dense, pruned float64) string {
	if pruned <= 0 {
		return "–"
	}
	return fmt.Sprintf("%.1f×", dense/pruned)
}

// WritePlot draws accuracy against latency with characters: ● a member of the
// front, · another measured trial, D the dense model. Latency is logarithmic.
func WritePlot(w io.Writer, f Front, width, height int) error {
	points := append([]Member{}, f.Measured...)
	points = append(points, f.Members...)
	if f.Baseline != nil {
		points = append(points, *f.Baseline)
	}
	if len(points) == 0 {
		_, err := fmt.Fprintln(w, "nothing measured yet")
		return err
	}
	width, height = max(width, 30), max(height, 6)
	const margin = 10
	b := boundsOf(points)
	cells := make([][]rune, height)
	for i := range cells {
		cells[i] = []rune(strings.Repeat(" ", width-margin))
	}
	put := func(m Member, mark rune) {
		x, y := b.place(m)
		cells[height-1-int(math.Round(y*float64(height-1)))][int(math.Round(x*float64(width-margin-1)))] = mark
	}
	for _, m := range f.Measured {
		put(m, '·')
	}
	for _, m := range f.Members {
		put(m, '●')
	}
	if f.Baseline != nil {
		put(*f.Baseline, 'D')
	}
	var s strings.Builder
	for i, row := range cells {
		label := ""
		if i%4 == 0 || i == height-1 {
			v := b.high - (b.high-b.low)*float64(i)/float64(height-1)
			label = fmt.Sprintf("%.1f %%", 100*v)
		}
		fmt.Fprintf(&s, "%*s ┤%s\n", margin-2, label, strings.TrimRight(string(row), " "))
	}
	left, right := Latency(math.Exp(b.left)), Latency(math.Exp(b.right))
	fmt.Fprintf(&s, "%*s └%s\n", margin-2, "", strings.Repeat("─", width-margin))
	fmt.Fprintf(&s, "%*s%s%*s\n", margin, "", left, width-margin-len([]rune(left)), right)
	fmt.Fprintf(&s, "%*svalidation accuracy over median latency · ● front · D dense\n", margin, "")
	_, err := io.WriteString(w, s.String())
	return err
}

// bounds of a plot: accuracy, and the logarithm of latency.
type bounds struct{ low, high, left, right float64 }

func boundsOf(points []Member) bounds {
	b := bounds{math.Inf(1), math.Inf(-1), math.Inf(1), math.Inf(-1)}
	for _, m := range points {
		x := math.Log(max(m.LatencyP50, 1e-3))
		b.low, b.high = min(b.low, m.Accuracy), max(b.high, m.Accuracy)
		b.left, b.right = min(b.left, x), max(b.right, x)
	}
	if b.high-b.low < 0.01 {
		b.low, b.high = max(0, b.low-0.005), min(1, b.high+0.005)
	}
	if b.right-b.left < 0.1 {
		b.left, b.right = b.left-0.05, b.right+0.05
	}
	return b
}

// place maps a point into the unit square.
func (b bounds) place(m Member) (x, y float64) {
	x = (math.Log(max(m.LatencyP50, 1e-3)) - b.left) / (b.right - b.left)
	y = (m.Accuracy - b.low) / (b.high - b.low)
	return min(max(x, 0), 1), min(max(y, 0), 1)
}
