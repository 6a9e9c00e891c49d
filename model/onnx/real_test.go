package onnx

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/data"
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

func TestRealShuffleNetIsRefusedByName(t *testing.T) {
	b, err := os.ReadFile(realData(t, "onnx-models", "onnx-light", "light_shufflenet.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Read(b, Limits{}); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "(Reshape)") {
		t.Errorf("error %v: want %v at the reshape that shuffles channels", err, ErrUnsupported)
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

// The first test images of CIFAR-10, read and normalised by package data, are
// recognised as often as the networks' makers say.
func TestRealAccuracyOnCIFAR10(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED, NOT TESTED: the plain evaluator takes seconds for a few hundred images")
	}
	packed := realData(t, "cifar-10", "test_batch.bin.xz")
	raw, err := exec.Command("xz", "-dc", packed).Output()
	if err != nil {
		t.Skipf("SKIPPED, NOT TESTED: CIFAR-10 is packed with xz: %v", err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "data_batch_1.bin"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	set, err := data.Open(dir, data.Options{})
	if err != nil {
		t.Fatal(err)
	}
	const images = 300
	indices := make([]int32, images)
	for i := range indices {
		indices[i] = int32(i)
	}
	x, labels := make([]float32, images*3072), make([]int32, images)
	for _, test := range []struct {
		file      string
		mean, std []float32
		want      float64 // accuracy over all 10,000
	}{
		{"resnet_2b.onnx", []float32{0.4914, 0.4822, 0.4465}, []float32{0.2471, 0.2435, 0.2616}, 0.6925},
		{"cifar_base_kw.onnx", []float32{0.485, 0.456, 0.406}, []float32{0.225, 0.225, 0.225}, 0.5853},
		{"cifar10_small.onnx", []float32{0, 0, 0}, []float32{1, 1, 1}, 0.6314},
	} {
		g := readReal(t, "vnncomp2021", test.file)
		set.Batch(x, labels, indices)
		right := 0
		for i := range images {
			one := x[i*3072 : (i+1)*3072]
			for p := range one { // from the set's own normalisation to the network's
				c := p % 3
				one[p] = (one[p]*set.Std[c] + set.Mean[c] - test.mean[c]) / test.std[c]
			}
			y, err := modeltest.Output(g, one)
			if err != nil {
				t.Fatal(err)
			}
			if slices.Index(y, slices.Max(y)) == int(labels[i]) {
				right++
			}
		}
		accuracy := float64(right) / images
		t.Logf("%s: %.1f %% of %d", test.file, 100*accuracy, images)
		if accuracy < test.want-0.07 || accuracy > test.want+0.07 {
			t.Errorf("%s: accuracy %.3f: want about %.3f", test.file, accuracy, test.want)
		}
	}
}
