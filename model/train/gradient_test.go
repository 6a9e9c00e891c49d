package train

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/modeltest"
)

// checkGradients compares loss and gradients of one step with the float64
// reference and its central differences.
func checkGradients(t *testing.T, g *model.Graph, n int, o Options, seed uint64) {
	t.Helper()
	o = o.withDefaults()
	r := rand.New(rand.NewPCG(seed, 1))
	out := len(g.Layers) - 1
	if _, ok := g.Layers[out].Op.(model.Softmax); ok && o.Loss == CrossEntropy {
		out = g.Layers[out].Inputs[0]
	}
	par, tm := newParams(g), newTeam(2)
	defer tm.close()
	step := uint64(3)
	q, err := newNet(g, out, par, tm, n, &o, &step)
	if err != nil {
		t.Fatal(err)
	}
	x := make([]float32, n*g.Input.Elements())
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	for i := range q.loss.labels {
		q.loss.labels[i] = int32(r.IntN(q.loss.c))
	}
	q.loss.target = x
	var teacher []float64
	if o.Teacher != nil {
		for i := range q.loss.teacher {
			q.loss.teacher[i] = float32(r.NormFloat64())
		}
		teacher = wide(q.loss.teacher)
	}
	ref := newReference(g, out, n)
	ref.drop = dropOf(q)
	f := func() float64 { return refLoss(&o, ref.logits(wide(x)), wide(x), q.loss.labels, teacher, n) }
	want := f()
	got, err := q.step(x)
	if err != nil {
		t.Fatal(err)
	}
	if math.Abs(got-want) > 1e-4*(1+math.Abs(want)) {
		t.Errorf("loss %v: want %v", got, want)
	}
	compareGradients(t, g, par, ref, f, r)
	first := slices.Clone(par.g)
	if again, err := q.step(x); err != nil || again != got { // it finds buffers as the first step left them
		t.Errorf("second step: loss %v, %v: want %v as in the first", again, err, got)
	}
	if !sameBits(first, par.g) {
		t.Error("second step: gradients differ from the first's")
	}
}

// dropOf applies the choice of the net's dropout units.
func dropOf(q *net) func(layer, example int, y []float64) {
	return func(layer, example int, y []float64) {
		for _, b := range q.blocks {
			for _, u := range b.units {
				d, ok := u.(*dropout)
				if !ok || d.seed != mix(0)+uint64(layer) {
					continue
				}
				ones, kept := make([]float32, len(y)), make([]float32, len(y))
				for i := range ones {
					ones[i] = 1
				}
				if err := d.drop(&worker{}, kept, ones, example); err != nil {
					panic(err)
				}
				for i, k := range kept {
					y[i] *= float64(k)
				}
				return
			}
		}
	}
}

func compareGradients(t *testing.T, g *model.Graph, par *params, ref *reference, f func() float64, r *rand.Rand) {
	t.Helper()
	var largest float64
	for _, v := range par.g {
		largest = math.Max(largest, math.Abs(float64(v)))
	}
	for _, s := range par.spans {
		p := ref.params[key(s.layer, s.name)]
		got := par.g[s.off : s.off+s.len]
		for range min(6, s.len) {
			k := r.IntN(s.len)
			const h = 1e-5
			old := p[k]
			p[k] = old + h
			up := f()
			p[k] = old - h
			down := f()
			p[k] = old
			want := (up - down) / (2 * h)
			if d := math.Abs(float64(got[k]) - want); d > 2e-3*math.Abs(want)+2e-4*largest+1e-6 || math.IsNaN(d) {
				t.Errorf("layer %q %s[%d]: gradient %v: want %v", g.Layers[s.layer].Name, s.name, k, got[k], want)
			}
		}
	}
}

// chain is a graph of one layer after the other.
func chain(input model.Shape, ops ...model.Op) *model.Graph {
	g := &model.Graph{Name: "chain", Input: input}
	for i, op := range ops {
		g.Layers = append(g.Layers, model.Layer{Name: fmt.Sprint(i), Op: op, Inputs: []int{i - 1}})
	}
	modeltest.Fill(g, 5)
	return g
}

func convOp(out, k, stride, pad int) model.Conv {
	return model.Conv{Out: out, Kernel: [2]int{k, k}, Stride: [2]int{stride, stride}, Dilation: [2]int{1, 1},
		Pad: model.Pad2D{Top: pad, Left: pad, Bottom: pad, Right: pad}, Groups: 1, Bias: true}
}

func two(n int) [2]int { return [2]int{n, n} }

