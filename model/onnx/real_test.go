package onnx

import (
	"os"
	"testing"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/modeltest"
	"github.com/espalier-ml/espalier/model/onnx/onnxpb"
)

func readReal(t *testing.T, elem ...string) *model.Graph {
	t.Helper()
	b, err := os.ReadFile(realData(t, append([]string{"onnx-models"}, elem...)...))
	if err != nil {
		t.Fatal(err)
	}
	g, err := Read(b, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestRealNetworksOfOthers(t *testing.T) {
	for _, test := range []struct {
		file   string
		params int64
		input  model.Shape
		layers int
	}{
		{"resnet_2b.onnx", 112_006, model.Shape{32, 32, 3}, 17},
		{"cifar_base_kw.onnx", 105_966, model.Shape{32, 32, 3}, 8},
		{"cifar10_small.onnx", 85_218, model.Shape{32, 32, 3}, 10},
		{"Convnet_maxpool.onnx", 11_690, model.Shape{28, 28, 1}, 5},
		{"test_nano.onnx", 1, model.Shape{1}, 2},
	} {
		t.Run(test.file, func(t *testing.T) {
			g := readReal(t, "vnncomp2021", test.file)
			cost, err := g.Cost()
			if err != nil {
				t.Fatal(err)
			}
			if cost.Params != test.params || !g.Input.Equal(test.input) || len(g.Layers) != test.layers {
				t.Errorf("%d parameters, input %v, %d layers: want %d, %v, %d", cost.Params, g.Input, len(g.Layers), test.params, test.input, test.layers)
			}
		})
	}
}

func TestRealSqueezeNet(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED, NOT TESTED: the plain evaluator takes seconds for SqueezeNet")
	}
	g := readReal(t, "onnx-light", "light_squeezenet.onnx")
	b, err := os.ReadFile(realData(t, "onnx-models", "onnx-light", "light_squeezenet_output_0.pb"))
	if err != nil {
		t.Fatal(err)
	}
	want, err := newConstant(unmarshal(t, b, &onnxpb.TensorProto{}))
	if err != nil {
		t.Fatal(err)
	}
	x := make([]float32, 3*224*224)
	for i := range x {
		x[i] = float32(i) / float32(len(x))
	}
	got, err := modeltest.Output(g, channelsLastOf(x, []int{3, 224, 224}))
	if err != nil {
		t.Fatal(err)
	}
	closeTo(t, got, want.floats, 1e-4)
}
