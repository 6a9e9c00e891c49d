package infer_test

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/infer"
	"github.com/espalier-ml/espalier/model/modeltest"
	"github.com/espalier-ml/espalier/model/onnx"
	"github.com/espalier-ml/espalier/model/prune"
	"github.com/espalier-ml/espalier/model/zoo"
)

// TestONNXFilesGiveWhatTheRuntimeGives runs dense and pruned networks here, and
// their exported files with ONNX Runtime.
func TestONNXFilesGiveWhatTheRuntimeGives(t *testing.T) {
	dir := t.TempDir()
	var names []string
	var cases []modeltest.ORTCase
	var want [][]float32
	add := func(name string, g *model.Graph) {
		b, err := onnx.Marshal(g, onnx.Options{})
		if err != nil {
			t.Fatal(name, err)
		}
		path := filepath.Join(dir, fmt.Sprintf("%d.onnx", len(names)))
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		x := modeltest.Example(g, 1)
		names, want = append(names, name), append(want, output(t, g, x))
		cases = append(cases, modeltest.ORTCase{Model: path, Dims: fileShape(g.Input), Inputs: fileOrder(x, g.Input)})
	}
	for _, name := range []string{"mlp-784-128-10", "lenet-300-100", "lenet-5", "seed-cnn", "resnet-8", "ds-cnn", "mobilenet-025"} {
		g, err := zoo.Build(name, model.Shape{32, 32, 3}, 10, 3)
		if err != nil {
			t.Fatal(err)
		}
		add(name, g)
		for _, strategy := range []string{"magnitude", "channel-l1", "hybrid"} {
			add(name+" "+strategy, pruned(t, g, strategy))
		}
	}
	for i, r := range modeltest.RunORT(t, "../..", cases) {
		if r.Error != "" {
			t.Errorf("%s: %s", names[i], r.Error)
			continue
		}
		scale := 0.0
		for _, v := range want[i] {
			scale = max(scale, math.Abs(float64(v)))
		}
		for k, v := range want[i] {
			if d := math.Abs(float64(v - r.Outputs[k])); !(d <= 1e-5*max(scale, 1e-3)) {
				t.Errorf("%s: output %d is %v here and %v with ONNX Runtime", names[i], k, v, r.Outputs[k])
				break
			}
		}
	}
}

func output(t *testing.T, g *model.Graph, x []float32) []float32 {
	t.Helper()
	p, err := infer.Compile(g, infer.Options{Tune: true})
	if err != nil {
		t.Fatal(err)
	}
	shapes, err := g.Shapes()
	if err != nil {
		t.Fatal(err)
	}
	y := make([]float32, shapes[len(shapes)-1].Elements())
	if err := p.Run(x, y); err != nil {
		t.Fatal(err)
	}
	return y
}

// pruned removes 60 % of the channels, of the weights, or of both.
func pruned(t *testing.T, g *model.Graph, strategy string) *model.Graph {
	t.Helper()
	s, err := prune.Lookup(strategy)
	if err != nil {
		t.Fatal(err)
	}
	groups, err := prune.Groups(g)
	if err != nil {
		t.Fatal(err)
	}
	target := prune.Uniform(groups, 0.6, 0.6)
	if info := s.Info(); !info.Structured {
		target.Channels = nil
	} else if !info.Unstructured {
		target.Weights = nil
	}
	plan, err := s.Plan(prune.Input{Graph: g, Target: target})
	if err != nil {
		t.Fatal(err)
	}
	out, masks, err := prune.Rebuild(g, plan)
	if err != nil {
		t.Fatal(err)
	}
	if masks != nil {
		if err := masks.Apply(out); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// fileShape is the shape of one example in the file: batch first, then channels.
func fileShape(s model.Shape) []int {
	if len(s) == 3 {
		return []int{1, s[2], s[0], s[1]}
	}
	return append([]int{1}, s...)
}

// fileOrder reorders channels last to channels first.
func fileOrder(x []float32, s model.Shape) []float32 {
	if len(s) != 3 {
		return x
	}
	pixels, channels := s[0]*s[1], s[2]
	out := make([]float32, len(x))
	for p := range pixels {
		for c := range channels {
			out[c*pixels+p] = x[p*channels+c]
		}
	}
	return out
}
