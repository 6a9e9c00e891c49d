package kernel

import (
	"fmt"
	"math"
)

// SGDStep holds the parameters of one step of stochastic gradient descent with momentum, as PyTorch defines it.
type SGDStep struct {
	Rate      float64 // learning rate, > 0
	Momentum  float64 // in [0, 1)
	Nesterov  bool
	Decay     float64 // weight decay, added to the gradient (L2)
	L1        float64 // added to the gradient as L1·sign(w)
	GradScale float64 // factor of the gradient, for clipping; 0 means 1
}

// SGD updates weights w and velocities v by the gradient g, element by element, so that any division of the slices
// between goroutines gives the same bits:
//
//	g' = GradScale·g + Decay·w + L1·sign(w);  v = Momentum·v + g';  w -= Rate·v  (Nesterov: Rate·(g' + Momentum·v))
func SGD(s *Scratch, w, v, g []float32, p SGDStep) error {
	im, err := current()
	if err := firstErr(err, same(len(w), []string{"v", "g"}, v, g), checkParams(p.Rate, p.Decay, p.L1, p.GradScale,
		fraction{"momentum", p.Momentum})); err != nil || len(w) == 0 {
		return err
	}
	s = s.orNew()
	cv, cg := p.Rate, 0.0
	if p.Nesterov {
		cv, cg = p.Rate*p.Momentum, p.Rate
	}
	s.sgd = [6]float32{float32(scaleOrOne(p.GradScale)), float32(p.Decay), float32(p.L1), float32(p.Momentum), float32(cv), float32(cg)}
	im.sgd(addr(w, 0), addr(v, 0), addr(g, 0), len(w), &s.sgd)
	return nil
}

// AdamStep holds the parameters of one step of Adam (Kingma and Ba, 2015) or AdamW (Loshchilov and Hutter, 2019).
type AdamStep struct {
	Rate         float64 // learning rate, > 0
	Beta1, Beta2 float64 // in [0, 1); both zero mean 0.9 and 0.999
	Epsilon      float64 // zero means 1e-8
	Decay        float64 // weight decay
	Decoupled    bool    // AdamW: the decay shrinks w directly instead of entering the gradient
	L1           float64 // added to the gradient as L1·sign(w)
	GradScale    float64 // factor of the gradient; 0 means 1
	Step         int     // number of this step, from 1
}

// Adam updates weights w and moments m, v by the gradient g, element by element.
func Adam(s *Scratch, w, m, v, g []float32, p AdamStep) error {
	im, err := current()
	if p.Beta1 == 0 && p.Beta2 == 0 {
		p.Beta1, p.Beta2 = 0.9, 0.999
	}
	if p.Epsilon == 0 {
		p.Epsilon = 1e-8
	}
	if err := firstErr(err, same(len(w), []string{"m", "v", "g"}, m, v, g), checkParams(p.Rate, p.Decay, p.L1, p.GradScale,
		fraction{"beta1", p.Beta1}, fraction{"beta2", p.Beta2})); err != nil || len(w) == 0 {
		return err
	}
	if p.Step < 1 || !(p.Epsilon > 0) {
		return fmt.Errorf("adam step is %d and epsilon %g, want at least 1 and more than 0: %w", p.Step, p.Epsilon, ErrParam)
	}
	decay, shrink := p.Decay, 1.0
	if p.Decoupled {
		decay, shrink = 0, 1-p.Rate*p.Decay
	}
	c1, c2 := 1-math.Pow(p.Beta1, float64(p.Step)), 1-math.Pow(p.Beta2, float64(p.Step))
	s = s.orNew()
	for i, h := range [...]float64{scaleOrOne(p.GradScale), decay, p.L1, p.Beta1, 1 - p.Beta1, p.Beta2, 1 - p.Beta2, p.Rate / c1,
		1 / math.Sqrt(c2), p.Epsilon, shrink} {
		s.adam[i] = float32(h)
	}
	im.adam(addr(w, 0), addr(m, 0), addr(v, 0), addr(g, 0), len(w), &s.adam)
	return nil
}

func scaleOrOne(s float64) float64 {
	if s == 0 {
		return 1
	}
	return s
}

type fraction struct {
	name string
	v    float64
}

func checkParams(rate, decay, l1, scale float64, fs ...fraction) error {
	if !(rate > 0) || math.IsInf(rate, 1) {
		return fmt.Errorf("learning rate is %g, want more than 0: %w", rate, ErrParam)
	}
	if !(decay >= 0) || !(l1 >= 0) || math.IsInf(decay+l1, 1) {
		return fmt.Errorf("decay is %g and l1 %g, want at least 0: %w", decay, l1, ErrParam)
	}
	if math.IsNaN(scale) || math.IsInf(scale, 0) {
		return fmt.Errorf("gradient scale is %g, want a finite number: %w", scale, ErrParam)
	}
	for _, f := range fs {
		if !(f.v >= 0 && f.v < 1) {
			return fmt.Errorf("%s is %g, want at least 0 and less than 1: %w", f.name, f.v, ErrParam)
		}
	}
	return nil
}
