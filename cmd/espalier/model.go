package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/espalier-ml/espalier/job"
	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/esp"
	"github.com/espalier-ml/espalier/model/onnx"
)

func newModel() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "model",
		Short: "Inspect, convert, quantize and measure model files, without a cluster",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newInspect(), newConvert(), newQuantize(), newBench())
	return cmd
}

func newInspect() *cobra.Command {
	var asJSON, plot bool
	cmd := &cobra.Command{
		Use:     "inspect FILE",
		Short:   "Show a model's layers, shapes, parameters, non-zeros, MACs and bytes",
		Example: "  espalier model inspect results/models/trial-0007-*.esp --plot",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			facts, err := inspect(args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), facts)
			}
			return facts.show(cmd.OutOrStdout(), plot)
		},
	}
	cmd.Flags().BoolVar(&plot, "plot", false, "draw a histogram of each layer's weights")
	jsonFlag(cmd, &asJSON)
	return cmd
}

// maxModelBytes bounds a model file that is read.
const maxModelBytes = 2 << 30

// readModel reads an .esp or .onnx file, told apart by its first bytes.
func readModel(path string) (*model.Graph, string, int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, "", 0, err
	}
	if info.IsDir() || info.Size() > maxModelBytes {
		return nil, "", 0, usagef("%s: want a model file of at most %s", path, job.FormatSize(maxModelBytes))
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, "", 0, err
	}
	if bytes.HasPrefix(b, []byte(esp.Magic)) {
		g, err := esp.Read(bytes.NewReader(b), esp.Limits{})
		return g, "esp", info.Size(), wrapPath(path, err)
	}
	g, err := onnx.Read(b, onnx.Limits{})
	if errors.Is(err, onnx.ErrFormat) && formatOf(path) != "onnx" {
		err = fmt.Errorf("neither an esp nor an onnx file: %w", err)
	}
	return g, "onnx", info.Size(), wrapPath(path, err)
}

func wrapPath(path string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("read %s: %w", path, err)
}

// modelFacts is a model, as JSON.
type modelFacts struct {
	File      string            `json:"file"`
	Format    string            `json:"format"`
	SizeBytes int64             `json:"size_bytes"`
	Int8      bool              `json:"int8"` // some layers are computed on bytes
	Name      string            `json:"name"`
	Input     []int             `json:"input"`
	Scale     float32           `json:"input_scale,omitempty"` // of the input, where it becomes uint8
	Zero      uint8             `json:"input_zero,omitempty"`  // its zero point
	Params    int64             `json:"params"`
	Nonzeros  int64             `json:"nonzeros"`
	MACs      int64             `json:"macs"`
	Meta      map[string]string `json:"meta,omitempty"`
	Layers    []layerFacts      `json:"layers"`
}

type layerFacts struct {
	Name      string    `json:"name"`
	Op        string    `json:"op"`
	Output    []int     `json:"output"`
	Params    int64     `json:"params"`
	Nonzeros  int64     `json:"nonzeros"`
	MACs      int64     `json:"macs"`
	Bytes     int64     `json:"bytes"`             // of the parameters, dense, with the scales of int8 weights
	Weights   string    `json:"weights,omitempty"` // type of weights: float32 or int8
	Scale     float32   `json:"scale,omitempty"`   // of the output, where it is uint8
	Zero      uint8     `json:"zero,omitempty"`    // its zero point
	Histogram histogram `json:"histogram"`
}

// histogram counts weights in equal bins from Min to Max; exact zeros are
// counted apart, so that pruning does not hide the rest.
type histogram struct {
	Min   float64 `json:"min"`
	Max   float64 `json:"max"`
	Zeros int     `json:"zeros"`
	Bins  []int   `json:"bins"`
}

const histogramBins = 32

func inspect(path string) (*modelFacts, error) {
	g, format, size, err := readModel(path)
	if err != nil {
		return nil, err
	}
	shapes, err := g.Shapes()
	if err != nil {
		return nil, wrapPath(path, err)
	}
	costs, err := g.LayerCosts()
	if err != nil {
		return nil, wrapPath(path, err)
	}
	f := &modelFacts{File: path, Format: format, SizeBytes: size, Int8: g.Quant != nil, Name: g.Name, Input: g.Input, Meta: g.Meta}
	if a, ok := g.OutputBytes(model.Input); ok {
		f.Scale, f.Zero = a.Scale, a.Zero
	}
	for i := range g.Layers {
		l, c := &g.Layers[i], costs[i]
		f.Params += c.Params
		f.Nonzeros += c.NonZeros
		f.MACs += c.MACs
		facts := layerFacts{
			Name: l.Name, Op: l.Op.Kind(), Output: shapes[i], Params: c.Params, Nonzeros: c.NonZeros,
			MACs: c.MACs, Bytes: 4 * c.Params, Histogram: newHistogram(l.Params[model.Weight]),
		}
		facts.types(g, i)
		f.Layers = append(f.Layers, facts)
	}
	return f, nil
}

