package onnx

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/modeltest"
	"github.com/espalier-ml/espalier/model/zoo"
)

// channelsFirst reorders values of {H, W, C} to {C, H, W} if shape is an image.
func channelsFirst(v []float32, s model.Shape) []float32 {
	if len(s) != 3 {
		return v
	}
	out := make([]float32, len(v))
	for i, j := range imagePermAlways(s[0], s[1], s[2]) {
		out[i] = v[j]
	}
	return out
}

// The exported file, run by ONNX Runtime on a batch of three, gives what the
// plain evaluator gives for each example.
func TestWrittenFilesInORT(t *testing.T) {
	graphs := special()
	for seed := range uint64(60) {
		graphs[fmt.Sprintf("random %d", seed)] = modeltest.Graph(seed)
	}
	for _, name := range zoo.Names() {
		if g, err := zoo.Build(name, model.Shape{28, 28, 1}, 10, 1); err == nil {
			graphs["zoo "+name] = g
		}
	}
	const batch = 3
	dir := t.TempDir()
	var names []string
	var cases []modeltest.ORTCase
	for name, g := range graphs {
		path := filepath.Join(dir, fmt.Sprintf("%d.onnx", len(names)))
		if err := os.WriteFile(path, marshalled(t, g), 0o600); err != nil {
			t.Fatal(err)
		}
		c := modeltest.ORTCase{Model: path, Dims: append([]int{batch}, dimsOf(g.Input)...)}
		for k := range uint64(batch) {
			c.Inputs = append(c.Inputs, channelsFirst(modeltest.Example(g, k), g.Input)...)
		}
		names, cases = append(names, name), append(cases, c)
	}
	for i, r := range modeltest.RunORT(t, "../..", cases) {
		t.Run(names[i], func(t *testing.T) {
			if r.Error != "" {
				t.Fatal(r.Error)
			}
			g := graphs[names[i]]
			shapes, err := g.Shapes()
			if err != nil {
				t.Fatal(err)
			}
			out := shapes[len(shapes)-1]
			if want := append([]int{batch}, dimsOf(out)...); !model.Shape(r.Dims).Equal(want) {
				t.Fatalf("output of %v: want %v", r.Dims, want)
			}
			var want []float32
			for k := range uint64(batch) {
				y, err := modeltest.Output(g, modeltest.Example(g, k))
				if err != nil {
					t.Fatal(err)
				}
				want = append(want, channelsFirst(y, out)...)
			}
			closeTo(t, r.Outputs, want, 1e-5)
		})
	}
}

// Networks of others give the same in ONNX Runtime as after reading them, and as
// after writing them again.
func TestRealNetworksInORT(t *testing.T) {
	dir := t.TempDir()
	var cases []modeltest.ORTCase
	var want [][]float32
	for i, test := range []struct {
		file string
		dims []int
	}{
		{"resnet_2b.onnx", []int{1, 3, 32, 32}},
		{"cifar_base_kw.onnx", []int{1, 3, 32, 32}},
		{"cifar10_small.onnx", []int{1, 32, 32, 3}},
		{"Convnet_maxpool.onnx", []int{1, 1, 28, 28}},
		{"test_nano.onnx", []int{1}},
	} {
		g := readReal(t, "vnncomp2021", test.file)
		x := modeltest.Example(g, uint64(i))
		y, err := modeltest.Output(g, x)
		if err != nil {
			t.Fatal(err)
		}
		again := filepath.Join(dir, test.file)
		if err := os.WriteFile(again, marshalled(t, g), 0o600); err != nil {
			t.Fatal(err)
		}
		original := modeltest.ORTCase{Model: realData(t, "onnx-models", "vnncomp2021", test.file), Dims: test.dims, Inputs: x}
		if test.file != "cifar10_small.onnx" {
			original.Inputs = channelsFirst(x, g.Input)
		}
		if original.Model, err = filepath.Abs(original.Model); err != nil {
			t.Fatal(err)
		}
		cases = append(cases, original, modeltest.ORTCase{Model: again, Dims: append([]int{1}, dimsOf(g.Input)...), Inputs: channelsFirst(x, g.Input)})
		want = append(want, y, y)
	}
	for i, r := range modeltest.RunORT(t, "../..", cases) {
		if r.Error != "" {
			t.Errorf("%s: %s", cases[i].Model, r.Error)
			continue
		}
		t.Run(filepath.Base(cases[i].Model), func(t *testing.T) { closeTo(t, r.Outputs, want[i], 1e-5) })
	}
}
