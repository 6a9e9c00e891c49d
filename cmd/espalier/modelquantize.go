package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/espalier-ml/espalier/job"
	"github.com/espalier-ml/espalier/local"
	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/data"
	"github.com/espalier-ml/espalier/model/infer"
	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/report"
)

// dataFlags name a data set on the command line.
type dataFlags struct {
	path, builtin string
	seed          uint64
}

func (f *dataFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.path, "data", "", "the data set's folder or file, as data.path of a job")
	cmd.Flags().StringVar(&f.builtin, "builtin", "", "a built-in data set instead, such as shapes")
	cmd.Flags().Uint64Var(&f.seed, "data-seed", 1, "of the splits, as data.seed of a job")
}

// open reads the data, normalised as g wants it.
func (f *dataFlags) open(g *model.Graph) (*data.Set, error) {
	if (f.path == "") == (f.builtin == "") {
		return nil, usagef("--data %q, --builtin %q: want one of them", f.path, f.builtin)
	}
	set, err := local.OpenData(job.Data{Path: f.path, Builtin: f.builtin}, &espalierv1.DataSpec{Seed: f.seed})
	if err != nil {
		return nil, fmt.Errorf("read data: %w", err)
	}
	if set.Shape.Elements() != g.Input.Elements() || len(set.Shape) == len(g.Input) && !set.Shape.Equal(g.Input) {
		return nil, usagef("data of %s for a model that takes %s: want the same", shapeText(set.Shape), shapeText(g.Input))
	}
	return set, set.UseMeta(g.Meta)
}

// quantizeFlags are the flags of model quantize.
type quantizeFlags struct {
	data     dataFlags
	out      string
	examples int
	threads  int
	json     bool
}

func newQuantize() *cobra.Command {
	var f quantizeFlags
	cmd := &cobra.Command{
		Use:   "quantize FILE -o OUT",
		Short: "Make an int8 file of a float32 one, and compare their accuracy",
		Long: `Makes an int8 file of a float32 one: weights become int8 with a scale per output channel,
activations uint8 with a scale found on examples of the training split. OUT ends in .esp,
which the native runtime runs on bytes, or in .onnx (QDQ form) for other runtimes.

Both files are evaluated on the validation split.`,
		Example: "  espalier model quantize model.esp -o small.esp --data ./fashion-mnist\n  espalier model quantize model.onnx -o small.onnx --builtin shapes --json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			facts, err := f.quantize(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if f.json {
				return printJSON(cmd.OutOrStdout(), facts)
			}
			return facts.show(cmd.OutOrStdout())
		},
	}
	f.data.add(cmd)
	cmd.Flags().StringVarP(&f.out, "output", "o", "", "the file to write, .esp or .onnx")
	cmd.Flags().IntVar(&f.examples, "examples", 512, "examples of the training split to find scales on")
	cmd.Flags().IntVar(&f.threads, "threads", 1, "threads of the evaluation")
	jsonFlag(cmd, &f.json)
	return cmd
}

// quantizeFacts compares a file with the int8 one made of it, as JSON.
type quantizeFacts struct {
	From       fileFacts `json:"from"`
	To         fileFacts `json:"to"`
	Layers     int       `json:"layers"`      // with weights
	Int8Layers int       `json:"int8_layers"` // of them, computed on bytes
	Examples   int       `json:"examples"`    // that scales were found on
	Evaluated  int       `json:"evaluated"`   // examples of the validation split; 0 where the output is no classes
}

type fileFacts struct {
	File      string  `json:"file"`
	Format    string  `json:"format"`
	SizeBytes int64   `json:"size_bytes"`
	Accuracy  float64 `json:"accuracy"`
	Loss      float64 `json:"loss"`
}

func (f quantizeFlags) quantize(ctx context.Context, path string) (*quantizeFacts, error) {
	if err := checkOutput(f.out, path); err != nil {
		return nil, err
	}
	if f.examples < 1 || f.threads < 1 || f.threads > 1024 {
		return nil, usagef("--examples %d, --threads %d: want 1 or more, and 1 to 1024", f.examples, f.threads)
	}
	g, format, size, err := readModel(path)
	if err != nil {
		return nil, err
	}
	set, err := f.data.open(g)
	if err != nil {
		return nil, err
	}
	few := sample(set.Train, f.examples)
	q, err := infer.Quantize(ctx, g, set, few)
	if err != nil {
		return nil, fmt.Errorf("quantize %s: %w", path, err)
	}
	facts := &quantizeFacts{Layers: weighted(g), Int8Layers: len(q.Quant.Weights), Examples: len(few)}
	facts.From = fileFacts{File: path, Format: format, SizeBytes: size}
	facts.To = fileFacts{File: f.out, Format: formatOf(f.out)}
	if classes(g) == len(set.Classes) {
		facts.Evaluated = len(set.Validation)
		for _, c := range []struct {
			g     *model.Graph
			facts *fileFacts
		}{{g, &facts.From}, {q, &facts.To}} {
			s, err := infer.Evaluate(ctx, c.g, set, set.Validation, infer.EvaluateOptions{Threads: f.threads})
			if err != nil {
				return nil, fmt.Errorf("evaluate %s: %w", c.facts.File, err)
			}
			c.facts.Accuracy, c.facts.Loss = s.Accuracy, s.Loss
		}
	}
	facts.To.SizeBytes, err = writeModel(f.out, q)
	return facts, err
}

// sample is n of the indices, the same every time, or all if there are fewer.
func sample(indices []int32, n int) []int32 {
	if n >= len(indices) {
		return indices
	}
	out := make([]int32, n)
	for i, k := range rand.New(rand.NewPCG(1, 1)).Perm(len(indices))[:n] {
		out[i] = indices[k]
	}
	return out
}

// weighted counts the layers that could be int8.
func weighted(g *model.Graph) (n int) {
	for i := range g.Layers {
		if g.Layers[i].Params[model.Weight] != nil {
			n++
		}
	}
	return n
}

// classes is the number of outputs, 0 if they are not a list.
func classes(g *model.Graph) int {
	shapes, err := g.Shapes()
	if last := len(g.Layers) - 1; err == nil && len(shapes[last]) == 1 {
		return shapes[last][0]
	}
	return 0
}

func (f *quantizeFacts) show(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "file\tformat\tsize\taccuracy\tloss")
	for i, x := range []fileFacts{f.From, f.To} {
		accuracy, loss := "–", "–"
		if f.Evaluated > 0 {
			accuracy, loss = report.Percent(x.Accuracy), fmt.Sprintf("%.4f", x.Loss)
		}
		fmt.Fprintf(t, "%s\t%s%s\t%s\t%s\t%s\n", x.File, x.Format, []string{"", ", int8"}[i], job.FormatSize(x.SizeBytes), accuracy, loss)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%d of %d layers with weights on bytes; scales from %d examples, accuracy on %d of the validation split\n",
		f.Int8Layers, f.Layers, f.Examples, f.Evaluated)
	return err
}
