package random_test

import (
	"testing"

	"github.com/espalier-ml/espalier/search"
	"github.com/espalier-ml/espalier/search/random"
	"github.com/espalier-ml/espalier/search/searchtest"
)

func TestConformance(t *testing.T) {
	searchtest.Conformance(t, func() search.Sampler { return random.Sampler{} })
}