func TestGradients(t *testing.T) {
	image := model.Shape{9, 8, 3}
	relu := model.Activation{Func: model.ReLU}
	bn := model.BatchNorm{Epsilon: 1e-3, Momentum: 0.1}
	depthwise := convOp(3, 3, 1, 1)
	depthwise.Groups = 3
	grouped := convOp(6, 3, 2, 1)
	grouped.Groups = 3
	dilated := convOp(4, 2, 1, 1)
	dilated.Dilation = two(2)
	plain := convOp(4, 3, 1, 0)
	plain.Bias = false
	cases := map[string][]model.Op{
		"dense":           {model.Flatten{}, model.Dense{Out: 7, Bias: true}, relu, model.Dense{Out: 4}},
		"conv":            {convOp(5, 3, 1, 0), relu, convOp(4, 3, 2, 1), relu, model.Flatten{}, model.Dense{Out: 3, Bias: true}},
		"winograd":        {convOp(16, 3, 1, 1), relu, convOp(16, 3, 1, 1), relu, model.MaxPool{Kernel: two(2), Stride: two(2)}, convOp(20, 3, 1, 1), relu, model.Flatten{}, model.Dense{Out: 3}},
		"conv no bias":    {plain, plain, model.Flatten{}, model.Dense{Out: 3}},
		"depthwise":       {convOp(3, 1, 1, 0), depthwise, relu, convOp(3, 1, 1, 0), model.GlobalAvgPool{}, model.Dense{Out: 3}},
		"grouped":         {convOp(6, 1, 1, 0), grouped, relu, model.Flatten{}, model.Dense{Out: 3}},
		"dilated":         {convOp(4, 1, 1, 0), dilated, model.Flatten{}, model.Dense{Out: 3}},
		"max-pool":        {convOp(5, 3, 1, 1), relu, model.MaxPool{Kernel: two(2), Stride: two(2)}, convOp(4, 3, 1, 1), model.MaxPool{Kernel: two(3), Stride: two(2), Pad: model.Pad2D{Top: 1, Left: 1}}, model.Flatten{}, model.Dense{Out: 3}},
		"max-pool relu":   {convOp(5, 3, 1, 1), model.MaxPool{Kernel: two(2), Stride: two(2)}, relu, model.Flatten{}, model.Dense{Out: 3}},
		"avg-pool":        {convOp(5, 3, 1, 1), relu, model.AvgPool{Kernel: two(3), Stride: two(2), Pad: model.Pad2D{Top: 1, Right: 1}}, model.AvgPool{Kernel: two(2), Stride: two(1), Pad: model.Pad2D{Left: 1}, CountPad: true}, model.Flatten{}, model.Dense{Out: 3}},
		"batch-norm":      {convOp(4, 3, 1, 1), bn, relu, convOp(4, 3, 1, 1), bn, model.Flatten{}, model.Dense{Out: 5}, bn, relu, model.Dense{Out: 3}},
		"batch-norm last": {bn, convOp(4, 3, 2, 1), relu, bn, bn, model.GlobalAvgPool{}, model.Dense{Out: 3}, bn},
		"relu6":           {convOp(4, 3, 1, 0), model.Activation{Func: model.ReLU6}, model.MaxPool{Kernel: two(2), Stride: two(2)}, model.Activation{Func: model.ReLU6}, model.Flatten{}, model.Dense{Out: 3}},
		"functions": {convOp(4, 3, 1, 0), model.Activation{Func: model.LeakyReLU, Alpha: 0.1}, convOp(4, 1, 1, 0), model.Activation{Func: model.Sigmoid}, convOp(4, 1, 1, 0),
			model.Activation{Func: model.Tanh}, convOp(4, 1, 1, 0), model.Activation{Func: model.HardSwish}, model.Flatten{}, model.Dense{Out: 3}},
		"softmax":      {model.Flatten{}, model.Dense{Out: 6}, model.Softmax{}, model.Dense{Out: 3}, model.Softmax{}},
		"pad, dropout": {model.Pad{Pad: model.Pad2D{Top: 1, Left: 2}}, convOp(4, 3, 1, 0), model.Dropout{Rate: 0.3}, model.Pad{Pad: model.Pad2D{Bottom: 2, Right: 1}}, convOp(3, 3, 2, 0), relu, model.Flatten{}, model.Dropout{Rate: 0.5}, model.Dense{Out: 3}},
		"one output":   {model.Flatten{}, model.Dense{Out: 1}, model.Activation{Func: model.Tanh}, model.Dense{Out: 2}},
	}
	for name, ops := range cases {
		for _, n := range []int{1, 11} {
			t.Run(fmt.Sprint(name, "/", n), func(t *testing.T) { checkGradients(t, chain(image, ops...), n, Options{}, 7) })
		}
	}
}

