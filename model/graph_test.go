package model_test

import (
	"errors"
	"math"
	"testing"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/modeltest"
)

func two(n int) [2]int { return [2]int{n, n} }

func conv(out, kernel, pad, stride int) model.Conv {
	return model.Conv{Out: out, Kernel: two(kernel), Stride: two(stride), Dilation: two(1), Groups: 1, Bias: true,
		Pad: model.Pad2D{Top: pad, Left: pad, Bottom: pad, Right: pad}}
}

func TestOutputShape(t *testing.T) {
	img := model.Shape{8, 6, 4}
	for _, tt := range []struct {
		name string
		op   model.Op
		in   []model.Shape
		want model.Shape // nil: an error
		err  error
	}{
		{"conv", conv(5, 3, 0, 1), []model.Shape{img}, model.Shape{6, 4, 5}, nil},
		{"conv same", conv(5, 3, 1, 1), []model.Shape{img}, model.Shape{8, 6, 5}, nil},
		{"conv strided", conv(5, 3, 1, 2), []model.Shape{img}, model.Shape{4, 3, 5}, nil},
		{"conv dilated", model.Conv{Out: 1, Kernel: two(3), Stride: two(1), Dilation: two(2), Groups: 1}, []model.Shape{img}, model.Shape{4, 2, 1}, nil},
		{"conv depthwise", model.Conv{Out: 8, Kernel: two(1), Stride: two(1), Dilation: two(1), Groups: 4}, []model.Shape{img}, model.Shape{8, 6, 8}, nil},
		{"conv groups do not divide", model.Conv{Out: 8, Kernel: two(1), Stride: two(1), Dilation: two(1), Groups: 3}, []model.Shape{img}, nil, model.ErrShape},
		{"conv no groups", model.Conv{Out: 8, Kernel: two(1), Stride: two(1), Dilation: two(1)}, []model.Shape{img}, nil, model.ErrShape},
		{"conv larger than its input", conv(5, 9, 0, 1), []model.Shape{img}, nil, model.ErrShape},
		{"conv stride 0", conv(5, 3, 0, 0), []model.Shape{img}, nil, model.ErrShape},
		{"conv absurd pad", conv(5, 3, 1<<20, 1), []model.Shape{img}, nil, model.ErrShape},
		{"conv negative pad", conv(5, 3, -1, 1), []model.Shape{img}, nil, model.ErrShape},
		{"conv of a vector", conv(5, 3, 0, 1), []model.Shape{{10}}, nil, model.ErrShape},
		{"conv of two", conv(5, 3, 0, 1), []model.Shape{img, img}, nil, model.ErrGraph},
		{"dense", model.Dense{Out: 3}, []model.Shape{{10}}, model.Shape{3}, nil},
		{"dense of an image", model.Dense{Out: 3}, []model.Shape{img}, nil, model.ErrShape},
		{"dense to nothing", model.Dense{}, []model.Shape{{10}}, nil, model.ErrShape},
		{"max-pool", model.MaxPool{Kernel: two(2), Stride: two(2)}, []model.Shape{img}, model.Shape{4, 3, 4}, nil},
		{"max-pool all padding", model.MaxPool{Kernel: two(2), Stride: two(2), Pad: model.Pad2D{Top: 2}}, []model.Shape{img}, nil, model.ErrShape},
		{"avg-pool", model.AvgPool{Kernel: [2]int{8, 6}, Stride: two(1)}, []model.Shape{img}, model.Shape{1, 1, 4}, nil},
		{"global average", model.GlobalAvgPool{}, []model.Shape{img}, model.Shape{4}, nil},
		{"global average of a vector", model.GlobalAvgPool{}, []model.Shape{{4}}, nil, model.ErrShape},
		{"batch-norm", model.BatchNorm{Epsilon: 1e-3}, []model.Shape{img}, img, nil},
		{"batch-norm epsilon 0", model.BatchNorm{}, []model.Shape{img}, nil, model.ErrGraph},
		{"batch-norm epsilon NaN", model.BatchNorm{Epsilon: float32(math.NaN())}, []model.Shape{img}, nil, model.ErrGraph},
		{"batch-norm momentum", model.BatchNorm{Epsilon: 1e-3, Momentum: 2}, []model.Shape{img}, nil, model.ErrGraph},
		{"batch-norm of a scalar", model.BatchNorm{Epsilon: 1e-3}, []model.Shape{{}}, nil, model.ErrShape},
		{"activation", model.Activation{Func: model.HardSwish}, []model.Shape{img}, img, nil},
		{"activation unknown", model.Activation{Func: "gelu"}, []model.Shape{img}, nil, model.ErrGraph},
		{"activation alpha", model.Activation{Func: model.LeakyReLU, Alpha: float32(math.Inf(1))}, []model.Shape{img}, nil, model.ErrGraph},
		{"softmax", model.Softmax{}, []model.Shape{{10}}, model.Shape{10}, nil},
		{"add", model.Add{}, []model.Shape{img, img}, img, nil},
		{"add unequal", model.Add{}, []model.Shape{img, {8, 6, 3}}, nil, model.ErrShape},
		{"add of one", model.Add{}, []model.Shape{img}, nil, model.ErrGraph},
		{"concat", model.Concat{}, []model.Shape{img, {8, 6, 1}, img}, model.Shape{8, 6, 9}, nil},
		{"concat of other sizes", model.Concat{}, []model.Shape{img, {7, 6, 4}}, nil, model.ErrShape},
		{"concat of other ranks", model.Concat{}, []model.Shape{img, {4}}, nil, model.ErrShape},
		{"concat of scalars", model.Concat{}, []model.Shape{{}, {}}, nil, model.ErrShape},
		{"concat of one", model.Concat{}, []model.Shape{img}, nil, model.ErrGraph},
		{"concat too large", model.Concat{}, []model.Shape{{1 << 30}, {1 << 30}}, nil, model.ErrShape},
		{"flatten", model.Flatten{}, []model.Shape{img}, model.Shape{192}, nil},
		{"reshape", model.Reshape{Shape: model.Shape{4, 48}}, []model.Shape{img}, model.Shape{4, 48}, nil},
		{"reshape to other elements", model.Reshape{Shape: model.Shape{4, 47}}, []model.Shape{img}, nil, model.ErrShape},
		{"reshape to no dimensions", model.Reshape{}, []model.Shape{{1}}, nil, model.ErrShape},
		{"reshape negative", model.Reshape{Shape: model.Shape{-4, -48}}, []model.Shape{img}, nil, model.ErrShape},
		{"pad", model.Pad{Pad: model.Pad2D{Top: 1, Left: 2, Bottom: 3, Right: 4}}, []model.Shape{img}, model.Shape{12, 12, 4}, nil},
		{"dropout", model.Dropout{Rate: 0.5}, []model.Shape{{4}}, model.Shape{4}, nil},
		{"dropout of all", model.Dropout{Rate: 1}, []model.Shape{{4}}, nil, model.ErrGraph},
		{"no operator", nil, []model.Shape{{4}}, nil, model.ErrGraph},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := model.OutputShape(tt.op, tt.in...)
			if !errors.Is(err, tt.err) || (tt.err == nil && !got.Equal(tt.want)) {
				t.Errorf("got %v, error %v: want %v, %v", got, err, tt.want, tt.err)
			}
		})
	}
}

