package main

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/bench"
	"github.com/espalier-ml/espalier/model/infer"
	"github.com/espalier-ml/espalier/model/kernel"
	"github.com/espalier-ml/espalier/model/onnx"
)

// latency adds the rows of inference. Pruned networks are compared with the
// dense one on ONNX Runtime, which gains nothing from zeros; quantized ones with
// our own in float32, and with ONNX Runtime on the same bytes.
func (s *settings) latency(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "engine")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, n := range networks {
		if !s.wants("latency", n.name) {
			continue
		}
		g, err := n.build()
		if err != nil {
			return err
		}
		file := filepath.Join(dir, n.name+".onnx")
		if err := writeONNX(file, g); err != nil {
			return err
		}
		for _, c := range []struct {
			what     string
			batch    int
			fraction float64
			block    int
		}{
			{denseRow, 1, 0, 1}, {"latency, batch 64", 64, 0, 1},
			{sparseRow, 1, 0.9, 1}, {blockRow, 1, 0.9, 4},
		} {
			pruned := g.Clone()
			prune(pruned, c.fraction, c.block)
			if err := s.floats(ctx, row{What: c.what, Network: n.name, Threads: 1}, pruned, file, c.batch); err != nil {
				return err
			}
		}
		if err := s.bytes(ctx, n.name, g, filepath.Join(dir, n.name+".int8.onnx")); err != nil {
			return err
		}
	}
	return nil
}

func writeONNX(file string, g *model.Graph) error {
	b, err := onnx.Marshal(g, onnx.Options{})
	if err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o600)
}

const (
	ortFloat = "ONNX Runtime, dense"
	ortBytes = "ONNX Runtime, int8"
	ownFloat = "our float32"
)

// floats adds a row per kernel variant of g, against file on ONNX Runtime.
func (s *settings) floats(ctx context.Context, r row, g *model.Graph, file string, batch int) error {
	var all []contender
	for _, k := range s.kernels {
		all = append(all, contender{string(k), func() (float64, error) { return s.ours(ctx, g, k, infer.Options{Batch: batch}) }})
	}
	if s.ort != nil {
		all = append(all, contender{ortFloat, func() (float64, error) { return s.theirs(ctx, file, batch) }})
	}
	times, err := s.contest(all)
	if err != nil {
		return err
	}
	for _, k := range s.kernels {
		r.Kernel = string(k)
		s.row(r, times, string(k), ortFloat)
	}
	return nil
}

// bytes adds two rows per kernel variant of g on bytes.
func (s *settings) bytes(ctx context.Context, name string, g *model.Graph, file string) error {
	q, err := infer.Quantize(ctx, g, noise(g.Input.Elements()), make([]int32, 8))
	if err != nil {
		return err
	}
	if err := writeONNX(file, q); err != nil {
		return err
	}
	var all []contender
	for _, k := range s.kernels {
		all = append(all, contender{string(k), func() (float64, error) { return s.ours(ctx, q, k, infer.Options{}) }})
		all = append(all, contender{ownFloat + string(k), func() (float64, error) { return s.ours(ctx, g, k, infer.Options{}) }})
	}
	if s.ort != nil {
		all = append(all, contender{ortBytes, func() (float64, error) { return s.theirs(ctx, file, 1) }})
	}
	times, err := s.contest(all)
	if err != nil {
		return err
	}
	for _, k := range s.kernels {
		r := row{What: int8Row, Network: name, Threads: 1, Kernel: string(k)}
		s.row(r, times, string(k), ortBytes)
		times[ownFloat] = times[ownFloat+string(k)]
		s.row(r, times, string(k), ownFloat)
	}
	return nil
}

// options make a measurement last a turn.
func (s *settings) options() bench.Options {
	return bench.Options{WarmUp: s.turn / 8, Rounds: 3, Round: s.turn / 4, Samples: 5}
}

func (s *settings) ours(ctx context.Context, g *model.Graph, k kernel.Variant, o infer.Options) (float64, error) {
	restore, err := kernel.Force(k)
	if err != nil {
		return 0, err
	}
	defer restore()
	m, err := bench.MeasureGraph(ctx, g, o, s.options())
	return float64(m.P50.Nanoseconds()) / 1e3, err
}

func (s *settings) theirs(ctx context.Context, file string, batch int) (float64, error) {
	e, err := s.ort.Measure(ctx, file, batch, 1, s.options())
	return float64(e.P50.Nanoseconds()) / 1e3, err
}

// noise is examples of that many random numbers.
type noise int

func (n noise) Batch(x []float32, labels []int32, _ []int32) {
	copy(x, bench.Input(int(n)*len(labels)))
	clear(labels)
}

// prune zeroes a fraction of the weights of all layers but the first and the
// last, in blocks of neighbouring output channels, at random.
func prune(g *model.Graph, fraction float64, block int) {
	r := rand.New(rand.NewPCG(6, 6))
	var weights []*model.Tensor
	for i := range g.Layers {
		if w := g.Layers[i].Params[model.Weight]; w != nil {
			weights = append(weights, w)
		}
	}
	for _, w := range weights[1 : len(weights)-1] {
		out := w.Shape[len(w.Shape)-1]
		for row := 0; row < len(w.Data); row += out {
			for b := 0; b < out; b += block {
				if r.Float64() < fraction {
					clear(w.Data[row+b : row+min(out, b+block)])
				}
			}
		}
	}
}
