package train

import "github.com/espalier-ml/espalier/model"

// span is where one tensor of the graph lies in the flat vector of parameters.
type span struct {
	layer    int
	name     string
	off, len int
	weight   bool // of a convolution or fully connected layer: decay and L1 apply
}

// params holds the trained parameters and their gradients, each as one flat
// vector in the order of the layers, so that the optimizer is a few long loops.
// The running statistics of normalisation are in state.
type params struct {
	graph *model.Graph
	spans []span
	w, g  []float32
	state map[int]map[string][]float32
}

// align starts every tensor at a multiple of 64 bytes from the first.
const align = 16

func newParams(g *model.Graph) *params {
	p := &params{graph: g, state: map[int]map[string][]float32{}}
	total := 0
	for i := range g.Layers {
		l := &g.Layers[i]
		names := []string{model.Weight, model.Bias}
		if _, ok := l.Op.(model.BatchNorm); ok {
			names = []string{model.Scale, model.Shift}
			p.state[i] = map[string][]float32{}
			for _, n := range []string{model.Mean, model.Variance} {
				p.state[i][n] = make([]float32, len(l.Params[n].Data))
			}
		}
		for _, n := range names {
			t := l.Params[n]
			if t == nil {
				continue
			}
			p.spans = append(p.spans, span{i, n, total, len(t.Data), n == model.Weight})
			total += (len(t.Data) + align - 1) / align * align
		}
	}
	p.w, p.g = make([]float32, total), make([]float32, total)
	p.load()
	return p
}

// load copies from the graph, store back to it.
func (p *params) load()  { p.sync(func(own, graph []float32) { copy(own, graph) }) }
func (p *params) store() { p.sync(func(own, graph []float32) { copy(graph, own) }) }

func (p *params) sync(f func(own, graph []float32)) {
	for _, s := range p.spans {
		f(p.w[s.off:s.off+s.len], p.graph.Layers[s.layer].Params[s.name].Data)
	}
	for i, m := range p.state {
		for n, v := range m {
			f(v, p.graph.Layers[i].Params[n].Data)
		}
	}
}

// find returns a parameter and its gradient; nil if the layer has none.
func (p *params) find(layer int, name string) (w, g []float32) {
	for _, s := range p.spans {
		if s.layer == layer && s.name == name {
			return p.w[s.off : s.off+s.len : s.off+s.len], p.g[s.off : s.off+s.len : s.off+s.len]
		}
	}
	return nil, nil
}

// bounds is the part of the flat vector that holds the parameters of layers
// [from, to).
func (p *params) bounds(from, to int) (a, b int) {
	a, b = len(p.w), 0
	for _, s := range p.spans {
		if s.layer >= from && s.layer < to {
			a, b = min(a, s.off), max(b, (s.off+s.len+align-1)/align*align)
		}
	}
	return min(a, b), b
}
