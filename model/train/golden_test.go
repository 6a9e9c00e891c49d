package train

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"testing"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/data"
	"github.com/espalier-ml/espalier/model/infer"
)

// goldenCase is one network of testdata/golden.json, made by testdata/golden.py
// with PyTorch.
type goldenCase struct {
	Name   string        `json:"name"`
	Input  []int         `json:"input"`
	Batch  int           `json:"batch"`
	Layers []goldenLayer `json:"layers"`
	Loss   struct {
		Kind        Loss
		Smoothing   float64
		Temperature float64
		Weight      float64
	} `json:"loss"`
	Optimizer struct {
		Kind     Optimizer
		Rate     float64
		Momentum float64
		Nesterov bool
		Decay    float64
		Clip     float64
	} `json:"optimizer"`
	Steps     int                  `json:"steps"`
	Losses    []float64            `json:"losses"`
	Gradients map[string][]float64 `json:"gradients"` // of the first step
	After     map[string][]float64 `json:"after"`     // parameters and statistics after all
	Outputs   []float64            `json:"outputs"`   // of inference, after all
}

type goldenLayer struct {
	Kind     string
	Inputs   []int
	Out      int
	Kernel   int
	Stride   int
	Dilation int
	Pad      [4]int
	Groups   int
	Bias     bool
	Func     model.Func
	Alpha    float32
	CountPad bool `json:"count_pad"`
	Epsilon  float32
	Momentum float32
}

func (l goldenLayer) op() model.Op {
	pad := model.Pad2D{Top: l.Pad[0], Left: l.Pad[1], Bottom: l.Pad[2], Right: l.Pad[3]}
	switch l.Kind {
	case "conv":
		return model.Conv{Out: l.Out, Kernel: two(l.Kernel), Stride: two(l.Stride), Dilation: two(l.Dilation), Pad: pad, Groups: l.Groups, Bias: l.Bias}
	case "dense":
		return model.Dense{Out: l.Out, Bias: l.Bias}
	case "batch-norm":
		return model.BatchNorm{Epsilon: l.Epsilon, Momentum: l.Momentum}
	case "activation":
		return model.Activation{Func: l.Func, Alpha: l.Alpha}
	case "max-pool":
		return model.MaxPool{Kernel: two(l.Kernel), Stride: two(l.Stride), Pad: pad}
	case "avg-pool":
		return model.AvgPool{Kernel: two(l.Kernel), Stride: two(l.Stride), Pad: pad, CountPad: l.CountPad}
	case "global-avg-pool":
		return model.GlobalAvgPool{}
	case "flatten":
		return model.Flatten{}
	case "pad":
		return model.Pad{Pad: pad}
	case "softmax":
		return model.Softmax{}
	case "add":
		return model.Add{}
	case "concat":
		return model.Concat{}
	}
	panic(l.Kind)
}

// fill gives the values that golden.py's fill gives.
func fill(x []float32, number uint32, scale, plus float64) {
	for k := range x {
		h := uint32(k)*2654435761 + number*40503 + 97
		h ^= h >> 15
		h *= 2246822519
		h ^= h >> 13
		x[k] = float32((float64(h>>8)/(1<<24)-0.5)*scale) + float32(plus)
	}
}

func (c *goldenCase) graph(t *testing.T) *model.Graph {
	g := &model.Graph{Name: c.Name, Input: c.Input}
	for i, l := range c.Layers {
		in := l.Inputs
		if in == nil {
			in = []int{i - 1}
		}
		g.Layers = append(g.Layers, model.Layer{Name: fmt.Sprint(i), Op: l.op(), Inputs: in, Params: map[string]*model.Tensor{}})
	}
	shapes, err := g.Shapes()
	if err != nil {
		t.Fatal(err)
	}
	number := uint32(1)
	for i := range g.Layers {
		want := model.ParamShapes(g.Layers[i].Op, g.InputShapes(i, shapes)[0])
		for _, name := range []string{model.Weight, model.Bias, model.Scale, model.Shift, model.Mean, model.Variance} {
			s, ok := want[name]
			if !ok {
				continue
			}
			p := model.NewTensor(s...)
			g.Layers[i].Params[name] = p
			switch name {
			case model.Mean:
				continue
			case model.Variance:
				for k := range p.Data {
					p.Data[k] = 1
				}
				continue
			case model.Scale:
				fill(p.Data, number, 1, 1)
			default:
				fill(p.Data, number, 1, 0)
			}
			number++
		}
	}
	return g
}

