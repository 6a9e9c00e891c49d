package sim

import (
	"context"
	"strings"

	"github.com/espalier-ml/espalier/search"
	"github.com/espalier-ml/espalier/search/problem"
)

// known is a problem with a known front.
type known struct{ problem.Problem }

func (k known) Space() search.Space                         { return k.Problem.Space }
func (k known) Reference() []float64                        { return k.Problem.Reference }
func (k known) Evaluate(c search.Config) ([]float64, error) { return k.Problem.Evaluate(c), nil }

// OpenProblem finds a problem by name: one of package problem, or "exec:COMMAND" for an external program (see Exec). Close
// ends the program.
func OpenProblem(ctx context.Context, name string) (p Problem, close func() error, err error) {
	if command, ok := strings.CutPrefix(name, "exec:"); ok {
		e, err := StartExec(ctx, command)
		if err != nil {
			return nil, nil, err
		}
		return e, e.Close, nil
	}
	k, err := problem.Get(name)
	if err != nil {
		return nil, nil, err
	}
	return known{k}, func() error { return nil }, nil
}
