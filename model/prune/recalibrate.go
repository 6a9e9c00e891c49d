package prune

import (
	"fmt"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/infer"
)

// Recalibrate returns a copy of g in which every batch normalisation's running mean and
// variance are those of the examples in x, one after the other as the graph's input, in
// the order of the layers. After channels or weights went, statistics of the whole
// network no longer fit; with fresh ones the accuracy before any training says what the
// removal costs (Li et al. 2020, EagleEye, arXiv:2007.02491). A graph without batch
// normalisation comes back as it is. Errors wrap ErrWeights, or are the graph's or the
// runtime's.
func Recalibrate(g *model.Graph, x []float32) (*model.Graph, error) {
	if err := g.Validate(); err != nil {
		return nil, err
	}
	size := g.Input.Elements()
	if n := len(x); n == 0 || n%size != 0 {
		return nil, fmt.Errorf("%w: %d values of calibration: want a multiple of %d", ErrWeights, n, size)
	}
	shapes, err := g.Shapes()
	if err != nil {
		return nil, err
	}
	g = g.Clone()
	for i := range g.Layers {
		l := &g.Layers[i]
		if _, ok := l.Op.(model.BatchNorm); !ok {
			continue
		}
		s := g.InputShapes(i, shapes)[0]
		m := moments{sum: make([]float64, s[len(s)-1]), squares: make([]float64, s[len(s)-1])}
		if err := outputs(g, l.Inputs[0], x, m.add); err != nil {
			return nil, fmt.Errorf("recalibrate layer %q: %w", l.Name, err)
		}
		m.write(l.Params[model.Mean].Data, l.Params[model.Variance].Data)
	}
	return g, nil
}

// calibrationBatch is the number of examples run at once.
const calibrationBatch = 32

// outputs runs the examples up to layer j and hands out what it gives, in pieces.
func outputs(g *model.Graph, j int, x []float32, visit func([]float32)) error {
	if j == model.Input {
		visit(x)
		return nil
	}
	part, err := model.Simplify(&model.Graph{Input: g.Input, Layers: g.Layers[:j+1]})
	if err != nil {
		return err
	}
	size := g.Input.Elements()
	n := len(x) / size
	plan, err := infer.Compile(part, infer.Options{Batch: min(n, calibrationBatch)})
	if err != nil {
		return err
	}
	y := make([]float32, plan.Batch()*plan.OutputSize())
	for k := 0; k < n; k += plan.Batch() {
		b := min(plan.Batch(), n-k)
		if err := plan.Run(x[k*size:(k+b)*size], y[:b*plan.OutputSize()]); err != nil {
			return err
		}
		visit(y[:b*plan.OutputSize()])
	}
	return nil
}

// moments sums values and their squares by channel.
type moments struct {
	n            int
	sum, squares []float64
}

func (m *moments) add(y []float32) {
	c := len(m.sum)
	m.n += len(y) / c
	for i, v := range y {
		m.sum[i%c] += float64(v)
		m.squares[i%c] += float64(v) * float64(v)
	}
}

func (m *moments) write(mean, variance []float32) {
	for c := range m.sum {
		mu := m.sum[c] / float64(m.n)
		mean[c] = float32(mu)
		variance[c] = float32(max(m.squares[c]/float64(m.n)-mu*mu, 0))
	}
}
