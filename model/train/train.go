package train

import (
	"context"
	"fmt"
	"math"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/data"
	"github.com/espalier-ml/espalier/model/kernel"
)

// Result is how a training went.
type Result struct {
	Steps     int
	Epochs    float64
	Loss      float64   // mean of the last epoch, or of the part of it that was run
	Losses    []float64 // mean of each epoch
	Scores    []float64 // of Options.Evaluate, one per evaluation
	BestScore float64   // the highest of Scores
	Stopped   bool      // before its time, by Patience or AfterEpoch
}

// Train trains g in place on the batches of src. A Softmax at the end of the
// graph is left out of the network while training with CrossEntropy, which has
// its own. Batch normalisation uses the statistics of each batch and moves the
// running ones.
//
// Errors wrap one of the package's sentinels, ctx's error, or that of a
// function in o. Whenever Train returns, g holds the weights of the last whole
// step (or the best, with KeepBest), except after ErrDiverged, when g still
// holds what it held before, or at the last evaluation.
func Train(ctx context.Context, g *model.Graph, src Source, o Options) (Result, error) {
	if err := o.Validate(); err != nil {
		return Result{}, err
	}
	t, err := newTraining(ctx, g, src, o.withDefaults())
	if err != nil {
		return Result{}, err
	}
	defer t.team.close()
	for epoch := 0; t.p.Step < t.p.Steps && !t.res.Stopped && err == nil; epoch++ {
		err = t.epoch(epoch)
	}
	return t.finish(err)
}

// training is the state of one call of Train.
type training struct {
	ctx   context.Context
	g     *model.Graph
	src   Source
	o     Options
	out   int // layer whose output the loss takes
	par   *params
	team  *team
	opt   *optimizer
	masks masks
	nets  map[int]*net // by batch size
	draw  uint64       // number of the current step, for dropout

	p        Progress
	res      Result
	sum      float64 // of the losses of the current epoch
	count    int
	best     []float32
	bestStat map[int]map[string][]float32
	worse    int // evaluations since the best
}

func newTraining(ctx context.Context, g *model.Graph, src Source, o Options) (*training, error) {
	if err := g.Validate(); err != nil {
		return nil, err
	}
	if err := g.WantFloat(); err != nil {
		return nil, err
	}
	if err := kernel.Check(); err != nil {
		return nil, err
	}
	if err := checkMasks(o.Masks, g); err != nil {
		return nil, err
	}
	if src.Steps() < 1 {
		return nil, fmt.Errorf("%w: no batches", ErrData)
	}
	t := &training{ctx: ctx, g: g, src: src, o: o, out: len(g.Layers) - 1, nets: map[int]*net{}}
	if _, ok := g.Layers[t.out].Op.(model.Softmax); ok && o.Loss == CrossEntropy {
		if t.out = g.Layers[t.out].Inputs[0]; t.out == model.Input {
			return nil, fmt.Errorf("%w: %q has no layer with weights", ErrGraph, g.Name)
		}
	}
	if err := checkOutput(g, t.out, o.Loss); err != nil {
		return nil, err
	}
	t.p.Steps = o.Steps
	if o.Steps == 0 {
		t.p.Steps = max(1, int(math.Round(o.Epochs*float64(src.Steps()))))
	}
	t.par = newParams(g)
	t.masks.p = t.par
	t.masks.set(o.Masks)
	t.masks.apply(t.par.w)
	t.team = newTeam(min(o.Threads, maxLanes))
	t.opt = newOptimizer(&t.o, t.par, t.team)
	t.p.BestScore = math.Inf(-1)
	return t, nil
}

func checkOutput(g *model.Graph, out int, l Loss) error {
	shapes, err := g.Shapes()
	if err != nil {
		return err
	}
	s := shapes[out]
	if l == MeanSquares && s.Elements() != g.Input.Elements() {
		return fmt.Errorf("%w: output %v with loss %s: want as many elements as the input %v", ErrGraph, []int(s), l, []int(g.Input))
	}
	if l == CrossEntropy && len(s) != 1 {
		return fmt.Errorf("%w: output %v with loss %s: want {classes}", ErrGraph, []int(s), l)
	}
	return nil
}

// epoch runs the batches of one epoch, or as many as are left.
func (t *training) epoch(epoch int) error {
	t.sum, t.count = 0, 0
	seen := 0
	for b := range t.src.Epoch(epoch) {
		if err := t.step(b); err != nil {
			return err
		}
		seen++
		if t.p.Step == t.p.Steps {
			break
		}
	}
	if seen == 0 {
		return fmt.Errorf("%w: epoch %d has no batches", ErrData, epoch)
	}
	t.res.Losses = append(t.res.Losses, t.p.MeanLoss)
	if err := t.evaluate(); err != nil {
		return err
	}
	if t.o.AfterEpoch == nil || seen < t.src.Steps() {
		return nil
	}
	t.par.store()
	stop, err := t.o.AfterEpoch(t.ctx, t.p, t.g)
	t.res.Stopped = t.res.Stopped || stop && t.p.Step < t.p.Steps
	return err
}

