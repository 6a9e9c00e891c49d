package bench

import (
	"context"
	"math/rand/v2"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/infer"
)

// Graph is the latency of a graph on the native runtime.
type Graph struct {
	Latency
	Batch   int
	Threads int
	Layers  []infer.Layer // how the plan computes it
}

// MeasureGraph compiles g for the native runtime, with the fastest kernels
// (infer.Options.Tune, unless p fixes kernels), and measures a run on random
// numbers. The latency is that of the whole batch; one example on one thread
// when p is zero.
func MeasureGraph(ctx context.Context, g *model.Graph, p infer.Options, o Options) (Graph, error) {
	p.Tune = p.Tune || p.Kernels == nil
	plan, err := infer.Compile(g, p)
	if err != nil {
		return Graph{}, err
	}
	x, y := Input(plan.Batch()*plan.InputSize()), make([]float32, plan.Batch()*plan.OutputSize())
	l, err := Measure(ctx, func() error { return plan.Run(x, y) }, o)
	return Graph{Latency: l, Batch: plan.Batch(), Threads: max(1, p.Threads), Layers: plan.Layers()}, err
}

// Input is the n normally distributed numbers that every runtime is measured
// on.
func Input(n int) []float32 {
	r := rand.New(rand.NewPCG(1, 1))
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}
