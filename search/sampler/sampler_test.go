package sampler

import (
	"errors"
	"strings"
	"testing"

	"github.com/espalier-ml/espalier/search"
	"github.com/espalier-ml/espalier/search/nsga2"
	"github.com/espalier-ml/espalier/search/problem"
	"github.com/espalier-ml/espalier/search/searchtest"
	"github.com/espalier-ml/espalier/search/tpe"
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

func TestAutoConformsAcrossItsHandover(t *testing.T) {
	searchtest.Conformance(t, func() search.Sampler {
		return auto{early: tpe.Sampler{}, late: nsga2.Sampler{}, handover: 25} // in the middle of a batch of the suite
	})
}

func TestAutoHandsOver(t *testing.T) {
	p, err := problem.Get("levels")
	if err != nil {
		t.Fatal(err)
	}
	a := newAuto().(auto)
	trials, err := searchtest.Search{Problem: p, Sampler: a, Seed: 1, Trials: a.handover}.Run()
	if err != nil {
		t.Fatal(err)
	}
	req := search.Request{Space: p.Space, Seed: 1, History: trials[:a.handover-1], First: a.handover - 1, N: 1, Objectives: 3}
	same := func(s search.Sampler) bool {
		got, err := a.Suggest(req)
		want, err2 := s.Suggest(req)
		return err == nil && err2 == nil && got[0].Equal(want[0])
	}
	if !same(a.early) || same(a.late) {
		t.Errorf("trial %d is not suggested by the early sampler", req.First)
	}
	req.History, req.First = trials, a.handover
	if same(a.early) || !same(a.late) {
		t.Errorf("trial %d is not suggested by the late sampler", req.First)
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