// step trains on one batch.
func (t *training) step(b *data.Batch) error {
	if err := t.ctx.Err(); err != nil {
		return err
	}
	if t.o.Gate != nil {
		if err := t.o.Gate(t.ctx); err != nil {
			return err
		}
	}
	if err := t.before(); err != nil {
		return err
	}
	q, err := t.net(b)
	if err != nil {
		return err
	}
	if err := t.load(q, b); err != nil {
		return err
	}
	loss, err := q.step(b.Inputs)
	if err != nil {
		return err
	}
	if !finite(loss) {
		return fmt.Errorf("%w: loss %v at step %d of %d", ErrDiverged, loss, t.p.Step, t.p.Steps)
	}
	t.masks.apply(t.par.g)
	t.p.Rate = t.o.Rate * t.o.Schedule.factor(t.p.Step, t.p.Steps)
	norm, err := t.opt.step(t.p.Rate)
	if err != nil {
		return err
	}
	if !finite(norm) {
		return fmt.Errorf("%w: norm %v of the gradient at step %d of %d", ErrDiverged, norm, t.p.Step, t.p.Steps)
	}
	t.sum += loss
	t.count++
	t.p.Step++
	t.p.Epoch = float64(t.p.Step) / float64(t.src.Steps())
	t.p.Loss, t.p.MeanLoss = loss, t.sum/float64(t.count)
	if t.o.OnProgress != nil {
		t.o.OnProgress(t.p)
	}
	return nil
}

// before calls Options.BeforeStep and takes over what it changed.
func (t *training) before() error {
	if t.o.BeforeStep == nil {
		return nil
	}
	t.par.store()
	changed, err := t.o.BeforeStep(t.p.Step, t.p.Steps, t.g)
	if err != nil || !changed {
		return err
	}
	if err := checkMasks(t.o.Masks, t.g); err != nil {
		return err
	}
	t.par.load()
	t.masks.set(t.o.Masks)
	for _, v := range [][]float32{t.par.w, t.opt.m, t.opt.v} {
		if v != nil {
			t.masks.apply(v)
		}
	}
	return nil
}

// net gives the network for the size of b.
func (t *training) net(b *data.Batch) (*net, error) {
	n, size := len(b.Labels), t.g.Input.Elements()
	if n == 0 || len(b.Inputs) != n*size {
		return nil, fmt.Errorf("%w: batch of %d values for %d examples: want %d each", ErrData, len(b.Inputs), n, size)
	}
	if q := t.nets[n]; q != nil {
		return q, nil
	}
	q, err := newNet(t.g, t.out, t.par, t.team, n, &t.o, &t.draw)
	if err != nil {
		return nil, err
	}
	t.nets[n] = q
	return q, nil
}

// load gives the loss what it needs of a batch.
func (t *training) load(q *net, b *data.Batch) error {
	t.draw = uint64(t.p.Step)
	copy(q.loss.labels, b.Labels)
	q.loss.target = b.Inputs
	if q.loss.teacher == nil {
		return nil
	}
	if err := t.o.Teacher(b.Inputs, q.n, q.loss.teacher); err != nil {
		return fmt.Errorf("ask teacher: %w", err)
	}
	return nil
}

// evaluate scores the graph and looks for the end of progress.
func (t *training) evaluate() error {
	if t.o.Evaluate == nil {
		return nil
	}
	t.par.store()
	score, err := t.o.Evaluate(t.ctx, t.g)
	if err != nil {
		return fmt.Errorf("evaluate: %w", err)
	}
	t.res.Scores = append(t.res.Scores, score)
	t.p.Score = score
	if score > t.p.BestScore {
		t.p.BestScore, t.worse = score, 0
		if t.o.KeepBest {
			t.keep()
		}
		return nil
	}
	t.worse++
	t.res.Stopped = t.o.Patience > 0 && t.worse >= t.o.Patience && t.p.Step < t.p.Steps
	return nil
}

// keep remembers the current weights as the best.
func (t *training) keep() {
	t.best = append(t.best[:0], t.par.w...)
	t.bestStat = map[int]map[string][]float32{}
	for i, m := range t.par.state {
		t.bestStat[i] = map[string][]float32{}
		for n, v := range m {
			t.bestStat[i][n] = append([]float32(nil), v...)
		}
	}
}

// finish writes the weights back to the graph.
func (t *training) finish(err error) (Result, error) {
	t.res.Steps, t.res.Epochs, t.res.Loss = t.p.Step, t.p.Epoch, t.p.MeanLoss
	if len(t.res.Scores) > 0 {
		t.res.BestScore = t.p.BestScore
	}
	if err != nil && isDiverged(err) {
		return t.res, err
	}
	if t.best != nil {
		copy(t.par.w, t.best)
		for i, m := range t.bestStat {
			for n, v := range m {
				copy(t.par.state[i][n], v)
			}
		}
	}
	t.par.store()
	return t.res, err
}
