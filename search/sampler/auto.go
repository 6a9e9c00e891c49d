package sampler

import (
	"errors"

	"github.com/espalier-ml/espalier/search"
	"github.com/espalier-ml/espalier/search/nsga2"
	"github.com/espalier-ml/espalier/search/tpe"
)

// auto hands over from one sampler to another. On problems with known fronts tpe leads while there are few trials; later
// nsga2 goes on improving and costs less. Both learn from all trials, whoever suggested them.
type auto struct {
	early, late search.Sampler
	// handover is the number of the first trial of the late sampler.
	handover int
}

func newAuto() search.Sampler {
	return auto{early: tpe.Sampler{}, late: nsga2.Sampler{}, handover: 200}
}

// Suggest implements search.Sampler.
func (a auto) Suggest(req search.Request) ([]search.Config, error) {
	early := min(max(a.handover-req.First, 0), max(req.N, 0))
	if early == 0 {
		return a.late.Suggest(req)
	}
	first := req
	first.N = early
	configs, err := a.early.Suggest(first)
	if err != nil || early == req.N {
		return configs, err
	}
	req.Pending = append(make([]search.Trial, 0, len(req.Pending)+early), req.Pending...)
	for i, c := range configs {
		req.Pending = append(req.Pending, search.Trial{Number: req.First + i, Config: c})
	}
	req.First, req.N = req.First+early, req.N-early
	rest, err := a.late.Suggest(req)
	if errors.Is(err, search.ErrExhausted) { // the early ones were the last
		return configs, nil
	}
	return append(configs, rest...), err
}