// types tells what of layer i is bytes.
func (l *layerFacts) types(g *model.Graph, i int) {
	if a, ok := g.OutputBytes(i); ok {
		l.Scale, l.Zero = a.Scale, a.Zero
	}
	if g.Layers[i].Params[model.Weight] == nil {
		return
	}
	l.Weights = "float32"
	if q, scale, ok := g.WeightBytes(i); ok {
		l.Weights = "int8"
		l.Bytes += int64(4*len(scale) - 3*len(q))
	}
}

func newHistogram(t *model.Tensor) histogram {
	h := histogram{}
	if t == nil {
		return h
	}
	h.Bins = make([]int, histogramBins)
	h.Min, h.Max = math.Inf(1), math.Inf(-1)
	for _, v := range t.Data {
		h.Min, h.Max = min(h.Min, float64(v)), max(h.Max, float64(v))
	}
	width := (h.Max - h.Min) / histogramBins
	for _, v := range t.Data {
		switch {
		case v == 0:
			h.Zeros++
		case !(width > 0):
			h.Bins[0]++
		default:
			h.Bins[min(histogramBins-1, int((float64(v)-h.Min)/width))]++
		}
	}
	return h
}

func (f *modelFacts) show(w io.Writer, plot bool) error {
	fmt.Fprintf(w, "%s: %s, %s, input %v\n", f.File, formatText(f.Format, f.Int8), job.FormatSize(f.SizeBytes), f.Input)
	for _, k := range []string{model.MetaJob, model.MetaTrial} {
		if v := f.Meta[k]; v != "" {
			fmt.Fprintf(w, "%s %s\n", k, v)
		}
	}
	if f.Scale > 0 {
		fmt.Fprintf(w, "input as uint8: scale %.4g, zero %d\n", f.Scale, f.Zero)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	heads := "layer\top\toutput\tparameters\tnon-zeros\tsparsity\tMACs\tbytes\t"
	if f.Int8 {
		heads += "weights\toutput scale\tzero\t"
	}
	fmt.Fprintln(t, heads)
	var bytes int64
	for _, l := range f.Layers {
		bytes += l.Bytes
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%d\t%s\t%d\t%d\t", l.Name, l.Op, shapeText(l.Output), l.Params, l.Nonzeros,
			sparsityText(l.Nonzeros, l.Params), l.MACs, l.Bytes)
		if f.Int8 {
			fmt.Fprint(t, l.typesText())
		}
		fmt.Fprintln(t)
	}
	fmt.Fprintf(t, "total\t\t\t%d\t%d\t%s\t%d\t%d\t", f.Params, f.Nonzeros, sparsityText(f.Nonzeros, f.Params), f.MACs, bytes)
	if f.Int8 {
		fmt.Fprint(t, "\t\t\t")
	}
	fmt.Fprintln(t)
	if err := t.Flush(); err != nil {
		return err
	}
	if !plot {
		return nil
	}
	for _, l := range f.Layers {
		if len(l.Histogram.Bins) > 0 {
			fmt.Fprintf(w, "\n%s\n%s", l.Name, l.Histogram.draw())
		}
	}
	return nil
}

func (l *layerFacts) typesText() string {
	if l.Scale == 0 {
		return l.Weights + "\t\t\t"
	}
	return fmt.Sprintf("%s\t%.4g\t%d\t", l.Weights, l.Scale, l.Zero)
}

func shapeText(s []int) string {
	parts := make([]string, len(s))
	for i, d := range s {
		parts[i] = fmt.Sprint(d)
	}
	return strings.Join(parts, "×")
}

func sparsityText(nonzeros, params int64) string {
	if params == 0 {
		return "–"
	}
	return fmt.Sprintf("%.1f %%", 100*(1-float64(nonzeros)/float64(params)))
}

// draw writes the bins as columns of eighths of a character, the range below.
func (h histogram) draw() string {
	const rows, blocks = 4, " ▁▂▃▄▅▆▇█"
	steps := []rune(blocks)
	top := max(1, slices.Max(h.Bins))
	var b strings.Builder
	for row := rows - 1; row >= 0; row-- {
		b.WriteString("  ")
		for _, n := range h.Bins {
			eighths := int(math.Ceil(float64(n*rows*8)/float64(top))) - row*8
			b.WriteRune(steps[min(8, max(0, eighths))])
		}
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "  %-16.4g%16.4g   highest %d, zeros %d\n", h.Min, h.Max, top, h.Zeros)
	return b.String()
}
