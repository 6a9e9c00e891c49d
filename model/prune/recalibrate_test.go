package prune

import (
	"errors"
	"math"
	"reflect"
	"testing"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/modeltest"
)

func examples(g *model.Graph, n int) []float32 {
	var x []float32
	for seed := range uint64(n) {
		x = append(x, modeltest.Example(g, seed)...)
	}
	return x
}

// After it, what each batch normalisation reads has the statistics that it holds.
func TestRecalibrate(t *testing.T) {
	norms := 0
	for seed := range uint64(60) {
		g := modeltest.Graph(seed)
		before := g.Clone()
		const n = 40 // not a multiple of the batch
		x := examples(g, n)
		r, err := Recalibrate(g, x)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if !reflect.DeepEqual(g, before) {
			t.Fatalf("seed %d: the original changed", seed)
		}
		for i, l := range r.Layers {
			if _, ok := l.Op.(model.BatchNorm); !ok {
				if !reflect.DeepEqual(l, g.Layers[i]) {
					t.Fatalf("seed %d: layer %q changed", seed, l.Name)
				}
				continue
			}
			norms++
			checkMoments(t, seed, r, i, x)
		}
	}
	if norms < 10 {
		t.Errorf("only %d batch normalisations in all graphs", norms)
	}
}

func checkMoments(t *testing.T, seed uint64, g *model.Graph, i int, x []float32) {
	t.Helper()
	l, size := &g.Layers[i], g.Input.Elements()
	mean, variance := l.Params[model.Mean].Data, l.Params[model.Variance].Data
	values := make([][]float64, len(mean))
	for k := 0; k < len(x); k += size {
		in := x[k : k+size]
		outs, err := modeltest.Run(g, in)
		if err != nil {
			t.Fatal(err)
		}
		if j := l.Inputs[0]; j != model.Input {
			in = outs[j]
		}
		for e, v := range in {
			values[e%len(mean)] = append(values[e%len(mean)], float64(v))
		}
	}
	for c, v := range values {
		m, s := 0.0, 0.0
		for _, y := range v {
			m += y / float64(len(v))
		}
		for _, y := range v {
			s += (y - m) * (y - m) / float64(len(v))
		}
		scale := math.Sqrt(s) + math.Abs(m) + 1e-3
		if math.Abs(m-float64(mean[c])) > 1e-3*scale || math.Abs(s-float64(variance[c])) > 1e-3*scale*scale {
			t.Fatalf("seed %d: layer %q, channel %d: mean %v and variance %v, want %v and %v", seed, l.Name, c, mean[c], variance[c], m, s)
		}
	}
}

func TestRecalibrateErrors(t *testing.T) {
	g := modeltest.Graph(1)
	for _, n := range []int{0, g.Input.Elements() - 1, g.Input.Elements() + 1} {
		if _, err := Recalibrate(g, make([]float32, n)); !errors.Is(err, ErrWeights) {
			t.Errorf("%d values: error %v", n, err)
		}
	}
	if _, err := Recalibrate(&model.Graph{Input: model.Shape{1}}, make([]float32, 1)); !errors.Is(err, model.ErrGraph) {
		t.Errorf("an invalid graph: error %v", err)
	}
}