func small() *model.Graph {
	g := &model.Graph{Name: "small", Input: model.Shape{4, 4, 2}, Meta: map[string]string{model.MetaJob: "j"}, Layers: []model.Layer{
		{Name: "conv", Op: conv(3, 3, 0, 1), Inputs: []int{model.Input}},
		{Name: "bn", Op: model.BatchNorm{Epsilon: 1e-3, Momentum: 0.1}, Inputs: []int{0}},
		{Name: "flat", Op: model.Flatten{}, Inputs: []int{1}},
		{Name: "fc", Op: model.Dense{Out: 5}, Inputs: []int{2}},
	}}
	modeltest.Fill(g, 1)
	return g
}

func TestValidate(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*model.Graph)
		want   error
	}{
		{"nothing", func(*model.Graph) {}, nil},
		{"no layers", func(g *model.Graph) { g.Layers = nil }, model.ErrGraph},
		{"no input", func(g *model.Graph) { g.Input = nil }, model.ErrShape},
		{"input of 0", func(g *model.Graph) { g.Input = model.Shape{4, 0, 2} }, model.ErrShape},
		{"input too large", func(g *model.Graph) { g.Input = model.Shape{1 << 20, 1 << 20, 1 << 20} }, model.ErrShape},
		{"no name", func(g *model.Graph) { g.Layers[1].Name = "" }, model.ErrGraph},
		{"a name twice", func(g *model.Graph) { g.Layers[1].Name = "conv" }, model.ErrGraph},
		{"a later input", func(g *model.Graph) { g.Layers[1].Inputs = []int{2} }, model.ErrGraph},
		{"itself as input", func(g *model.Graph) { g.Layers[1].Inputs = []int{1} }, model.ErrGraph},
		{"input -2", func(g *model.Graph) { g.Layers[1].Inputs = []int{-2} }, model.ErrGraph},
		{"no inputs", func(g *model.Graph) { g.Layers[1].Inputs = nil }, model.ErrGraph},
		{"missing parameter", func(g *model.Graph) { delete(g.Layers[0].Params, model.Bias) }, model.ErrGraph},
		{"nil parameter", func(g *model.Graph) { g.Layers[0].Params[model.Bias] = nil }, model.ErrGraph},
		{"unknown parameter", func(g *model.Graph) { g.Layers[2].Params[model.Bias] = model.NewTensor(1) }, model.ErrGraph},
		{"bias where none is", func(g *model.Graph) { g.Layers[3].Params[model.Bias] = model.NewTensor(5) }, model.ErrGraph},
		{"parameter of another shape", func(g *model.Graph) { g.Layers[3].Params[model.Weight] = model.NewTensor(5, 12) }, model.ErrShape},
		{"too few values", func(g *model.Graph) { w := g.Layers[3].Params[model.Weight]; w.Data = w.Data[1:] }, model.ErrShape},
		{"pointer to an operator", func(g *model.Graph) { g.Layers[2].Op = &model.Flatten{} }, model.ErrGraph},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := small()
			tt.change(g)
			if err := g.Validate(); !errors.Is(err, tt.want) {
				t.Errorf("error %v: want %v", err, tt.want)
			}
		})
	}
}