func (c *goldenCase) options() Options {
	o := Options{
		Steps: c.Steps, Loss: c.Loss.Kind, LabelSmoothing: c.Loss.Smoothing, Optimizer: c.Optimizer.Kind, Rate: c.Optimizer.Rate,
		Momentum: c.Optimizer.Momentum, Nesterov: c.Optimizer.Nesterov, WeightDecay: c.Optimizer.Decay, Clip: c.Optimizer.Clip,
	}
	if c.Loss.Temperature > 0 {
		o.Temperature, o.TeacherWeight = c.Loss.Temperature, c.Loss.Weight
		o.Teacher = func(_ []float32, _ int, logits []float32) error { fill(logits, 99, 6, 0); return nil }
	}
	return o
}

func closeTo(t *testing.T, what string, got []float32, want []float64, tolerance float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values: want %d", what, len(got), len(want))
	}
	largest := 0.0
	for _, v := range want {
		largest = max(largest, math.Abs(v))
	}
	for i, v := range got {
		if d := math.Abs(float64(v) - want[i]); d > tolerance*(largest+0.1) || math.IsNaN(d) {
			t.Errorf("%s[%d] = %v: PyTorch has %v", what, i, v, want[i])
			return
		}
	}
}

// Losses, gradients, optimizer steps, running statistics and the outputs of the
// trained network are PyTorch's.
func TestGolden(t *testing.T) {
	raw, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []goldenCase
	if err := json.Unmarshal(raw, &cases); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			g := c.graph(t)
			b := &data.Batch{Inputs: make([]float32, c.Batch*g.Input.Elements())}
			fill(b.Inputs, 0, 4, 0)
			shapes, err := g.Shapes()
			if err != nil {
				t.Fatal(err)
			}
			classes := shapes[len(shapes)-1].Elements()
			for i := range c.Batch {
				b.Labels = append(b.Labels, int32(i*7%classes))
			}
			tr, err := newTraining(t.Context(), g, &blobs{batches: []*data.Batch{b}}, c.options().withDefaults())
			if err != nil {
				t.Fatal(err)
			}
			defer tr.team.close()
			for s := range c.Steps {
				if err := tr.step(b); err != nil {
					t.Fatal(err)
				}
				closeTo(t, fmt.Sprint("loss ", s), []float32{float32(tr.p.Loss)}, c.Losses[s:s+1], 2e-5)
				for _, p := range tr.par.spans {
					if s == 0 {
						closeTo(t, "gradient of "+key(p.layer, p.name), tr.par.g[p.off:p.off+p.len], c.Gradients[key(p.layer, p.name)], 2e-5)
					}
				}
			}
			tr.par.store()
			for i := range g.Layers {
				for _, name := range g.Layers[i].ParamNames() {
					closeTo(t, "after "+key(i, name), g.Layers[i].Params[name].Data, c.After[key(i, name)], 1e-4)
				}
			}
			plan, err := infer.Compile(g, infer.Options{Batch: c.Batch})
			if err != nil {
				t.Fatal(err)
			}
			y := make([]float32, len(c.Outputs))
			if err := plan.Run(b.Inputs, y); err != nil {
				t.Fatal(err)
			}
			closeTo(t, "output", y, c.Outputs, 2e-4)
		})
	}
}
