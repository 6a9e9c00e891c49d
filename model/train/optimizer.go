package train

import (
	"math"

	"github.com/espalier-ml/espalier/model/kernel"
)

// optimizer changes the parameters by their gradients, fused in one loop per
// run of parameters that are treated alike.
type optimizer struct {
	o    *Options
	p    *params
	runs []run
	m, v []float32 // first and second moments; v is nil for SGD
	t    int       // steps done
	team *team

	// of the current step
	rate, scale float64
	sums        []float64
}

// run is a part of the flat vector with the same decay.
type run struct {
	from, to int
	weight   bool
}

// runLength bounds a run, so that threads can share the work.
const runLength = 1 << 15

func newOptimizer(o *Options, p *params, t *team) *optimizer {
	q := &optimizer{o: o, p: p, m: make([]float32, len(p.w)), team: t}
	if o.Optimizer != SGD {
		q.v = make([]float32, len(p.w))
	}
	plain := o.WeightDecay == 0 && o.L1 == 0 // weights and the others are treated alike
	for _, s := range p.spans {
		to := s.off + (s.len+align-1)/align*align
		weight := s.weight && !plain
		for from := s.off; from < to; {
			last := len(q.runs) - 1
			if last >= 0 && q.runs[last].weight == weight && q.runs[last].to == from && from-q.runs[last].from < runLength {
				end := min(to, q.runs[last].from+runLength)
				q.runs[last].to, from = end, end
				continue
			}
			end := min(to, from+runLength)
			q.runs = append(q.runs, run{from, end, weight})
			from = end
		}
	}
	q.sums = make([]float64, len(q.runs))
	return q
}

// step takes one step with the given learning rate. It returns the norm of the
// gradient when clipping, else 0.
func (q *optimizer) step(rate float64) (norm float64, err error) {
	q.t++
	q.rate, q.scale = rate, 1
	if q.o.Clip > 0 {
		if norm, err = q.norm(); err != nil {
			return 0, err
		}
		if norm > q.o.Clip {
			q.scale = q.o.Clip / norm
		}
		if !finite(norm) {
			return norm, nil
		}
	}
	return norm, q.team.run(len(q.runs), q)
}

// norm is that of the whole gradient. Runs are summed on their own and then in
// order.
func (q *optimizer) norm() (float64, error) {
	if err := q.team.run(len(q.runs), (*squares)(q)); err != nil {
		return 0, err
	}
	var sum float64
	for _, s := range q.sums {
		sum += s
	}
	return math.Sqrt(sum), nil
}

type squares optimizer

func (q *squares) do(_ *worker, i int) error {
	var s float64
	for _, v := range q.p.g[q.runs[i].from:q.runs[i].to] {
		s += float64(v) * float64(v)
	}
	q.sums[i] = s
	return nil
}

// do updates one run.
func (q *optimizer) do(w *worker, i int) error {
	r := q.runs[i]
	ws, g, m := q.p.w[r.from:r.to], q.p.g[r.from:r.to], q.m[r.from:r.to]
	var decay, l1 float64
	if r.weight {
		decay, l1 = q.o.WeightDecay, q.o.L1
	}
	if q.o.Optimizer == SGD {
		return kernel.SGD(&w.s, ws, m, g, kernel.SGDStep{Rate: q.rate, Momentum: q.o.Momentum, Nesterov: q.o.Nesterov,
			Decay: decay, L1: l1, GradScale: q.scale})
	}
	return kernel.Adam(&w.s, ws, m, q.v[r.from:r.to], g, kernel.AdamStep{Rate: q.rate, Decay: decay,
		Decoupled: q.o.Optimizer == AdamW, L1: l1, GradScale: q.scale, Step: q.t})
}
