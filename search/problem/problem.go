// Package problem holds search problems whose best fronts are known, to measure samplers with.
package problem

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/espalier-ml/espalier/search"
)

// ErrUnknown marks a name that no problem has.
var ErrUnknown = errors.New("unknown problem")

// Problem is a function from configurations to objectives, all of them better when lower.
type Problem struct {
	Name  string
	Space search.Space
	// Reference bounds the hypervolume; its length is the number of objectives.
	Reference []float64
	// Best is the hypervolume of the true front within the reference, or the best that is known.
	Best float64
	// Evaluate returns the objectives of a valid configuration. It is safe for concurrent use.
	Evaluate func(search.Config) []float64
}

// suffix marks the copies whose optimum lies away from the box's edge and centre.
const suffix = "-shifted"

// Get returns the named problem; an unknown name is an ErrUnknown that lists those known.
//
// ZDT1–4 and 6 are from Zitzler, Deb, Thiele: Comparison of multiobjective evolutionary algorithms (2000); DTLZ1, 2 and 7
// with three objectives from Deb, Thiele, Laumanns, Zitzler: Scalable test problems (2005). A "-shifted" copy replaces
// each distance variable x, on its unit scale, by |x − 0.3| / 0.7. "levels" resembles pruning: four groups with eight
// levels to keep, two criteria, and quantization with a conditional width; its front is found by enumeration. "pruning" is
// closer still, with conditional sparsities on a scale; its front is only the best that is known.
func Get(name string) (Problem, error) {
	for _, p := range all() {
		if p.Name == name {
			return p, nil
		}
	}
	return Problem{}, fmt.Errorf("%w %q: it must be one of %s", ErrUnknown, name, strings.Join(Names(), ", "))
}

// Names lists the problems.
func Names() []string {
	var names []string
	for _, p := range all() {
		names = append(names, p.Name)
	}
	return names
}

func all() []Problem {
	bounded := []Problem{zdt1(), zdt2(), zdt3(), zdt4(), zdt6(), dtlz1(), dtlz2(), dtlz7()}
	out := slices.Clone(bounded)
	for _, p := range bounded {
		out = append(out, shifted(p))
	}
	return append(out, levels(), pruning())
}

// shifted moves the optimum of the distance variables; the objectives' image, and so the front, stays the same.
func shifted(p Problem) Problem {
	inner, positions := p.Evaluate, len(p.Reference)-1
	p.Name += suffix
	p.Evaluate = func(c search.Config) []float64 {
		moved := slices.Clone(c)
		for i := positions; i < len(c); i++ {
			low, high := p.Space.Params[i].Bounds()
			u := (c[i] - low) / (high - low)
			moved[i] = low + math.Abs(u-0.3)/0.7*(high-low)
		}
		return inner(moved)
	}
	return p
}

// box returns n floats x0, x1, … in [low, high].
func box(n int, low, high float64) []search.Param {
	params := make([]search.Param, n)
	for i := range params {
		params[i] = search.Param{Name: fmt.Sprintf("x%d", i), Kind: search.Float, Min: low, Max: high}
	}
	return params
}

// zdtDistance is the g of ZDT1 to 3: 1 at x1 = x2 = … = 0.
func zdtDistance(c search.Config) float64 {
	var sum float64
	for _, x := range c[1:] {
		sum += x
	}
	return 1 + 9*sum/float64(len(c)-1)
}

func zdt1() Problem {
	return Problem{"zdt1", search.Space{Params: box(30, 0, 1)}, []float64{11, 11}, 121 - 1.0/3, func(c search.Config) []float64 {
		g := zdtDistance(c)
		return []float64{c[0], g * (1 - math.Sqrt(c[0]/g))}
	}}
}

func zdt2() Problem {
	return Problem{"zdt2", search.Space{Params: box(30, 0, 1)}, []float64{11, 11}, 121 - 2.0/3, func(c search.Config) []float64 {
		g := zdtDistance(c)
		return []float64{c[0], g * (1 - c[0]/g*(c[0]/g))}
	}}
}

func zdt3() Problem {
	return Problem{"zdt3", search.Space{Params: box(30, 0, 1)}, []float64{11, 11}, 128.7781, func(c search.Config) []float64 {
		g := zdtDistance(c)
		return []float64{c[0], g * (1 - math.Sqrt(c[0]/g) - c[0]/g*math.Sin(10*math.Pi*c[0]))}
	}}
}

