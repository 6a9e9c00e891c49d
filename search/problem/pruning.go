package problem

import (
	"fmt"
	"math"

	"github.com/espalier-ml/espalier/search"
)

// layer is one layer of the network that the problem "pruning" imitates.
type layer struct {
	channels, kernel, positions float64
	// pain scales how fast the loss rises as the layer shrinks.
	pain float64
}

// network is three convolutions and two fully connected layers; the last one keeps its channels.
var network = []layer{
	{32, 9, 30 * 30, 0.30},
	{64, 9, 13 * 13, 0.25},
	{64, 9, 4 * 4, 0.12},
	{64, 16, 1, 0.05},
	{10, 1, 1, 0.30},
}

// Strategies of the problem "pruning", in the order of its first parameter.
const (
	byChannel = iota
	byBoth
	overall
	byLayer
)

// pruningSpace has a strategy, on which the sparsity per layer depends, and how to fine-tune.
func pruningSpace() search.Space {
	strategies := []string{byChannel: "channel", byBoth: "hybrid", overall: "magnitude", byLayer: "magnitude-layer"}
	when := func(which ...int) *search.Condition {
		c := &search.Condition{Param: "strategy"}
		for _, w := range which {
			c.Values = append(c.Values, strategies[w])
		}
		return c
	}
	keep := func(name string, c *search.Condition) search.Param {
		return search.Param{Name: name, Kind: search.Float, Min: 0.02, Max: 1, Log: true, When: c}
	}
	params := []search.Param{{Name: "strategy", Kind: search.Choice, Choices: strategies}}
	for i := range network[:len(network)-1] {
		params = append(params, search.Param{Name: fmt.Sprintf("sparsity%d", i), Kind: search.Float, Max: 0.98, When: when(byChannel, byBoth)})
	}
	for i := range network {
		params = append(params, keep(fmt.Sprintf("keep%d", i), when(byLayer)))
	}
	return search.Space{Params: append(params,
		keep("keep", when(overall)),
		keep("keep-weight", when(byBoth)),
		search.Param{Name: "schedule", Kind: search.Choice, Choices: []string{"one-shot", "polynomial"}},
		search.Param{Name: "epochs", Kind: search.Choice, Choices: []string{"1", "2", "4"}, Ordered: true},
		search.Param{Name: "rate", Kind: search.Float, Min: 1e-4, Max: 1e-2, Log: true},
	)}
}

// pruning imitates what a job searches: conditional sparsities, costs that couple neighbouring layers, an error that
// rises slowly, then steeply, and fine-tuning that wins some of it back.
func pruning() Problem {
	space := pruningSpace()
	dense := cost{}
	for i, l := range network {
		dense.add(l, inputs(i), l.channels, 1)
	}
	return Problem{"pruning", space, []float64{1, 1, 1}, bestPruning, func(c search.Config) []float64 {
		get := func(format string, args ...any) float64 { return c[space.Index(fmt.Sprintf(format, args...))] }
		var pruned cost
		var loss float64
		in := inputs(0)
		for i, l := range network {
			channels, weights := 1.0, 1.0
			if strategy := int(c[0]); strategy == byLayer {
				weights = get("keep%d", i)
			} else if strategy == overall { // small layers keep more
				weights = min(get("keep")*math.Pow(l.pain/0.12, 1.2), 1)
			} else {
				if i < len(network)-1 {
					channels = 1 - get("sparsity%d", i)
				}
				if strategy == byBoth {
					weights = get("keep-weight")
				}
			}
			out := max(math.Round(l.channels*channels), 1)
			loss += l.pain * (math.Pow(l.channels/out, 1.3) - 1 + 0.25*(math.Pow(1/weights, 1.1)-1))
			pruned.add(l, in, out, weights)
			in = out
		}
		loss *= finetune(get("epochs"), get("rate"), get("schedule") == 1)
		failure := 0.02 + 0.82*math.Pow(loss/(loss+60), 1.5)
		return []float64{
			min(failure/0.12, 1),
			logScale(pruned.bytes/dense.bytes, 1000),
			logScale(0.1+0.9*pruned.work/dense.work, 100),
		}
	}}
}

// bestPruning is the best known hypervolume: that of all points of ten long searches together.
const bestPruning = 0.3519

// inputs returns the channels that come into layer i of the dense network.
func inputs(i int) float64 {
	if i == 0 {
		return 3
	}
	return network[i-1].channels
}

type cost struct{ bytes, work float64 }

// add counts a layer of which a share of the weights is left: stored as a bitmap and values where that is smaller, and
// faster once fewer than half are left.
func (c *cost) add(l layer, in, out, weights float64) {
	n := in * out * l.kernel
	c.bytes += 100 + min(4*n, 4*n*weights+n/8)
	speed := 1.0
	if weights < 0.5 {
		speed = 0.1 + 1.8*weights
	}
	c.work += n * l.positions * speed
}

// finetune returns the share of the loss that fine-tuning leaves. epochs is the index of the choice.
func finetune(epochs, rate float64, gradual bool) float64 {
	off := math.Log10(rate) + 2.7
	left := (1 + 0.5*off*off) * math.Pow(2, -0.35*epochs)
	if gradual && epochs > 0 {
		left *= 0.85
	}
	return left
}

// logScale maps a share of the dense cost to [0, 1]: 1 gives 1, 1/span gives 0.
func logScale(share, span float64) float64 {
	return min(max(1+math.Log(share)/math.Log(span), 0), 1)
}
