package zoo

import (
	"errors"
	"math"
	"testing"

	"github.com/espalier-ml/espalier/model"
)

// The parameters and MACs of the MLPerf Tiny networks are those of the reference
// models (Keras' summary); seed-cnn's are the design's.
func TestBuildCosts(t *testing.T) {
	for _, tt := range []struct {
		name         string
		input        model.Shape
		classes      int
		params, macs int64
		out          int
	}{
		{"mlp-784-128-10", model.Shape{28, 28, 1}, 10, 101770, 101632, 10},
		{"mlp-784-128-10", model.Shape{43}, 6, 43*128 + 128 + 128*6 + 6, 43*128 + 128*6, 6},
		{"lenet-300-100", model.Shape{28, 28, 1}, 10, 266610, 266200, 10},
		{"lenet-5", model.Shape{28, 28, 1}, 10, 61706, 416520, 10},
		{"lenet-5", model.Shape{32, 32, 1}, 10, 61706, 416520, 10},
		{"seed-cnn", model.Shape{32, 32, 3}, 10, 122570, 4548608, 10},
		{"resnet-8", model.Shape{32, 32, 3}, 10, 78666, 12501632, 10},
		{"ds-cnn", model.Shape{49, 10, 1}, 12, 24908, 2656768, 12},
		{"mobilenet-025", model.Shape{96, 96, 3}, 2, 221794, 7489664, 2},
		{"autoencoder-fc", model.Shape{640}, 0, 269992, 264192, 640},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g, err := Build(tt.name, tt.input, tt.classes, 1)
			if err != nil {
				t.Fatal(err)
			}
			c, err := g.Cost()
			if err != nil {
				t.Fatal(err)
			}
			if c.Params != tt.params || c.MACs != tt.macs {
				t.Errorf("params %d, MACs %d: want %d and %d", c.Params, c.MACs, tt.params, tt.macs)
			}
			shapes, err := g.Shapes()
			if err != nil {
				t.Fatal(err)
			}
			if got := shapes[len(shapes)-1]; !got.Equal(model.Shape{tt.out}) {
				t.Errorf("output %v: want %d", got, tt.out)
			}
		})
	}
}

func TestBuildEveryNameIsDescribedAndSeeded(t *testing.T) {
	for _, name := range Names() {
		if s, err := Describe(name); err != nil || s == "" {
			t.Errorf("%s: description %q, error %v", name, s, err)
		}
		input, classes := model.Shape{32, 32, 3}, 7
		if name == "autoencoder-fc" {
			classes = 0
		}
		build := func(seed uint64) *model.Graph {
			g, err := Build(name, input, classes, seed)
			if err != nil {
				t.Fatal(err)
			}
			return g
		}
		a, same, other := build(3), build(3), build(4)
		differs := false
		for i := range a.Layers {
			for p, x := range a.Layers[i].Params {
				if !x.Finite() {
					t.Errorf("%s: %s.%s is not finite", name, a.Layers[i].Name, p)
				}
				for k := range x.Data {
					if math.Float32bits(x.Data[k]) != math.Float32bits(same.Layers[i].Params[p].Data[k]) {
						t.Fatalf("%s: %s.%s differs for one seed", name, a.Layers[i].Name, p)
					}
					differs = differs || x.Data[k] != other.Layers[i].Params[p].Data[k]
				}
			}
		}
		if !differs {
			t.Errorf("%s: seeds 3 and 4 give the same parameters", name)
		}
	}
}

func TestInitialRange(t *testing.T) {
	g, err := Build("seed-cnn", model.Shape{32, 32, 3}, 10, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range g.Layers {
		w := l.Params[model.Weight]
		if w == nil {
			continue
		}
		bound := 1 / math.Sqrt(float64(w.Shape.Elements()/w.Shape[len(w.Shape)-1]))
		var sum, top float64
		for _, v := range w.Data {
			sum += float64(v) * float64(v)
			top = max(top, math.Abs(float64(v)))
		}
		std, want := math.Sqrt(sum/float64(len(w.Data))), bound/math.Sqrt(3)
		if top > bound || math.Abs(std/want-1) > 0.1 {
			t.Errorf("%s: largest %v of %v, standard deviation %v: want %v", l.Name, top, bound, std, want)
		}
	}
}

func TestBuildErrors(t *testing.T) {
	img := model.Shape{28, 28, 1}
	for _, tt := range []struct {
		name    string
		input   model.Shape
		classes int
		want    error
	}{
		{"lenet-6", img, 10, ErrName},
		{"lenet-5", model.Shape{11, 28, 1}, 10, ErrInput},
		{"lenet-5", model.Shape{784}, 10, ErrInput},
		{"seed-cnn", model.Shape{17, 17, 1}, 10, ErrInput},
		{"resnet-8", model.Shape{784}, 10, ErrInput},
		{"ds-cnn", model.Shape{784}, 10, ErrInput},
		{"mobilenet-025", model.Shape{784}, 10, ErrInput},
		{"seed-cnn", img, 0, ErrInput},
		{"seed-cnn", img, MaxClasses + 1, ErrInput},
		{"seed-cnn", model.Shape{28, 28}, 10, ErrInput},
		{"seed-cnn", model.Shape{28, -28, 1}, 10, ErrInput},
		{"seed-cnn", nil, 10, ErrInput},
		{"lenet-300-100", model.Shape{1 << 15, 1 << 15, 1}, 10, ErrInput},
		{"autoencoder-fc", model.Shape{640}, 10, ErrInput},
	} {
		if _, err := Build(tt.name, tt.input, tt.classes, 1); !errors.Is(err, tt.want) {
			t.Errorf("%s for %v and %d classes: error %v: want %v", tt.name, tt.input, tt.classes, err, tt.want)
		}
	}
	if _, err := Describe("lenet-6"); !errors.Is(err, ErrName) {
		t.Errorf("describe: error %v", err)
	}
	if _, err := Build("seed-cnn", model.Shape{18, 18, 1}, 10, 1); err != nil {
		t.Errorf("smallest seed-cnn: %v", err)
	}
}
