package onnx

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/modeltest"
	"github.com/espalier-ml/espalier/model/onnx/onnxpb"
	"github.com/espalier-ml/espalier/model/zoo"
)

func marshalled(t testing.TB, g *model.Graph) []byte {
	t.Helper()
	b, err := Marshal(g, Options{ProducerVersion: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// chain is a graph of ops, each reading the one before, with random parameters.
func chain(input model.Shape, ops ...model.Op) *model.Graph {
	g := &model.Graph{Name: "chain", Input: input}
	for i, op := range ops {
		g.Layers = append(g.Layers, model.Layer{Name: fmt.Sprintf("l%d", i), Op: op, Inputs: []int{i - 1}})
	}
	modeltest.Fill(g, 3)
	return g
}

// special are graphs whose layout takes more than translating each layer.
func special() map[string]*model.Graph {
	relu := model.Activation{Func: model.ReLU}
	dense := model.Dense{Out: 5, Bias: true}
	image := model.Shape{3, 4, 2}
	joined := chain(image, model.Flatten{}, relu, model.Dense{Out: 24})
	joined.Layers = append(joined.Layers, // of different orders in the file
		model.Layer{Name: "sum", Op: model.Add{}, Inputs: []int{1, 2}},
		model.Layer{Name: "all", Op: model.Concat{}, Inputs: []int{2, 0, 3}},
		model.Layer{Name: "out", Op: dense, Inputs: []int{4}})
	modeltest.Fill(joined, 4)
	return map[string]*model.Graph{
		"flatten is the output":       chain(image, model.Flatten{}),
		"flatten, norm, dense":        chain(image, model.Flatten{}, model.BatchNorm{Epsilon: 1e-3, Momentum: 0.1}, dense),
		"flatten and back":            chain(image, model.Flatten{}, relu, model.Reshape{Shape: image}, model.MaxPool{Kernel: [2]int{2, 2}, Stride: [2]int{1, 1}}),
		"vector to image":             chain(model.Shape{24}, model.Reshape{Shape: image}, model.GlobalAvgPool{}, dense),
		"image to other image":        chain(image, model.Reshape{Shape: model.Shape{2, 3, 4}}, model.Flatten{}, dense),
		"image to matrix":             chain(image, model.Reshape{Shape: model.Shape{6, 4}}, model.Softmax{}),
		"matrix, norm, flatten":       chain(model.Shape{6, 4}, model.BatchNorm{Epsilon: 1e-3, Momentum: 0.1}, model.Flatten{}, dense),
		"flattened to matrix":         chain(image, model.Flatten{}, model.Reshape{Shape: model.Shape{6, 4}}, relu),
		"flattened to other image":    chain(image, model.Flatten{}, model.Reshape{Shape: model.Shape{2, 2, 6}}, relu),
		"image out":                   chain(image, model.Softmax{}),
		"orders joined":               joined,
		"every activation":            chain(image, relu, model.Activation{Func: model.ReLU6}, model.Activation{Func: model.LeakyReLU, Alpha: 0.2}, model.Activation{Func: model.Sigmoid}, model.Activation{Func: model.Tanh}, model.Activation{Func: model.HardSwish}),
		"asymmetric pads":             chain(image, model.Pad{Pad: model.Pad2D{Top: 1, Right: 2}}, model.AvgPool{Kernel: [2]int{2, 3}, Stride: [2]int{1, 2}, Pad: model.Pad2D{Left: 1, Bottom: 1}, CountPad: true}, model.AvgPool{Kernel: [2]int{2, 2}, Stride: [2]int{2, 1}, Pad: model.Pad2D{Top: 1}}, model.MaxPool{Kernel: [2]int{2, 2}, Stride: [2]int{1, 1}, Pad: model.Pad2D{Right: 1}}),
		"dropout":                     chain(model.Shape{7}, dense, model.Dropout{Rate: 0.25}, dense, model.Softmax{}),
		"output's name is taken":      renamed(chain(model.Shape{7}, dense, relu), "output", "input"),
		"a name of another's parts":   renamed(chain(model.Shape{7}, dense, dense, relu), "a", "a_weight", "a_bias"),
		"one pixel":                   chain(model.Shape{1, 1, 6}, model.Flatten{}, dense),
		"grey":                        chain(model.Shape{4, 4, 1}, model.Flatten{}),
		"depthwise, dilated, strided": chain(model.Shape{9, 8, 4}, model.Conv{Out: 8, Kernel: [2]int{3, 2}, Stride: [2]int{2, 1}, Dilation: [2]int{1, 2}, Pad: model.Pad2D{Top: 1, Left: 2}, Groups: 4, Bias: true}, model.BatchNorm{Epsilon: 1e-3, Momentum: 0.1}),
	}
}

func renamed(g *model.Graph, names ...string) *model.Graph {
	for i, n := range names {
		g.Layers[i].Name = n
	}
	return g
}

// sameOutputs compares two graphs on a few examples.
func sameOutputs(t *testing.T, got, want *model.Graph) {
	t.Helper()
	for seed := range uint64(3) {
		x := modeltest.Example(want, seed)
		a, err := modeltest.Output(got, x)
		if err != nil {
			t.Fatal(err)
		}
		b, err := modeltest.Output(want, x)
		if err != nil {
			t.Fatal(err)
		}
		closeTo(t, a, b, 1e-5)
	}
}

// sameLayers reports whether names, operators, inputs and parameters are equal.
func sameLayers(a, b *model.Graph) bool {
	return slices.EqualFunc(a.Layers, b.Layers, func(x, y model.Layer) bool {
		return x.Name == y.Name && reflect.DeepEqual(x.Op, y.Op) && slices.Equal(x.Inputs, y.Inputs) &&
			maps.EqualFunc(x.Params, y.Params, func(v, w *model.Tensor) bool { return reflect.DeepEqual(v, w) })
	})
}

func TestRoundTripGivesTheSameOutputs(t *testing.T) {
	for name, g := range special() {
		t.Run(name, func(t *testing.T) {
			got, err := Read(marshalled(t, g), Limits{})
			if err != nil {
				t.Fatal(err)
			}
			sameOutputs(t, got, g)
		})
	}
	exact := 0
	for seed := range uint64(150) {
		g := modeltest.Graph(seed)
		got, err := Read(marshalled(t, g), Limits{})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		sameOutputs(t, got, g)
		if sameLayers(got, g) {
			exact++
		}
	}
	if exact < 75 {
		t.Errorf("%d graphs of 150 came back exactly as they were", exact)
	}
	t.Logf("%d graphs of 150 came back exactly as they were", exact)
}

func TestRoundTripOfTheZoo(t *testing.T) {
	for _, name := range zoo.Names() {
		for _, input := range []model.Shape{{28, 28, 1}, {32, 32, 3}} {
			g, err := zoo.Build(name, input, 10, 1)
			if err != nil {
				if g, err = zoo.Build(name, input, 0, 1); err != nil {
					t.Fatal(err)
				}
			}
			g.Meta = map[string]string{model.MetaTrial: "7", model.MetaMean: "0.5,0.25", "ü": "β"}
			b := marshalled(t, g)
			if !bytes.Equal(b, marshalled(t, g.Clone())) {
				t.Errorf("%s: two writings differ", name)
			}
			m := unmarshal(t, b, &onnxpb.ModelProto{})
			for _, n := range m.Graph.Node {
				if n.OpType == "Transpose" || n.OpType == "Gather" {
					t.Errorf("%s: layout is changed by %s %q", name, n.OpType, n.Name)
				}
			}
			got, err := Read(b, Limits{})
			if err != nil {
				t.Fatal(err)
			}
			if got.Name != g.Name || !reflect.DeepEqual(got.Meta, g.Meta) || !sameLayers(got, g) {
				t.Errorf("%s: came back different", name)
			}
		}
	}
}

func TestWrittenHeader(t *testing.T) {
	m := unmarshal(t, marshalled(t, chain(model.Shape{3, 4, 2}, model.Flatten{}, model.Dense{Out: 5})), &onnxpb.ModelProto{})
	if m.IrVersion != 8 || len(m.OpsetImport) != 1 || m.OpsetImport[0].Version != 13 || m.ProducerName != "espalier" || m.ProducerVersion != "test" {
		t.Errorf("IR %d, opsets %v, producer %q %q", m.IrVersion, m.OpsetImport, m.ProducerName, m.ProducerVersion)
	}
	text := func(v []*onnxpb.ValueInfoProto) string {
		var s []string
		for _, d := range v[0].GetType().GetTensorType().Shape.Dim {
			s = append(s, fmt.Sprint(d.GetDimParam(), d.GetDimValue()))
		}
		return v[0].Name + " " + strings.Join(s, ",")
	}
	if got := text(m.Graph.Input) + " " + text(m.Graph.Output); got != "input N0,2,3,4 output N0,5" {
		t.Errorf("%s", got)
	}
}

func TestWriteRefusesAnInvalidGraph(t *testing.T) {
	g := chain(model.Shape{7}, model.Dense{Out: 5, Bias: true})
	delete(g.Layers[0].Params, model.Bias)
	if _, err := Marshal(g, Options{}); !errors.Is(err, model.ErrGraph) {
		t.Errorf("error %v", err)
	}
	bad := chain(model.Shape{7}, model.Dense{Out: 5})
	bad.Name = "\xff"
	if _, err := Marshal(bad, Options{}); err == nil {
		t.Error("wrote a name that is not UTF-8")
	}
	nan := chain(model.Shape{2}, model.Dense{Out: 1})
	nan.Layers[0].Params[model.Weight].Data[0] = float32(math.NaN())
	got, err := Read(marshalled(t, nan), Limits{})
	if err != nil || !math.IsNaN(float64(got.Layers[0].Params[model.Weight].Data[0])) {
		t.Errorf("NaN was not kept: %v", err)
	}
	if err := Write(failing{}, chain(model.Shape{7}, model.Dense{Out: 5}), Options{}); !errors.Is(err, errDisk) {
		t.Errorf("error %v: want the writer's", err)
	}
}

var errDisk = errors.New("no space left")

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errDisk }
