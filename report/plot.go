package report

import (
	"fmt"
	"image/color"
	"io"
	"math"
	"path/filepath"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Colours of the plots: members, other trials, the dense model.
var (
	memberColor   = color.NRGBA{R: 0x1b, G: 0x7f, B: 0x4d, A: 0xb0}
	measuredColor = color.NRGBA{R: 0x90, G: 0x98, B: 0xa0, A: 0x50}
	denseColor    = color.NRGBA{R: 0xc0, G: 0x39, B: 0x2b, A: 0xd0}
)

// PlotFormat is the format that a file's name asks for: "svg" or "png".
func PlotFormat(path string) (string, error) {
	switch ext := strings.ToLower(strings.TrimPrefix(filepath.Ext(path), ".")); ext {
	case "svg", "png":
		return ext, nil
	}
	return "", fmt.Errorf("plot %q: want a name that ends in .svg or .png", path)
}

// WriteImage draws accuracy against median latency, the size of the file as the
// area of each point, the dense model marked. The format is "svg" or "png".
func WriteImage(w io.Writer, f Front, format string) error {
	p := plot.New()
	p.Title.Text = fmt.Sprintf("%s on %s", title(f), f.Device)
	p.Title.Padding = vg.Points(6)
	p.X.Label.Text = "median latency in µs, batch 1 (logarithmic)"
	p.Y.Label.Text = "validation accuracy in %"
	p.Add(plotter.NewGrid())
	all := append(append([]Member{}, f.Measured...), f.Members...)
	if f.Baseline != nil {
		all = append(all, *f.Baseline)
	}
	if len(all) == 0 {
		return writePlot(w, p, format)
	}
	largest := 1.0
	for _, m := range all {
		largest = max(largest, float64(m.SizeBytes))
	}
	members := map[int]bool{}
	for _, m := range f.Members {
		members[m.Trial] = true
	}
	var others []Member
	for _, m := range f.Measured {
		if !members[m.Trial] {
			others = append(others, m)
		}
	}
	if err := bubbles(p, "other trials", others, measuredColor, largest, draw.CircleGlyph{}); err != nil {
		return err
	}
	if err := bubbles(p, "front", f.Members, memberColor, largest, draw.CircleGlyph{}); err != nil {
		return err
	}
	if f.Baseline != nil {
		if err := bubbles(p, "dense model", []Member{*f.Baseline}, denseColor, largest, draw.SquareGlyph{}); err != nil {
			return err
		}
	}
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, logTicks{}
	b := boundsOf(all)
	p.X.Min, p.X.Max = math.Exp(b.left-0.15), math.Exp(b.right+0.15)
	pad := 0.06 * (b.high - b.low)
	p.Y.Min, p.Y.Max = 100*(b.low-pad), 100*(b.high+pad)
	p.Legend.Top, p.Legend.Left = false, false
	return writePlot(w, p, format)
}

func title(f Front) string {
	if f.Name != "" {
		return f.Name
	}
	return f.Job
}

func writePlot(w io.Writer, p *plot.Plot, format string) error {
	to, err := p.WriterTo(vg.Points(640), vg.Points(420), format)
	if err != nil {
		return fmt.Errorf("draw front: %w", err)
	}
	_, err = to.WriteTo(w)
	return err
}

// bubbles adds points whose area is proportional to the size of their files.
func bubbles(p *plot.Plot, name string, members []Member, c color.Color, largest float64, shape draw.GlyphDrawer) error {
	if len(members) == 0 {
		return nil
	}
	xys := make(plotter.XYs, len(members))
	for i, m := range members {
		xys[i] = plotter.XY{X: max(m.LatencyP50, 1e-3), Y: 100 * m.Accuracy}
	}
	s, err := plotter.NewScatter(xys)
	if err != nil {
		return fmt.Errorf("draw front: %w", err)
	}
	s.GlyphStyle = draw.GlyphStyle{Color: c, Radius: vg.Points(4), Shape: shape}
	s.GlyphStyleFunc = func(i int) draw.GlyphStyle {
		radius := max(2, 14*math.Sqrt(float64(members[i].SizeBytes)/largest))
		return draw.GlyphStyle{Color: c, Radius: vg.Points(radius), Shape: shape}
	}
	p.Add(s)
	p.Legend.Add(name, s)
	return nil
}

// logTicks marks 1, 2 and 5 times the powers of ten.
type logTicks struct{}

func (logTicks) Ticks(low, high float64) []plot.Tick {
	var out []plot.Tick
	for e := math.Floor(math.Log10(low)); e <= math.Ceil(math.Log10(high)); e++ {
		for _, m := range []float64{1, 2, 5} {
			if v := m * math.Pow(10, e); v >= low && v <= high {
				out = append(out, plot.Tick{Value: v, Label: fmt.Sprintf("%g", v)})
			}
		}
	}
	return out
}
