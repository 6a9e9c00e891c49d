package main

import (
	"context"
	"fmt"
	"time"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/bench"
	"github.com/espalier-ml/espalier/model/infer"
	"github.com/espalier-ml/espalier/model/kernel"
)

// convolution is how near a convolution comes to what the processor's
// multiplications and additions allow. Its operations are those of the
// definition: Winograd's kernel needs fewer, and may pass the peak.
type convolution struct {
	What    string  `json:"what"`
	Batch   int     `json:"batch"`
	Variant string  `json:"variant"`
	Kernel  string  `json:"kernel"`
	Time    float64 `json:"us"` // of one example
	GFLOPS  float64 `json:"gflops"`
	Peak    float64 `json:"peak_gflops"`
}

// peak adds the convolutions of seed-cnn: forward as plans choose their kernels,
// gradients by the dense ones. The least times of all turns count.
func (s *settings) peak(ctx context.Context) error {
	n := networks[0]
	if !s.wants("peak", n.name) {
		return nil
	}
	g, err := n.build()
	if err != nil {
		return err
	}
	for _, k := range s.kernels {
		p := &peakTimes{variant: k, found: map[string]int{}}
		for range s.turns {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := p.turn(g); err != nil {
				return err
			}
		}
		for i := range p.all {
			c := &p.all[i]
			c.Peak, c.GFLOPS = p.peak/1e9, c.GFLOPS/c.Time/1e3
		}
		s.Convolutions = append(s.Convolutions, p.all...)
	}
	return nil
}

// peakTimes gathers the least times with one variant.
type peakTimes struct {
	variant kernel.Variant
	peak    float64 // operations per second
	found   map[string]int
	all     []convolution // GFLOPS holds operations until the end
}

func (p *peakTimes) add(c convolution) {
	key := fmt.Sprint(c.What, c.Batch)
	i, ok := p.found[key]
	if !ok {
		p.found[key] = len(p.all)
		p.all = append(p.all, c)
		return
	}
	if c.Time < p.all[i].Time {
		p.all[i] = c
	}
}

func (p *peakTimes) turn(g *model.Graph) error {
	restore, err := kernel.Force(p.variant)
	if err != nil {
		return err
	}
	defer restore()
	peak, err := kernel.PeakFLOPS(20 * time.Millisecond)
	if err != nil {
		return err
	}
	p.peak = max(p.peak, peak)
	shapes, err := g.Shapes()
	if err != nil {
		return err
	}
	for _, batch := range []int{1, batchSize} {
		plan, err := infer.Compile(g, infer.Options{Batch: batch, Tune: true})
		if err != nil {
			return err
		}
		for _, l := range plan.Layers() {
			if i, ok := g.Index(l.Name); ok && l.Kind == "conv" {
				c, err := convOf(g, i, shapes)
				if err != nil {
					return err
				}
				p.add(convolution{What: l.Name, Batch: batch, Variant: string(p.variant), Kernel: l.Kernel,
					Time: float64(l.Time.Nanoseconds()) / 1e3, GFLOPS: 2 * float64(c.MACs())})
			}
		}
	}
	for i := range g.Layers {
		if _, ok := g.Layers[i].Op.(model.Conv); ok {
			if err := p.gradients(g, i, shapes); err != nil {
				return err
			}
		}
	}
	return nil
}

// convOf is the kernel of layer i, a convolution without padding, dilation or
// groups, as seed-cnn has them.
func convOf(g *model.Graph, i int, shapes []model.Shape) (*kernel.Conv, error) {
	o, in := g.Layers[i].Op.(model.Conv), g.InputShapes(i, shapes)[0]
	return kernel.NewConv(kernel.ConvShape{H: in[0], W: in[1], IC: in[2], OC: o.Out, KH: o.Kernel[0], KW: o.Kernel[1],
		StrideH: o.Stride[0], StrideW: o.Stride[1], PadTop: o.Pad.Top, PadLeft: o.Pad.Left, PadBottom: o.Pad.Bottom, PadRight: o.Pad.Right})
}

const ofInput = ", gradient of input"

// gradients times both gradients of layer i at the batch of training.
func (p *peakTimes) gradients(g *model.Graph, i int, shapes []model.Shape) error {
	c, err := convOf(g, i, shapes)
	if err != nil {
		return err
	}
	var s kernel.Scratch
	x, dy := bench.Input(batchSize*c.InSize()), bench.Input(batchSize*c.OutSize())
	w, dw, dx := bench.Input(c.WeightSize()), make([]float32, c.WeightSize()), make([]float32, batchSize*c.InSize())
	for _, f := range []struct {
		what string
		run  func() error
	}{
		{", gradient of weights", func() error { return c.GradWeights(&s, x, dy, dw, 0, batchSize) }},
		{ofInput, func() error { return c.GradInput(&s, dy, w, dx, 0, batchSize) }},
	} {
		if g.Layers[i].Inputs[0] == model.Input && f.what == ofInput {
			continue // nobody needs it
		}
		for range 4 {
			start := time.Now()
			if err := f.run(); err != nil {
				return err
			}
			p.add(convolution{What: g.Layers[i].Name + f.what, Batch: batchSize, Variant: string(p.variant), Kernel: infer.KernelDense,
				Time: float64(time.Since(start).Nanoseconds()) / 1e3 / batchSize, GFLOPS: 2 * float64(c.MACs())})
		}
	}
	return nil
}
