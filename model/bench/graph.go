package bench

import (
	"context"
	"fmt"
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
	if err := checkMemory(g, max(1, p.Batch)); err != nil {
		return Graph{}, err
	}
	plan, err := infer.Compile(g, p)
	if err != nil {
		return Graph{}, err
	}
	x, y := Input(plan.Batch()*plan.InputSize()), make([]float32, plan.Batch()*plan.OutputSize())
	l, err := Measure(ctx, func() error { return plan.Run(x, y) }, o)
	return Graph{Latency: l, Batch: plan.Batch(), Threads: max(1, p.Threads), Layers: plan.Layers()}, err
}

// maxValues bounds the inputs and outputs of a run: 4 GiB.
const maxValues = 1 << 30

// checkMemory refuses a batch whose inputs and outputs would take more memory than a
// measurement should.
func checkMemory(g *model.Graph, batch int) error {
	if err := g.Validate(); err != nil {
		return err
	}
	shapes, err := g.Shapes()
	if err != nil {
		return err
	}
	each := int64(g.Input.Elements()) + int64(shapes[len(shapes)-1].Elements())
	if most := max(1, maxValues/each); int64(batch) > most {
		return fmt.Errorf("%w: batch %d of %d numbers in and out each: want at most %d", ErrOptions, batch, each, most)
	}
	return nil
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
