package zoo

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/espalier-ml/espalier/model"
)

// MaxParams bounds the parameters of a network that this package builds.
const MaxParams = 1 << 28

// initialise gives every layer fresh parameters as PyTorch does: weights of
// convolutions and fully connected layers from Kaiming's uniform distribution
// with a = √5 (He et al. 2015), that is ±1/√fan-in, biases from the same range;
// batch normalisation starts as the identity. Each layer draws from its own stream
// of (seed, layer index), so that a layer's values do not depend on the others.
func initialise(g *model.Graph, seed uint64) error {
	shapes, err := g.Shapes()
	if err != nil {
		return err
	}
	total := 0
	for i := range g.Layers {
		l := &g.Layers[i]
		want := model.ParamShapes(l.Op, g.InputShapes(i, shapes)[0])
		for name, s := range want {
			if err := s.Check(); err != nil {
				return fmt.Errorf("layer %q: %s: %w", l.Name, name, err)
			}
			if total += s.Elements(); total > MaxParams {
				return fmt.Errorf("layer %q: more than %d parameters", l.Name, MaxParams)
			}
		}
	}
	for i := range g.Layers {
		l := &g.Layers[i]
		l.Params = map[string]*model.Tensor{}
		for name, s := range model.ParamShapes(l.Op, g.InputShapes(i, shapes)[0]) {
			l.Params[name] = model.NewTensor(s...)
		}
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		if w := l.Params[model.Weight]; w != nil {
			fanIn := w.Shape.Elements() / w.Shape[len(w.Shape)-1]
			bound := 1 / math.Sqrt(float64(fanIn))
			uniform(r, w, bound)
			uniform(r, l.Params[model.Bias], bound)
		}
		for _, name := range []string{model.Scale, model.Variance} {
			fill(l.Params[name], 1)
		}
	}
	return nil
}

func uniform(r *rand.Rand, t *model.Tensor, bound float64) {
	if t == nil {
		return
	}
	for i := range t.Data {
		t.Data[i] = float32((2*r.Float64() - 1) * bound)
	}
}

func fill(t *model.Tensor, v float32) {
	if t == nil {
		return
	}
	for i := range t.Data {
		t.Data[i] = v
	}
}
