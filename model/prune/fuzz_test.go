package prune

import (
	"testing"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/modeltest"
)

// FuzzPrune: whatever valid structure arrives, every strategy plans and the surgery
// gives a valid graph with the same output.
func FuzzPrune(f *testing.F) {
	for seed := range uint64(30) {
		b, err := model.MarshalStructure(modeltest.Graph(seed))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, uint8(seed*8))
	}
	f.Fuzz(func(t *testing.T, b []byte, level uint8) {
		g, err := model.UnmarshalStructure(b)
		if err != nil || !fill(g) {
			return
		}
		groups, err := Groups(g)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range Names() {
			s := lookup(t, name)
			target := Uniform(groups, float64(level)/255, float64(level)/255)
			if !s.Info().Structured {
				target.Channels = nil
			}
			if !s.Info().Unstructured {
				target.Weights = nil
			}
			p, err := s.Plan(Input{Graph: g, Target: target, Gradients: gradients(g)})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			small, _, err := Rebuild(g, p)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			was, _ := g.Shapes()
			is, _ := small.Shapes()
			if !is[len(is)-1].Equal(was[len(was)-1]) {
				t.Fatalf("%s: output %v became %v", name, was[len(was)-1], is[len(is)-1])
			}
		}
	})
}

// fill gives a graph parameters if it is small; large ones say nothing more.
func fill(g *model.Graph) bool {
	shapes, err := g.Shapes()
	if err != nil {
		return false
	}
	total := 0
	for i := range g.Layers {
		total += shapes[i][len(shapes[i])-1]
		for _, s := range model.ParamShapes(g.Layers[i].Op, g.InputShapes(i, shapes)[0]) {
			if s.Check() != nil {
				return false
			}
			total += s.Elements()
		}
		if total > 1<<14 {
			return false
		}
	}
	modeltest.Fill(g, 1)
	return true
}
