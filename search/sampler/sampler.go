// Package sampler lists the search algorithms by name.
package sampler

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/espalier-ml/espalier/search"
	"github.com/espalier-ml/espalier/search/nsga2"
	"github.com/espalier-ml/espalier/search/random"
	"github.com/espalier-ml/espalier/search/tpe"
)

// ErrUnknown marks a name that no sampler has.
var ErrUnknown = errors.New("unknown sampler")

// Auto is the name of the choice made for a user who makes none.
const Auto = "auto"

// Info describes one sampler.
type Info struct {
	Name string
	// About is one line on what it does and where it comes from.
	About string
}

var table = []struct {
	Info
	make func() search.Sampler
}{
	{Info{Auto, "tpe for the first 200 trials, nsga2 beyond"}, newAuto},
	{Info{"nsga2", "genetic algorithm with non-dominated sorting and crowding (Deb et al. 2002), steady state"}, func() search.Sampler { return nsga2.Sampler{} }},
	{Info{"tpe", "densities around good and other trials, parameter by parameter (Bergstra et al. 2011, Ozaki et al. 2022)"}, func() search.Sampler { return tpe.Sampler{} }},
	{Info{"random", "even draws along each parameter's scale"}, func() search.Sampler { return random.Sampler{} }},
}

// New returns the named sampler with its default settings; "" is auto. The sampler may be used from many goroutines. An
// unknown name is an ErrUnknown that lists those known.
func New(name string) (search.Sampler, error) {
	if name == "" {
		name = Auto
	}
	for _, e := range table {
		if e.Name == name {
			return e.make(), nil
		}
	}
	return nil, fmt.Errorf("%w %q: it must be one of %s", ErrUnknown, name, strings.Join(Names(), ", "))
}

// List describes all samplers, auto first.
func List() []Info {
	out := make([]Info, len(table))
	for i, e := range table {
		out[i] = e.Info
	}
	return out
}

// Names returns the names that New accepts, auto first.
func Names() []string {
	names := make([]string, len(table))
	for i, e := range table {
		names[i] = e.Name
	}
	return slices.Clip(names)
}