func TestCost(t *testing.T) {
	g := small()
	g.Layers[3].Params[model.Weight].Data[7] = 0
	got, err := g.LayerCosts()
	if err != nil {
		t.Fatal(err)
	}
	want := []model.Cost{{Params: 57, NonZeros: 57, MACs: 4 * 3 * 9 * 2}, {Params: 12, NonZeros: 12}, {}, {Params: 60, NonZeros: 59, MACs: 60}}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("layer %d: %+v, want %+v", i, got[i], want[i])
		}
	}
	if sum, err := g.Cost(); err != nil || sum != (model.Cost{Params: 129, NonZeros: 128, MACs: 276}) {
		t.Errorf("sum %+v, error %v", sum, err)
	}
	dw := &model.Graph{Input: model.Shape{4, 4, 6}, Layers: []model.Layer{{Name: "dw", Inputs: []int{model.Input},
		Op: model.Conv{Out: 6, Kernel: two(3), Stride: two(1), Dilation: two(1), Groups: 6}}}}
	modeltest.Fill(dw, 1)
	if c, err := dw.Cost(); err != nil || c.MACs != 2*2*6*9 {
		t.Errorf("depthwise: %+v, error %v", c, err)
	}
}

func TestCloneIsDeep(t *testing.T) {
	g := small()
	c := g.Clone()
	c.Input[0], c.Meta[model.MetaJob], c.Layers[1].Inputs[0] = 9, "other", 9
	c.Layers[0].Params[model.Bias].Data[0] = 99
	delete(c.Layers[3].Params, model.Weight)
	if err := g.Validate(); err != nil || g.Meta[model.MetaJob] != "j" || g.Layers[0].Params[model.Bias].Data[0] == 99 {
		t.Errorf("the original changed with its clone: %v", err)
	}
}

func TestConsumersAndIndex(t *testing.T) {
	g := &model.Graph{Input: model.Shape{3}, Layers: []model.Layer{
		{Name: "a", Op: model.Activation{Func: model.ReLU}, Inputs: []int{model.Input}},
		{Name: "b", Op: model.Add{}, Inputs: []int{0, 0}},
		{Name: "c", Op: model.Add{}, Inputs: []int{0, 1}},
	}}
	c := g.Consumers()
	if len(c[0]) != 2 || c[0][0] != 1 || c[0][1] != 2 || len(c[1]) != 1 || len(c[2]) != 0 {
		t.Errorf("consumers %v", c)
	}
	if i, ok := g.Index("c"); i != 2 || !ok {
		t.Errorf("index of c: %d, %v", i, ok)
	}
	if _, ok := g.Index("d"); ok {
		t.Error("found a layer that is not there")
	}
}
