package tpe

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/espalier-ml/espalier/search"
)

// density is a mixture over one parameter's values.
type density interface {
	// at returns the density, for a discrete parameter the probability, of a valid value.
	at(v float64) float64
	draw(rng *rand.Rand) float64
}

// counts is the mixture of an unordered choice: each trial has most of its weight on its own value.
type counts struct{ probability []float64 }

func newCounts(p *search.Param, i int, from []observation, prior float64) *counts {
	n := 1.0
	for _, o := range from {
		if !math.IsNaN(o.config[i]) {
			n++
		}
	}
	values := float64(len(p.Choices))
	share := prior / n // of each value in each trial's kernel, beside 1 for its own
	out := make([]float64, len(p.Choices))
	total := prior
	for k := range out {
		out[k] = prior / values
	}
	for _, o := range from {
		if v := o.config[i]; !math.IsNaN(v) {
			total += o.weight
			for k := range out {
				out[k] += o.weight * share / (1 + values*share)
			}
			out[int(v)] += o.weight / (1 + values*share)
		}
	}
	for k := range out {
		out[k] /= total
	}
	return &counts{out}
}

func (c *counts) at(v float64) float64 { return c.probability[int(v)] }

func (c *counts) draw(rng *rand.Rand) float64 {
	u := rng.Float64()
	for k, p := range c.probability {
		if u -= p; u < 0 {
			return float64(k)
		}
	}
	return float64(len(c.probability) - 1)
}

// normals is the mixture of a number or an ordered choice, on the parameter's unit scale.
type normals struct {
	param      *search.Param
	discrete   bool
	kernels    []kernel
	cumulative []float64
	// known holds what at has found for each value of a discrete parameter with few, NaN before.
	known []float64
}

// kernel is a normal density cut to [0, 1].
type kernel struct {
	mean, width float64
	// factor is its weight over the part of it that lies in [0, 1] and, for a density, over its width.
	factor float64
}

func newNormals(p *search.Param, i int, from []observation, prior float64) *normals {
	n := &normals{param: p}
	if levels := p.Levels(); !math.IsInf(levels, 1) {
		n.discrete = true
		if levels <= fewLevels {
			n.known = slices.Repeat([]float64{math.NaN()}, int(levels))
		}
	}
	n.kernels = make([]kernel, 0, len(from)+1)
	for _, o := range from {
		if v := o.config[i]; !math.IsNaN(v) {
			n.kernels = append(n.kernels, kernel{mean: p.Unit(v), factor: o.weight})
		}
	}
	n.kernels = append(n.kernels, kernel{mean: 0.5, width: 1, factor: prior})
	n.setWidths()
	var total float64
	for k := range n.kernels {
		total += n.kernels[k].factor
	}
	n.cumulative = make([]float64, len(n.kernels))
	var sum float64
	for j := range n.kernels {
		k := &n.kernels[j]
		sum += k.factor / total
		n.cumulative[j] = sum
		k.factor /= total * (normal((1-k.mean)/k.width) - normal(-k.mean/k.width))
		if !n.discrete {
			k.factor /= k.width * math.Sqrt(2*math.Pi)
		}
	}
	return n
}

// setWidths sorts the kernels by mean and makes each as wide as the gap to its farther neighbour; the ends of the scale are
// neighbours only of a lone kernel. Widths stay between a share of the scale, that shrinks with the number of
// kernels, and the whole scale. The prior, which is the last kernel on entry, keeps its width.
func (n *normals) setWidths() {
	slices.SortFunc(n.kernels, func(a, b kernel) int {
		switch {
		case a.mean < b.mean:
			return -1
		case a.mean > b.mean:
			return 1
		}
		return cmp.Or(cmp.Compare(a.width, b.width), cmp.Compare(a.factor, b.factor)) // further ties are the same kernel
	})
	last := len(n.kernels) - 1
	least := 1 / min(100, float64(len(n.kernels)+1))
	for j := range n.kernels {
		k := &n.kernels[j]
		if k.width > 0 {
			continue
		}
		var gap float64
		if j > 0 {
			gap = k.mean - n.kernels[j-1].mean
		}
		if j < last {
			gap = max(gap, n.kernels[j+1].mean-k.mean)
		}
		k.width = min(max(gap, least), 1)
	}
}

// fewLevels bounds the discrete parameters whose probabilities are kept.
const fewLevels = 64

func (n *normals) at(v float64) float64 {
	if n.known == nil {
		return n.sum(n.param.Cell(v))
	}
	low, _ := n.param.Bounds()
	known := &n.known[int(v-low)]
	if math.IsNaN(*known) {
		*known = n.sum(n.param.Cell(v))
	}
	return *known
}

// sum adds up the kernels over a cell, at its only point for a Float.
func (n *normals) sum(from, to float64) float64 {
	var sum float64
	for j := range n.kernels {
		k := &n.kernels[j]
		low, high := (from-k.mean)/k.width, (to-k.mean)/k.width
		switch { // what lies nine widths away is far below the prior's share
		case low >= 9 || high <= -9:
		case n.discrete:
			sum += float64(k.factor * (normal(high) - normal(low)))
		default:
			sum += float64(k.factor * math.Exp(-0.5*low*low))
		}
	}
	return sum
}

func (n *normals) draw(rng *rand.Rand) float64 {
	j, _ := slices.BinarySearch(n.cumulative, rng.Float64()*n.cumulative[len(n.cumulative)-1])
	k := n.kernels[min(j, len(n.kernels)-1)]
	for range 64 { // at least a third of a kernel lies within the scale
		if u := k.mean + float64(k.width*rng.NormFloat64()); u >= 0 && u <= 1 {
			return n.param.FromUnit(u)
		}
	}
	return n.param.FromUnit(k.mean)
}

// normal is the cumulative distribution of the standard normal, exact to a double's precision below 1.
func normal(z float64) float64 {
	if z >= 9 {
		return 1
	}
	if z <= -9 {
		return 0
	}
	return 0.5 * math.Erfc(-z/math.Sqrt2)
}
