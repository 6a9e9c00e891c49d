package problem

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/espalier-ml/espalier/search"
	"github.com/espalier-ml/espalier/search/pareto"
)

func TestGet(t *testing.T) {
	for _, name := range Names() {
		p, err := Get(name)
		if err != nil || p.Name != name {
			t.Fatalf("%s: %v", name, err)
		}
		if err := p.Space.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		rng := search.Rand(1, 1)
		for range 100 {
			objectives := p.Evaluate(p.Space.Sample(rng))
			if len(objectives) != len(p.Reference) {
				t.Fatalf("%s: %d objectives, reference %v", name, len(objectives), p.Reference)
			}
			if hv := pareto.Hypervolume([][]float64{objectives}, p.Reference); hv > p.Best || math.IsNaN(hv) {
				t.Fatalf("%s: one point has hypervolume %v, the front %v", name, hv, p.Best)
			}
		}
	}
	if _, err := Get("zdt5"); !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "zdt4, zdt6") {
		t.Errorf("unknown name: %v", err)
	}
}

// TestBest compares the stated hypervolume with that of configurations known to be optimal.
func TestBest(t *testing.T) {
	for name, optimum := range map[string]float64{"zdt1": 0, "zdt2": 0, "zdt3": 0, "zdt4": 0, "zdt6": 0, "dtlz1": 0.5, "dtlz2": 0.5, "dtlz7": 0} {
		for _, suffix := range []string{"", suffix} {
			p, err := Get(name + suffix)
			if err != nil {
				t.Fatal(err)
			}
			c := make(search.Config, len(p.Space.Params))
			for i := range c {
				c[i] = optimum
				if suffix == "" || i < len(p.Reference)-1 {
					continue
				}
				low, high := p.Space.Params[i].Bounds()
				c[i] = low + (0.3+0.7*(optimum-low)/(high-low))*(high-low)
				if u := 0.3 + 0.7*(optimum-low)/(high-low); u > 1 {
					t.Fatalf("%s: the optimum %v lies outside the box", p.Name, u)
				}
			}
			var points [][]float64
			if len(p.Reference) == 2 {
				for i := range 20001 {
					c[0] = float64(i) / 20000
					points = append(points, p.Evaluate(c))
				}
			} else {
				for i := range 301 * 301 {
					c[0], c[1] = float64(i%301)/300, float64(i/301)/300
					points = append(points, p.Evaluate(c))
				}
			}
			got := pareto.Hypervolume(points, p.Reference)
			if got > p.Best*(1+1e-5) || got < p.Best*0.998 || len(p.Reference) == 2 && got < p.Best*0.9999 {
				t.Errorf("%s: the optimal configurations have %v, best is said to be %v", p.Name, got, p.Best)
			}
		}
	}
}

func TestBestOfLevels(t *testing.T) {
	p := levels()
	var points [][]float64
	for i := range 8 * 8 * 8 * 8 * 2 * 6 {
		c := make(search.Config, 7)
		for j := range 4 {
			c[j], i = float64(i%8), i/8
		}
		c[4], i = float64(i%2), i/2
		c[5], c[6] = 1, float64(i+3)
		if i == 0 {
			c[5], c[6] = 0, math.NaN()
		}
		if err := p.Space.Check(c); err != nil {
			t.Fatal(err)
		}
		points = append(points, p.Evaluate(c))
	}
	if float64(len(points)) != p.Space.Size() {
		t.Fatalf("%d configurations of %v", len(points), p.Space.Size())
	}
	if got := pareto.Hypervolume(points, p.Reference); math.Abs(got-p.Best) > 1e-6 {
		t.Errorf("best is said to be %v, it is %v", p.Best, got)
	}
}
