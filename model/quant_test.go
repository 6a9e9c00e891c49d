package model_test

import (
	"errors"
	"math"
	"testing"

	"github.com/espalier-ml/espalier/model"
)

// int8Graph is conv → relu → flatten → dense, the two with weights on bytes.
func int8Graph() *model.Graph {
	conv := &model.Tensor{Shape: model.Shape{1, 1, 1, 2}, Data: []float32{0.5, -2}}
	bias := &model.Tensor{Shape: model.Shape{2}, Data: []float32{0.25, 0}}
	dense := &model.Tensor{Shape: model.Shape{8, 1}, Data: []float32{1, 2, 3, 4, 5, 6, 7, 127}}
	return &model.Graph{Input: model.Shape{2, 2, 1}, Layers: []model.Layer{
		{Name: "conv", Op: conv11(2), Inputs: []int{model.Input}, Params: map[string]*model.Tensor{model.Weight: conv, model.Bias: bias}},
		{Name: "relu", Op: model.Activation{Func: model.ReLU}, Inputs: []int{0}},
		{Name: "flat", Op: model.Flatten{}, Inputs: []int{1}},
		{Name: "fc", Op: model.Dense{Out: 1}, Inputs: []int{2}, Params: map[string]*model.Tensor{model.Weight: dense}},
	}, Quant: &model.Quant{
		Input:   model.Affine{Scale: 0.5, Zero: 10},
		Layers:  map[string]model.Affine{"relu": {Scale: 1}, "flat": {Scale: 1}, "fc": {Scale: 2, Zero: 1}},
		Weights: map[string][]float32{"conv": {0.5, 1}, "fc": {1}},
	}}
}

func conv11(out int) model.Conv {
	c := conv(out, 1, 0, 1)
	c.Bias = true
	return c
}

func TestQuantIsChecked(t *testing.T) {
	if err := int8Graph().Validate(); err != nil {
		t.Fatal(err)
	}
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for name, change := range map[string]func(g *model.Graph){
		"input scale":               func(g *model.Graph) { g.Quant.Input.Scale = nan },
		"output scale":              func(g *model.Graph) { g.Quant.Layers["relu"] = model.Affine{Scale: -1} },
		"weight scale":              func(g *model.Graph) { g.Quant.Weights["fc"][0] = inf },
		"weight scale of 0":         func(g *model.Graph) { g.Quant.Weights["fc"][0] = 0 },
		"too few scales":            func(g *model.Graph) { g.Quant.Weights["conv"] = []float32{1} },
		"no such output":            func(g *model.Graph) { g.Quant.Layers["none"] = model.Affine{Scale: 1} },
		"no such weights":           func(g *model.Graph) { g.Quant.Weights["none"] = []float32{1} },
		"weights of a relu":         func(g *model.Graph) { g.Quant.Weights["relu"] = []float32{1} },
		"a weight between":          func(g *model.Graph) { g.Layers[3].Params[model.Weight].Data[0] = 1.5 },
		"a weight of 128":           func(g *model.Graph) { g.Layers[3].Params[model.Weight].Data[0] = 128 },
		"a weight that is none":     func(g *model.Graph) { g.Layers[3].Params[model.Weight].Data[0] = nan },
		"the input is not bytes":    func(g *model.Graph) { g.Quant.Input = model.Affine{} },
		"the output is not bytes":   func(g *model.Graph) { delete(g.Quant.Layers, "relu") },
		"the result is not bytes":   func(g *model.Graph) { delete(g.Quant.Layers, "fc") },
		"a bias of too many units":  func(g *model.Graph) { g.Layers[0].Params[model.Bias].Data[0] = 1e9 },
		"a bias that is no number":  func(g *model.Graph) { g.Layers[0].Params[model.Bias].Data[0] = nan },
		"units of a bias underflow": func(g *model.Graph) { g.Quant.Input.Scale = 1e-45 },
	} {
		t.Run(name, func(t *testing.T) {
			g := int8Graph()
			change(g)
			if err := g.Validate(); !errors.Is(err, model.ErrQuant) {
				t.Errorf("error %v: want %v", err, model.ErrQuant)
			}
			g.SettleQuant()
			g.Layers[3].Params[model.Weight].Data[0] = 1
			if err := g.Validate(); err != nil {
				t.Errorf("settled: %v", err)
			}
		})
	}
}

func TestQuantSettles(t *testing.T) {
	g := int8Graph()
	c := g.Clone()
	g.Quant.Weights["fc"][0], g.Quant.Layers["relu"] = 5, model.Affine{}
	if err := c.Validate(); err != nil {
		t.Errorf("the clone changes with its original: %v", err)
	}
	g.SettleQuant()
	if g.Quant != nil {
		t.Errorf("%+v: want none, as no layer can be on bytes", g.Quant)
	}
	c.Layers[0].Params[model.Weight].Data[0] = 0.7
	c.SettleQuant()
	if c.Quant == nil || c.Quant.Weights["conv"] != nil || c.Quant.Weights["fc"] == nil {
		t.Errorf("%+v: want the layer that did not change", c.Quant)
	}
	if err := c.WantFloat(); !errors.Is(err, model.ErrQuant) {
		t.Errorf("error %v: want %v", err, model.ErrQuant)
	}
}

func TestQuantSurvivesSimplify(t *testing.T) {
	g := int8Graph()
	g.Layers = append(g.Layers, model.Layer{Name: "drop", Op: model.Dropout{Rate: 0.5}, Inputs: []int{3}})
	s, err := model.Simplify(g)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Layers) != 4 || s.Quant == nil || len(s.Quant.Weights) != 2 {
		t.Errorf("%d layers, %+v", len(s.Layers), s.Quant)
	}
}
