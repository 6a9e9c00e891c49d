package modeltest

import (
	"math"
	"slices"
	"testing"

	"github.com/espalier-ml/espalier/model"
)

func ones(n int) [2]int { return [2]int{n, n} }

func tensor(v []float32, shape ...int) *model.Tensor { return &model.Tensor{Shape: shape, Data: v} }

// The values of each case are worked out by hand.
func TestOperators(t *testing.T) {
	x := []float32{1, 2, 3, 4, 5, 6, 7, 8, 9}
	for _, tt := range []struct {
		name   string
		input  model.Shape
		op     model.Op
		params map[string]*model.Tensor
		x      []float32
		want   []float32
	}{
		{"conv", model.Shape{3, 3, 1}, model.Conv{Out: 1, Kernel: ones(2), Stride: ones(1), Dilation: ones(1), Groups: 1, Bias: true},
			map[string]*model.Tensor{"weight": tensor([]float32{1, 2, 3, 4}, 2, 2, 1, 1), "bias": tensor([]float32{1}, 1)}, x, []float32{38, 48, 68, 78}},
		{"conv dilated, strided, padded", model.Shape{3, 3, 1}, model.Conv{Out: 1, Kernel: ones(2), Stride: ones(2), Dilation: ones(2), Groups: 1, Pad: model.Pad2D{Top: 1, Right: 1}},
			map[string]*model.Tensor{"weight": tensor([]float32{1, 2, 3, 4}, 2, 2, 1, 1)}, x, []float32{4*3 + 6*4}},
		{"conv of two channels to two", model.Shape{1, 1, 2}, model.Conv{Out: 2, Kernel: ones(1), Stride: ones(1), Dilation: ones(1), Groups: 1},
			map[string]*model.Tensor{"weight": tensor([]float32{1, 10, 2, 20}, 1, 1, 2, 2)}, []float32{3, 5}, []float32{13, 130}},
		{"conv in two groups", model.Shape{1, 1, 2}, model.Conv{Out: 4, Kernel: ones(1), Stride: ones(1), Dilation: ones(1), Groups: 2},
			map[string]*model.Tensor{"weight": tensor([]float32{1, 2, 3, 4}, 1, 1, 1, 4)}, []float32{3, 5}, []float32{3, 6, 15, 20}},
		{"dense", model.Shape{2}, model.Dense{Out: 3, Bias: true},
			map[string]*model.Tensor{"weight": tensor([]float32{1, 2, 3, 4, 5, 6}, 2, 3), "bias": tensor([]float32{1, 0, -1}, 3)}, []float32{1, 10}, []float32{42, 52, 62}},
		{"max-pool", model.Shape{3, 3, 1}, model.MaxPool{Kernel: ones(2), Stride: ones(1), Pad: model.Pad2D{Top: 1}}, nil,
			[]float32{-1, -2, -3, -4, -5, -6, -7, -8, -9}, []float32{-1, -2, -1, -2, -4, -5}},
		{"avg-pool", model.Shape{1, 3, 1}, model.AvgPool{Kernel: [2]int{1, 2}, Stride: ones(1), Pad: model.Pad2D{Left: 1}}, nil, x[:3], []float32{1, 1.5, 2.5}},
		{"avg-pool counting the pad", model.Shape{1, 3, 1}, model.AvgPool{Kernel: [2]int{1, 2}, Stride: ones(1), Pad: model.Pad2D{Left: 1}, CountPad: true}, nil, x[:3], []float32{0.5, 1.5, 2.5}},
		{"global average", model.Shape{2, 2, 2}, model.GlobalAvgPool{}, nil, x[:8], []float32{4, 5}},
		{"batch-norm", model.Shape{2}, model.BatchNorm{Epsilon: 1, Momentum: 0.1},
			map[string]*model.Tensor{"scale": tensor([]float32{2, 1}, 2), "shift": tensor([]float32{0, 5}, 2), "mean": tensor([]float32{1, 2}, 2), "variance": tensor([]float32{3, 0}, 2)},
			[]float32{5, 4}, []float32{4, 7}},
		{"relu", model.Shape{3}, model.Activation{Func: model.ReLU}, nil, []float32{-1, 0, 7}, []float32{0, 0, 7}},
		{"relu6", model.Shape{3}, model.Activation{Func: model.ReLU6}, nil, []float32{-1, 5, 7}, []float32{0, 5, 6}},
		{"leaky-relu", model.Shape{2}, model.Activation{Func: model.LeakyReLU, Alpha: 0.5}, nil, []float32{-2, 3}, []float32{-1, 3}},
		{"sigmoid", model.Shape{1}, model.Activation{Func: model.Sigmoid}, nil, []float32{float32(math.Log(3))}, []float32{0.75}},
		{"tanh", model.Shape{1}, model.Activation{Func: model.Tanh}, nil, []float32{float32(math.Log(3))}, []float32{0.8}},
		{"hard-swish", model.Shape{4}, model.Activation{Func: model.HardSwish}, nil, []float32{-4, -1, 1, 4}, []float32{0, -1.0 / 3, 2.0 / 3, 4}},
		{"softmax", model.Shape{2, 1, 2}, model.Softmax{}, nil, []float32{0, float32(math.Log(3)), 2, 2}, []float32{0.25, 0.75, 0.5, 0.5}},
		{"pad", model.Shape{1, 2, 1}, model.Pad{Pad: model.Pad2D{Top: 1, Left: 1}}, nil, x[:2], []float32{0, 0, 0, 0, 1, 2}},
		{"reshape", model.Shape{2, 3, 1}, model.Reshape{Shape: model.Shape{3, 2}}, nil, x[:6], x[:6]},
		{"dropout", model.Shape{2}, model.Dropout{Rate: 0.5}, nil, x[:2], x[:2]},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := &model.Graph{Input: tt.input, Layers: []model.Layer{{Name: "l", Op: tt.op, Inputs: []int{model.Input}, Params: tt.params}}}
			got, err := Output(g, tt.x)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.EqualFunc(got, tt.want, func(a, b float32) bool { return math.Abs(float64(a-b)) < 1e-6 }) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestJoins(t *testing.T) {
	g := &model.Graph{Input: model.Shape{1, 2, 1}, Layers: []model.Layer{
		{Name: "a", Op: model.Activation{Func: model.ReLU}, Inputs: []int{model.Input}},
		{Name: "cat", Op: model.Concat{}, Inputs: []int{0, model.Input}},
		{Name: "add", Op: model.Add{}, Inputs: []int{1, 1}},
	}}
	outs, err := Run(g, []float32{-1, 2})
	if err != nil {
		t.Fatal(err)
	}
	if want := []float32{0, -1, 2, 2}; !slices.Equal(outs[1], want) {
		t.Errorf("concat %v, want %v", outs[1], want)
	}
	if want := []float32{0, -2, 4, 4}; !slices.Equal(outs[2], want) {
		t.Errorf("add %v, want %v", outs[2], want)
	}
	if _, err := Run(g, []float32{1}); err == nil {
		t.Error("a short input was accepted")
	}
}

func TestRandomGraphsAreValidAndVaried(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(300) {
		g := Graph(seed)
		out, err := Output(g, Example(g, seed))
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for _, v := range out {
			if math.IsNaN(float64(v)) {
				t.Errorf("seed %d: output %v", seed, out)
			}
		}
		for _, l := range g.Layers {
			seen[l.Op.Kind()]++
		}
	}
	for _, kind := range []string{"conv", "dense", "max-pool", "avg-pool", "global-avg-pool", "batch-norm", "relu", "relu6", "leaky-relu",
		"sigmoid", "tanh", "hard-swish", "softmax", "add", "concat", "flatten", "reshape", "pad", "dropout"} {
		if seen[kind] == 0 {
			t.Errorf("no random graph has %s", kind)
		}
	}
}
