package infer

import (
	"context"
	"fmt"
	"math"
	"sync"

	"github.com/espalier-ml/espalier/model"
)

// Examples gives labelled examples; *data.Set is one. Batch must be safe for
// concurrent use.
type Examples interface {
	// Batch writes the examples of the given indices, channels last and one
	// after the other, to x, and their classes to labels.
	Batch(x []float32, labels []int32, indices []int32)
}

// EvaluateOptions says how to evaluate. The zero value is one thread without a
// gate.
type EvaluateOptions struct {
	Threads int                             // goroutines; 0 means 1
	Gate    func(ctx context.Context) error // called before every batch; it may block, its error ends the evaluation
}

// Score is how well a graph does on some examples.
type Score struct {
	Accuracy float64 // fraction of examples whose class has the highest output, the lowest index among equals
	Loss     float64 // mean cross-entropy; of probabilities when the graph ends in Softmax, else of logits
	Correct  int
	Examples int
}

// evaluateBatch is the number of examples of one task of Evaluate. It is fixed,
// so that the sum of the losses is the same for any number of threads.
const evaluateBatch = 64

// Evaluate runs g over the examples listed in indices.
func Evaluate(ctx context.Context, g *model.Graph, src Examples, indices []int32, o EvaluateOptions) (Score, error) {
	if o.Threads < 0 || o.Threads > 1024 {
		return Score{}, fmt.Errorf("%w: threads %d: want 1 to 1024", ErrOptions, o.Threads)
	}
	if len(indices) == 0 {
		return Score{}, fmt.Errorf("%w: no examples to evaluate", ErrLength)
	}
	e := &evaluation{ctx: ctx, src: src, indices: indices, gate: o.Gate}
	if err := e.check(g); err != nil {
		return Score{}, err
	}
	tasks := (len(indices) + evaluateBatch - 1) / evaluateBatch
	e.losses, e.correct = make([]float64, tasks), make([]int, tasks)
	threads := min(max(1, o.Threads), tasks)
	errs := make([]error, threads)
	var wg sync.WaitGroup
	for i := range threads {
		plan, err := Compile(g, Options{Batch: evaluateBatch})
		if err != nil {
			return Score{}, err
		}
		wg.Go(func() { errs[i] = e.run(plan, i, threads) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return Score{}, err
		}
	}
	s := Score{Examples: len(indices)}
	for i, l := range e.losses {
		s.Loss += l / float64(len(indices))
		s.Correct += e.correct[i]
	}
	s.Accuracy = float64(s.Correct) / float64(s.Examples)
	return s, nil
}

type evaluation struct {
	ctx     context.Context
	src     Examples
	indices []int32
	gate    func(context.Context) error
	softmax bool // the graph gives probabilities

	losses  []float64 // by task
	correct []int
}

func (e *evaluation) check(g *model.Graph) error {
	if err := g.Validate(); err != nil {
		return err
	}
	shapes, err := g.Shapes()
	if err != nil {
		return err
	}
	last := len(g.Layers) - 1
	if len(shapes[last]) != 1 {
		return fmt.Errorf("%w: accuracy of an output of %v: want {classes}", ErrOutput, []int(shapes[last]))
	}
	_, e.softmax = g.Layers[last].Op.(model.Softmax)
	return nil
}

// run does every step-th task from first on.
func (e *evaluation) run(p *Plan, first, step int) error {
	in, out := p.InputSize(), p.OutputSize()
	x, y := make([]float32, evaluateBatch*in), make([]float32, evaluateBatch*out)
	labels := make([]int32, evaluateBatch)
	for t := first; t < len(e.losses); t += step {
		if err := e.ctx.Err(); err != nil {
			return err
		}
		if e.gate != nil {
			if err := e.gate(e.ctx); err != nil {
				return err
			}
		}
		batch := e.indices[t*evaluateBatch : min((t+1)*evaluateBatch, len(e.indices))]
		n := len(batch)
		e.src.Batch(x[:n*in], labels[:n], batch)
		if err := p.Run(x[:n*in], y[:n*out]); err != nil {
			return err
		}
		for i, l := range labels[:n] {
			if l < 0 || int(l) >= out {
				return fmt.Errorf("%w: label %d with %d outputs", ErrOutput, l, out)
			}
			loss, hit := e.score(y[i*out:(i+1)*out], int(l))
			e.losses[t] += loss
			if hit {
				e.correct[t]++
			}
		}
	}
	return nil
}

// score gives the loss of one result and whether its class is right.
func (e *evaluation) score(y []float32, label int) (loss float64, hit bool) {
	best := 0
	for i, v := range y {
		if v > y[best] {
			best = i
		}
	}
	hit = best == label && y[best] == y[best]
	if e.softmax {
		return -math.Log(max(float64(y[label]), math.SmallestNonzeroFloat32)), hit
	}
	var sum float64
	for _, v := range y {
		sum += math.Exp(float64(v) - float64(y[best]))
	}
	return math.Log(sum) + float64(y[best]) - float64(y[label]), hit
}

// Teacher gives a function that writes the logits of g for the n examples in x,
// as training by distillation wants it: without a Softmax at the end. It keeps
// a plan, and is for one goroutine at a time.
func Teacher(g *model.Graph) (func(x []float32, n int, logits []float32) error, error) {
	last := len(g.Layers) - 1
	if last > 0 {
		if _, ok := g.Layers[last].Op.(model.Softmax); ok && g.Layers[last].Inputs[0] == last-1 {
			short := *g
			short.Layers = g.Layers[:last]
			g = &short
		}
	}
	plan, err := Compile(g, Options{Batch: teacherBatch})
	if err != nil {
		return nil, err
	}
	return func(x []float32, n int, logits []float32) error {
		in, out := plan.InputSize(), plan.OutputSize()
		if len(x) != n*in || len(logits) != n*out {
			return fmt.Errorf("%w: %d in and %d out for %d examples: want %d and %d", ErrLength, len(x), len(logits), n, n*in, n*out)
		}
		for from := 0; from < n; from += teacherBatch {
			to := min(n, from+teacherBatch)
			if err := plan.Run(x[from*in:to*in], logits[from*out:to*out]); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

// teacherBatch is the batch of a teacher's plan.
const teacherBatch = 64
