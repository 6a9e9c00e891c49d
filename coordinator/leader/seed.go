package leader

import (
	"math"

	"github.com/espalier-ml/espalier/search"
)

// A job's first trials are a fixed design instead of the sampler's: each strategy in turn at one sparsity for all groups,
// from light to heavy. They give the sampler points along the whole front to start from; without them a short search
// spends its trials on unbalanced points. The random sampler gets none, so that it stays what its name says.

// seedLevels are the fractions kept by the design: of channels, and of weights.
var seedLevels = []struct{ channels, weights float64 }{
	{0.7, 0.25},
	{0.45, 0.1},
	{0.25, 0.04},
	{0.12, 0.02},
}

// seedCount is how many trials of a job that ends after trials (0: no such rule) the design takes: at most a third.
func (p *plan) seedCount(trials int32) int32 {
	n := int32(len(p.strategies) * len(seedLevels))
	if trials > 0 {
		n = min(n, trials/3)
	}
	return n
}

// Seed implements Plan.
func (p *plan) Seed(number int32) (search.Config, bool) {
	if number > p.seeds {
		return nil, false
	}
	i := int(number) - 1
	level := seedLevels[i/len(p.strategies)%len(seedLevels)]
	c := make(search.Config, len(p.space.Params))
	for j := range c {
		param := &p.space.Params[j]
		switch {
		case param.Name == paramStrategy:
			c[j] = float64(i % len(p.strategies))
		case param.Name == paramEpochs:
			c[j] = float64(len(param.Choices) - 1)
		case len(param.Name) > len(paramChannels) && param.Name[:len(paramChannels)] == paramChannels:
			c[j] = 1 - level.channels
		case param.Kind == search.Choice:
			c[j] = 0
		case param.Name == paramKeepHybrid:
			c[j] = math.Sqrt(level.weights)
		case param.Name == paramRate:
			c[j] = param.FromUnit(0.5)
		default:
			c[j] = level.weights
		}
	}
	return p.space.Repair(c), true
}
