package train

import (
	"fmt"

	"github.com/espalier-ml/espalier/model"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// net is the network for one batch size, as a Gorgonia graph of blocks.
type net struct {
	n, in  int
	blocks []*block
	loss   *loss
	value  float64 // of the loss, after a step

	x      *gorgonia.Node
	vm     *machine
	inputs map[*float32]*tensor.Dense // one per buffer that batches come in
}

// newNet builds the network from the layers up to out.
func newNet(g *model.Graph, out int, p *params, t *team, n int, o *Options, step *uint64) (_ *net, err error) {
	defer recovered(&err)
	shapes, err := g.Shapes()
	if err != nil {
		return nil, err
	}
	segs, live, err := segments(g, out)
	if err != nil {
		return nil, err
	}
	q := &net{n: n, in: g.Input.Elements(), inputs: map[*float32]*tensor.Dense{}}
	c := &builder{g: g, shapes: shapes, uses: liveUses(g, live), live: live, p: p, team: t, n: n, seed: o.Seed, step: step}
	v := &value{size: q.in}
	for _, s := range segs {
		b, err := c.block(s, v)
		if err != nil {
			return nil, err
		}
		q.blocks = append(q.blocks, b)
		v = b.out
	}
	q.loss = newLoss(n, v.size, o)
	return q, q.connect(p)
}

// liveUses is Graph.Consumers without the layers that the output does not need.
func liveUses(g *model.Graph, live []bool) [][]int {
	uses := g.Consumers()
	for i, u := range uses {
		kept := u[:0]
		for _, j := range u {
			if live[j] {
				kept = append(kept, j)
			}
		}
		uses[i] = kept
	}
	return uses
}

// connect makes the Gorgonia graph: one operator per block, the loss, and the
// gradients with respect to each block's parameters.
func (q *net) connect(p *params) error {
	eg := gorgonia.NewGraph()
	q.x = gorgonia.NewTensor(eg, tensor.Float32, 2, gorgonia.WithShape(q.n, q.in), gorgonia.WithName("input"))
	h := q.x
	var weights gorgonia.Nodes
	for i, b := range q.blocks {
		w := gorgonia.NewTensor(eg, tensor.Float32, 1, gorgonia.WithShape(b.to-b.from), gorgonia.WithName(fmt.Sprintf("%s.parameters", b.name)),
			gorgonia.WithValue(dense32(p.w[b.from:b.to], b.to-b.from)))
		weights = append(weights, w)
		var err error
		if h, err = gorgonia.ApplyOp(q.blockOperator(b, p, i > 0), h, w); err != nil {
			return fmt.Errorf("%w: block %q: %w", ErrOperator, b.name, err)
		}
	}
	cost, err := gorgonia.ApplyOp(q.lossOperator(), h)
	if err != nil {
		return fmt.Errorf("%w: loss: %w", ErrOperator, err)
	}
	if _, err := gorgonia.Grad(cost, weights...); err != nil {
		return fmt.Errorf("%w: gradients: %w", ErrOperator, err)
	}
	if q.vm, err = newMachine(eg); err != nil {
		return fmt.Errorf("%w: machine: %w", ErrOperator, err)
	}
	return nil
}

// blockOperator computes a block. Its gradient is one operator that gives the
// gradient of the block's input and also writes those of the parameters, which
// another operator, after it, returns. The first block's input needs none.
func (q *net) blockOperator(b *block, p *params, inner bool) gorgonia.Op {
	forward := newOperator(b.name, []int{2, 1}, dense32(b.out.data, q.n, b.out.size), func(in []gorgonia.Value) error {
		b.in.data = floats(in[0])
		return b.forward()
	})
	grads := dense32(p.g[b.from:b.to], b.to-b.from)
	backward := func(in []gorgonia.Value) error {
		b.out.grad = floats(in[0])
		return b.backward()
	}
	diff := func(in gorgonia.Nodes, out, grad *gorgonia.Node) (gorgonia.Nodes, error) {
		if !inner {
			n, err := gorgonia.ApplyOp(newOperator(b.name+".gradient", []int{2, 2, 2}, grads, backward), grad, in[0], out)
			return gorgonia.Nodes{nil, n}, err
		}
		dx, err := gorgonia.ApplyOp(newOperator(b.name+".gradient", []int{2, 2, 2}, dense32(b.in.grad, q.n, b.in.size), backward), grad, in[0], out)
		if err != nil {
			return nil, err
		}
		dw, err := gorgonia.ApplyOp(newOperator(b.name+".parameters.gradient", []int{2}, grads, func([]gorgonia.Value) error { return nil }), dx)
		return gorgonia.Nodes{dx, dw}, err
	}
	return &differentiable{forward, []bool{inner, true}, diff}
}

// lossOperator computes the loss with its gradient, which the operator of the
// gradient only returns.
func (q *net) lossOperator() gorgonia.Op {
	l := q.loss
	value := gorgonia.NewF32(0)
	forward := newOperator("loss", []int{2}, value, func(in []gorgonia.Value) (err error) {
		q.value, err = l.compute(floats(in[0]))
		*value = gorgonia.F32(q.value)
		return err
	})
	grad := dense32(l.grad, l.n, l.c)
	diff := func(in gorgonia.Nodes, out, _ *gorgonia.Node) (gorgonia.Nodes, error) {
		n, err := gorgonia.ApplyOp(newOperator("loss.gradient", []int{0}, grad, func([]gorgonia.Value) error { return nil }), out)
		return gorgonia.Nodes{n}, err
	}
	return &differentiable{forward, []bool{true}, diff}
}

// maxInputs bounds the buffers that a net remembers; loaders have a handful.
const maxInputs = 32

// step runs the network forward and backward. It leaves the gradients in the
// flat vector and returns the loss.
func (q *net) step(x []float32) (float64, error) {
	t := q.inputs[&x[0]]
	if t == nil || len(t.Float32s()) != len(x) {
		if len(q.inputs) >= maxInputs {
			clear(q.inputs)
		}
		t = dense32(x, q.n, q.in)
		q.inputs[&x[0]] = t
	}
	if err := gorgonia.Let(q.x, t); err != nil {
		return 0, fmt.Errorf("%w: input: %w", ErrOperator, err)
	}
	err := q.vm.RunAll()
	return q.value, err
}
