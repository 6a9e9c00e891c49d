// Package random suggests configurations drawn evenly from the space.
package random

import (
	"math/rand/v2"

	"github.com/espalier-ml/espalier/search"
)

// Sampler draws every parameter evenly along its scale and refuses duplicates. Its zero value is ready.
type Sampler struct{}

var _ search.Sampler = Sampler{}

// Suggest implements search.Sampler.
func (Sampler) Suggest(req search.Request) ([]search.Config, error) {
	if err := req.Validate(); err != nil {
		return nil, err
	}
	return req.Collect(func(int, *rand.Rand, []search.Trial) func() search.Config { return nil })
}