func TestGradientsOfLosses(t *testing.T) {
	ops := []model.Op{model.Dense{Out: 6, Bias: true}, model.Activation{Func: model.Tanh}, model.Dense{Out: 4}}
	teacher := func([]float32, int, []float32) error { return nil }
	for name, o := range map[string]Options{
		"smoothed":              {LabelSmoothing: 0.2},
		"distilled":             {Teacher: teacher, TeacherWeight: 0.7, Temperature: 3},
		"distilled and smooth":  {Teacher: teacher, LabelSmoothing: 0.1},
		"distilled without own": {Teacher: teacher, TeacherWeight: 1, Temperature: 1},
		"mean squares":          {Loss: MeanSquares},
	} {
		t.Run(name, func(t *testing.T) { checkGradients(t, chain(model.Shape{4}, ops...), 6, o, 9) })
	}
}

func TestGradientsOfRandomGraphs(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			checkGradients(t, modeltest.Graph(seed), 1+int(seed%7), Options{}, seed)
		})
	}
}

// residuals are graphs in which gradients of additions share a place or may not,
// and in which values are computed again from one, two or more kept ones.
func residuals() map[string]*model.Graph {
	bn, relu := model.BatchNorm{Epsilon: 1e-3, Momentum: 0.1}, model.Activation{Func: model.ReLU}
	build := func(f func(add func(op model.Op, in ...int) int)) *model.Graph {
		g := &model.Graph{Name: "residual", Input: model.Shape{5, 5, 2}}
		f(func(op model.Op, in ...int) int {
			g.Layers = append(g.Layers, model.Layer{Name: fmt.Sprint(len(g.Layers)), Op: op, Inputs: in})
			return len(g.Layers) - 1
		})
		modeltest.Fill(g, 5)
		return g
	}
	type adder = func(op model.Op, in ...int) int
	unit := func(add adder, x int) int { return add(bn, add(convOp(4, 3, 1, 1), x)) }
	head := func(add adder, x int) { add(model.Dense{Out: 3}, add(model.GlobalAvgPool{}, x)) }
	return map[string]*model.Graph{
		"identity": build(func(add adder) {
			x := add(relu, unit(add, model.Input))
			for range 2 {
				x = add(relu, add(model.Add{}, unit(add, add(relu, unit(add, x))), x))
			}
			head(add, x)
		}),
		"projection": build(func(add adder) {
			x := add(relu, unit(add, model.Input))
			y := unit(add, add(relu, add(bn, add(convOp(4, 3, 2, 1), x))))
			head(add, add(relu, add(model.Add{}, y, add(convOp(4, 1, 2, 0), x))))
		}),
		"normalised projection": build(func(add adder) {
			x := add(relu, unit(add, model.Input))
			head(add, add(relu, add(model.Add{}, unit(add, x), unit(add, x))))
		}),
		"both rectified": build(func(add adder) {
			x := add(relu, unit(add, model.Input))
			y := add(relu, unit(add, x))
			head(add, add(model.Add{}, add(model.Add{}, y, x), add(relu, unit(add, y))))
		}),
		"twice the same": build(func(add adder) {
			x := unit(add, model.Input)
			y := add(relu, add(model.Add{}, x, x))
			head(add, add(model.Add{}, unit(add, y), y))
		}),
		"normalised first": build(func(add adder) {
			x := add(convOp(4, 3, 1, 1), model.Input)
			for range 3 {
				x = add(model.Add{}, add(convOp(4, 3, 1, 1), add(relu, add(bn, x))), x)
			}
			head(add, add(relu, add(bn, x)))
		}),
		"pooled": build(func(add adder) {
			x := add(relu, unit(add, model.Input))
			y := add(model.Add{}, unit(add, x), x)
			p := add(model.MaxPool{Kernel: two(2), Stride: two(2)}, add(relu, y))
			head(add, add(model.Concat{}, p, add(model.MaxPool{Kernel: two(2), Stride: two(2)}, x)))
		}),
	}
}

func TestGradientsOfResiduals(t *testing.T) {
	for name, g := range residuals() {
		t.Run(name, func(t *testing.T) { checkGradients(t, g, 10, Options{}, 7) })
	}
}
