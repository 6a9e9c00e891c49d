package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/bench"
	"github.com/espalier-ml/espalier/model/infer"
	"github.com/espalier-ml/espalier/model/kernel"
	"github.com/espalier-ml/espalier/model/onnx"
)

// latency adds the rows of inference. Pruned and quantized networks are
// compared with the dense float32 one on ONNX Runtime, which gains nothing from
// zeros.
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
		dense, err := n.build()
		if err != nil {
			return err
		}
		file := filepath.Join(dir, n.name+".onnx")
		b, err := onnx.Marshal(dense, onnx.Options{})
		if err != nil {
			return err
		}
		if err := os.WriteFile(file, b, 0o600); err != nil {
			return err
		}
		for _, c := range []struct {
			what     string
			batch    int
			fraction float64
			block    int
			bytes    bool
		}{
			{"latency, batch 1", 1, 0, 1, false}, {"latency, batch 64", 64, 0, 1, false},
			{"latency, 90 % single weights pruned", 1, 0.9, 1, false}, {"latency, 90 % 4×1 blocks pruned", 1, 0.9, 4, false},
			{"latency, int8", 1, 0, 1, true},
		} {
			for _, k := range s.kernels {
				g := dense.Clone()
				prune(g, c.fraction, c.block)
				o := infer.Options{Batch: c.batch}
				if c.bytes {
					if o.Quant, err = infer.Calibrate(ctx, g, noise(g.Input.Elements()), make([]int32, 8)); err != nil {
						return err
					}
				}
				r := row{What: c.what, Network: n.name, Threads: 1, Kernel: string(k)}
				if err := s.compare(ctx, r, g, file, o, k); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (s *settings) compare(ctx context.Context, r row, g *model.Graph, file string, plan infer.Options, k kernel.Variant) error {
	o := bench.Options{WarmUp: s.turn / 8, Rounds: 3, Round: s.turn / 4, Samples: 5}
	others := map[string]func() (float64, error){}
	if s.ort != nil {
		others["ONNX Runtime, dense"] = func() (float64, error) {
			e, err := s.ort.Measure(ctx, file, plan.Batch, 1, o)
			return float64(e.P50.Nanoseconds()) / 1e3, err
		}
	}
	return s.contest(r, func() (float64, error) {
		restore, err := kernel.Force(k)
		if err != nil {
			return 0, err
		}
		defer restore()
		m, err := bench.MeasureGraph(ctx, g, plan, o)
		if err != nil {
			return 0, fmt.Errorf("measure %s: %w", g.Name, err)
		}
		return float64(m.P50.Nanoseconds()) / 1e3, nil
	}, others)
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