func zdt4() Problem {
	space := search.Space{Params: append(box(1, 0, 1), box(10, -5, 5)[1:]...)}
	return Problem{"zdt4", space, []float64{11, 200}, 11*200 - 1.0/3, func(c search.Config) []float64 {
		g := 1 + 10*float64(len(c)-1)
		for _, x := range c[1:] {
			g += x*x - 10*math.Cos(4*math.Pi*x)
		}
		g = max(g, 1) // rounding may leave it just below its minimum
		return []float64{c[0], g * (1 - math.Sqrt(c[0]/g))}
	}}
}

func zdt6() Problem {
	return Problem{"zdt6", search.Space{Params: box(10, 0, 1)}, []float64{11, 11}, 117.5185, func(c search.Config) []float64 {
		var sum float64
		for _, x := range c[1:] {
			sum += x
		}
		f := 1 - math.Exp(-4*c[0])*math.Pow(math.Sin(6*math.Pi*c[0]), 6)
		g := 1 + 9*math.Pow(sum/9, 0.25)
		return []float64{f, g * (1 - f/g*(f/g))}
	}}
}

func dtlz1() Problem {
	const r = 100.0
	return Problem{"dtlz1", search.Space{Params: box(7, 0, 1)}, []float64{r, r, r}, r*r*r - 1.0/48, func(c search.Config) []float64 {
		var g float64
		for _, x := range c[2:] {
			g += 1 + (x-0.5)*(x-0.5) - math.Cos(20*math.Pi*(x-0.5))
		}
		h := 0.5 * (1 + 100*max(g, 0))
		return []float64{h * c[0] * c[1], h * c[0] * (1 - c[1]), h * (1 - c[0])}
	}}
}

func dtlz2() Problem {
	const r = 2.5
	return Problem{"dtlz2", search.Space{Params: box(12, 0, 1)}, []float64{r, r, r}, r*r*r - math.Pi/6, func(c search.Config) []float64 {
		h := 1.0
		for _, x := range c[2:] {
			h += (x - 0.5) * (x - 0.5)
		}
		a, b := c[0]*math.Pi/2, c[1]*math.Pi/2
		return []float64{h * math.Cos(a) * math.Cos(b), h * math.Cos(a) * math.Sin(b), h * math.Sin(a)}
	}}
}

func dtlz7() Problem {
	return Problem{"dtlz7", search.Space{Params: box(22, 0, 1)}, []float64{1.1, 1.1, 25}, 24.96, func(c search.Config) []float64 {
		var sum float64
		for _, x := range c[2:] {
			sum += x
		}
		g := 1 + 9*sum/20
		h := 3.0
		for _, f := range c[:2] {
			h -= f / (1 + g) * (1 + math.Sin(3*math.Pi*f))
		}
		return []float64{c[0], c[1], (1 + g) * h}
	}}
}

// levels is a small discrete space with costs that couple neighbouring groups, as pruned layers do, and an error that
// rises slowly, then steeply, at a different place in each group.
func levels() Problem {
	keep := []string{"1", "0.7", "0.5", "0.35", "0.25", "0.18", "0.12", "0.06"}
	fractions := []float64{1, 0.7, 0.5, 0.35, 0.25, 0.18, 0.12, 0.06}
	var params []search.Param
	for i := range 4 {
		params = append(params, search.Param{Name: fmt.Sprintf("keep%d", i), Kind: search.Choice, Choices: keep, Ordered: true})
	}
	params = append(params,
		search.Param{Name: "criterion", Kind: search.Choice, Choices: []string{"l1", "taylor"}},
		search.Param{Name: "quantize", Kind: search.Choice, Choices: []string{"none", "int"}},
		search.Param{Name: "bits", Kind: search.Int, Min: 4, Max: 8, When: &search.Condition{Param: "quantize", Values: []string{"int"}}})
	channels := []float64{16, 32, 48, 64}
	pain := []float64{0.5, 1.6, 0.9, 0.25}
	return Problem{"levels", search.Space{Params: params}, []float64{1, 1, 1}, 0.5227185, func(c search.Config) []float64 {
		var loss, weights, work float64
		in := 3.0
		for i, n := range channels {
			f := fractions[int(c[i])]
			if c[4] == 1 && i%2 == 0 {
				loss += 0.8 * pain[i] * (1/f - 1)
			} else {
				loss += pain[i] * (1/f - 1)
			}
			weights += 9 * in * n * f
			work += 9 * in * n * f * math.Pow(4, float64(3-i))
			in = n * f
		}
		width, speed := 32.0, 1.0
		if c[5] == 1 {
			width, speed = c[6], 0.6
			loss += math.Pow(2, 6-c[6])
		}
		accuracy := 0.93 - 0.8*loss/(loss+40)
		return []float64{
			min((1-accuracy)/0.5, 1),
			logScale(weights*width/(46512*32), 1000),
			logScale(work*speed/184320, 100),
		}
	}}
}
