package sampler

import (
	"errors"
	"strings"
	"testing"

	"github.com/espalier-ml/espalier/search"
	"github.com/espalier-ml/espalier/search/searchtest"
)

func TestEverySamplerConforms(t *testing.T) {
	for i, info := range List() {
		if info.About == "" || Names()[i] != info.Name {
			t.Errorf("entry %d is %+v, named %q", i, info, Names()[i])
		}
		t.Run(info.Name, func(t *testing.T) {
			t.Parallel()
			searchtest.Conformance(t, func() search.Sampler {
				s, err := New(info.Name)
				if err != nil {
					t.Fatal(err)
				}
				return s
			})
		})
	}
}

func TestNew(t *testing.T) {
	if _, err := New(""); err != nil {
		t.Errorf("no name: %v", err)
	}
	if _, err := New("grid"); !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), `"grid": it must be one of auto, `) {
		t.Errorf("unknown name: %v", err)
	}
}
