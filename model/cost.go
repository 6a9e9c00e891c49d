package model

// Cost is what a graph, or one layer, costs to store and run.
type Cost struct {
	Params   int64 // number of parameters, running statistics included
	NonZeros int64 // parameters that are not exactly zero
	MACs     int64 // multiply-accumulates for one example, dense
}

// Cost sums LayerCosts.
func (g *Graph) Cost() (Cost, error) {
	per, err := g.LayerCosts()
	var c Cost
	for _, l := range per {
		c.Params += l.Params
		c.NonZeros += l.NonZeros
		c.MACs += l.MACs
	}
	return c, err
}

// LayerCosts gives the cost of each layer. MACs are those of convolutions and
// fully connected layers; pooling, activation and normalisation count none.
func (g *Graph) LayerCosts() ([]Cost, error) {
	shapes, err := g.Shapes()
	if err != nil {
		return nil, err
	}
	out := make([]Cost, len(g.Layers))
	for i := range g.Layers {
		l := &g.Layers[i]
		for _, t := range l.Params {
			out[i].Params += int64(len(t.Data))
			out[i].NonZeros += int64(t.NonZeros())
		}
		in := g.InputShapes(i, shapes)[0]
		switch o := l.Op.(type) {
		case Conv:
			s := shapes[i]
			out[i].MACs = int64(s.Elements()) * int64(o.Kernel[0]*o.Kernel[1]) * int64(in[2]/o.Groups)
		case Dense:
			out[i].MACs = int64(in[0]) * int64(o.Out)
		}
	}
	return out, nil
}
