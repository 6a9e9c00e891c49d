package infer

import (
	"cmp"
	"slices"

	"github.com/espalier-ml/espalier/model/kernel"
)

// program is the steps of a plan with the numbers of their values.
type program struct {
	steps  []step
	info   []Layer // one per step
	sizes  []int   // of values, for one example
	out    int     // the value that is the output
	origin []int   // by value: where it lies in the memory of one example, -1 if nowhere
	total  int     // memory of one example
}

// lastUses gives, by value, the last step that reads it; the output is read
// after the last step.
func (p *program) lastUses() []int {
	last := make([]int, len(p.sizes))
	for i := range last {
		last[i] = -1
	}
	for i, s := range p.steps {
		for _, in := range s.inputs() {
			last[*in] = i
		}
	}
	last[p.out] = len(p.steps)
	return last
}

// rename makes every step use value to instead of from.
func (p *program) rename(from, to int) {
	for _, s := range p.steps {
		for _, v := range append(s.inputs(), s.output()) {
			if *v == from {
				*v = to
			}
		}
	}
	if p.out == from {
		p.out = to
	}
}

// writer gives the step that first writes value v, or -1 for the input.
func (p *program) writer(v int) int {
	return slices.IndexFunc(p.steps, func(s step) bool { return *s.output() == v })
}

// fuseSums makes a convolution or fully connected layer whose result is only
// added to another value, which is not needed afterwards, add to that value in
// place.
func (p *program) fuseSums() {
	for i := 0; i < len(p.steps); i++ {
		a, ok := p.steps[i].(*addStep)
		if !ok {
			continue
		}
		if p.fuseSum(i, a, a.b, a.a) || p.fuseSum(i, a, a.a, a.b) {
			p.steps = slices.Delete(p.steps, i, i+1)
			p.info = slices.Delete(p.info, i, i+1)
			i--
		}
	}
}

// fuseSum tries to let the step that computes value from add to value onto.
func (p *program) fuseSum(i int, a *addStep, from, onto int) bool {
	last := p.lastUses()
	w := p.writer(from)
	if from == onto || w < 0 || onto == inputValue || last[from] != i || last[onto] != i || p.writer(onto) > w {
		return false
	}
	for k, s := range p.steps { // nobody else may read from, or onto after step w
		for _, in := range s.inputs() {
			if k != i && *in == from || k != i && k >= w && *in == onto {
				return false
			}
		}
	}
	switch s := p.steps[w].(type) {
	case *convStep:
		if s.act != kernel.None || s.sum {
			return false
		}
		s.act, s.sum, s.out = a.act, true, onto
	case *denseStep:
		if s.act != kernel.None || s.sum {
			return false
		}
		s.act, s.sum, s.out = a.act, true, onto
	default:
		return false
	}
	p.info[w].Fused = append(append(p.info[w].Fused, p.info[i].Name), p.info[i].Fused...)
	p.rename(a.out, onto)
	return true
}

// inPlace lets element-wise steps overwrite an input that they are the last to
// read.
func (p *program) inPlace() {
	for i, s := range p.steps {
		switch s.(type) {
		case *affineStep, *rectifyStep, *functionStep, *addStep, *softmaxStep:
		default:
			continue
		}
		last := p.lastUses()
		for _, in := range s.inputs() {
			if *in != inputValue && last[*in] == i && p.sizes[*in] == p.sizes[*s.output()] {
				p.rename(*s.output(), *in)
				break
			}
		}
	}
}

// align starts every value at a multiple of 64 bytes.
const align = 16

// place gives every value but the input and the output its place in memory:
// the largest first, each at the lowest place that is free while it is alive.
func (p *program) place() {
	last := p.lastUses()
	first := make([]int, len(p.sizes))
	p.origin = make([]int, len(p.sizes))
	var order []int
	for v := range p.sizes {
		p.origin[v] = -1
		first[v] = p.writer(v)
		if v != inputValue && v != p.out && first[v] >= 0 {
			order = append(order, v)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(p.sizes[b], p.sizes[a]) })
	padded := func(v int) int { return (p.sizes[v] + align - 1) / align * align }
	for k, v := range order {
		var taken [][2]int
		for _, u := range order[:k] {
			if first[u] <= last[v] && first[v] <= last[u] {
				taken = append(taken, [2]int{p.origin[u], p.origin[u] + padded(u)})
			}
		}
		slices.SortFunc(taken, func(a, b [2]int) int { return cmp.Compare(a[0], b[0]) })
		at := 0
		for _, t := range taken {
			if at+padded(v) <= t[0] {
				break
			}
			at = max(at, t[1])
		}
		p.origin[v] = at
		p.total = max(p.total, at+padded(v))
	}
}
