package train

import (
	"fmt"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/kernel"
)

// builder makes the units of the blocks for one batch size.
type builder struct {
	g      *model.Graph
	shapes []model.Shape
	uses   [][]int // live readers of each layer
	live   []bool
	p      *params
	team   *team
	n      int // examples of a batch
	seed   uint64
	step   *uint64

	b      *block
	values map[int]*value // by layer
	seg    segment
	last   int // live layer whose output leaves the block
}

// block builds one segment. in is the value that the block before gives.
func (c *builder) block(seg segment, in *value) (*block, error) {
	c.seg = seg
	for i := seg.from; i < seg.to; i++ {
		if c.live[i] {
			c.last = i
		}
	}
	in = &value{size: in.size, data: in.data, needGrad: seg.in != model.Input}
	c.b = &block{name: c.g.Layers[c.last].Name, team: c.team, in: in}
	c.values = map[int]*value{seg.in: in}
	for i := seg.from; i < seg.to; i++ {
		if !c.live[i] || c.values[i] != nil {
			continue
		}
		if err := c.layer(i); err != nil {
			return nil, fmt.Errorf("layer %q: %w", c.g.Layers[i].Name, err)
		}
	}
	c.b.out = c.values[c.last]
	c.b.from, c.b.to = c.p.bounds(seg.from, seg.to)
	c.b.order()
	c.ports()
	c.fleeting()
	c.b.plan()
	c.b.layOut(c.n)
	c.rooms()
	c.slots()
	return c.b, nil
}

// ports decides, for every value, which of its readers writes the gradient
// first, and where a max-pool takes over the mask of a ReLU.
func (c *builder) ports() {
	for _, u := range c.b.units {
		if _, ok := u.(normStats); ok {
			continue // the same input as its normApply
		}
		for _, p := range u.ports() {
			p.readers++
		}
	}
	for _, u := range c.b.units {
		if s, ok := u.(normStats); ok {
			s.in.centred = s.in.readers == 1 && s.in.act == kernel.None
		}
	}
	seen := map[*value]bool{}
	for i := len(c.b.units) - 1; i >= 0; i-- {
		u := c.b.units[i]
		if _, ok := u.(normApply); ok {
			continue
		}
		for _, p := range u.ports() {
			p.add = seen[p.value]
			seen[p.value] = true
		}
		if m, ok := u.(*maxPool); ok && m.in.readers == 1 && m.in.act == kernel.ReLU && m.in.value != c.b.in && m.in.value != c.b.out {
			m.mask, m.in.masked = true, true
		}
	}
}

// mostSources bounds of how many kept values a fleeting one is made.
const mostSources = 2

// fleeting decides which values are not kept for the batch: results of
// normalisation and of additions cost less to compute again in every pass that
// reads them than to be written to memory and read. Fully connected layers need
// the whole batch.
func (c *builder) fleeting() {
	kept := map[*value]bool{c.b.out: true}
	for _, u := range c.b.units {
		if d, ok := u.(*dense); ok {
			kept[d.in.value] = true
		}
	}
	sources := map[*value]int{}
	for _, u := range c.b.units {
		switch u.(type) {
		case normApply, *add:
		default:
			continue
		}
		n := 0
		for _, p := range u.ports() {
			n += max(1, sources[p.value])
		}
		if v := u.result(); !kept[v] && n <= mostSources {
			v.from, sources[v] = u, n
		}
	}
}

// output makes the value that unit of layer i writes, fusing a ReLU after it if
// that is its only reader.
func (c *builder) output(i int, fuse bool) *value {
	v := &value{size: c.shapes[i].Elements(), needGrad: len(c.g.Layers[i].Params) > 0}
	for _, j := range c.g.Layers[i].Inputs {
		v.needGrad = v.needGrad || c.values[j].needGrad
	}
	c.values[i] = v
	if !fuse || i == c.last || len(c.uses[i]) != 1 {
		return v
	}
	next := c.uses[i][0]
	if a, ok := c.g.Layers[next].Op.(model.Activation); ok && next < c.seg.to {
		if act := fused(a); act != kernel.None {
			v.act = act
			c.values[next] = v
		}
	}
	return v
}

func fused(a model.Activation) kernel.Activation {
	switch a.Func {
	case model.ReLU:
		return kernel.ReLU
	case model.ReLU6:
		return kernel.ReLU6
	}
	return kernel.None
}

func (c *builder) in(i, k int) *value { return c.values[c.g.Layers[i].Inputs[k]] }

func (c *builder) inShape(i, k int) model.Shape { return c.g.InputShapes(i, c.shapes)[k] }

// layer adds the units of layer i.
func (c *builder) layer(i int) error {
	in, is := c.in(i, 0), c.inShape(i, 0)
	var u unit
	var err error
	switch o := c.g.Layers[i].Op.(type) {
	case model.Conv:
		u, err = c.conv(i, o)
	case model.Dense:
		u, err = c.dense(i)
	case model.BatchNorm:
		c.norm(i, o)
		return nil
	case model.MaxPool:
		var k *kernel.Pool
		k, err = kernel.NewPool(poolShape(is, o.Kernel, o.Stride, o.Pad, false))
		u = &maxPool{k: k, in: port{value: in}, out: c.output(i, false)}
	case model.AvgPool:
		var k *kernel.Pool
		k, err = kernel.NewPool(poolShape(is, o.Kernel, o.Stride, o.Pad, o.CountPad))
		u = &avgPool{k: k, in: port{value: in}, out: c.output(i, false)}
	case model.GlobalAvgPool:
		u = &globalAvg{pixels: is[0] * is[1], in: port{value: in}, out: c.output(i, false)}
	case model.Activation:
		u = c.activation(i, o)
	case model.Softmax:
		u = &softmax{c: is[len(is)-1], in: port{value: in}, out: c.output(i, false)}
	case model.Add:
		u = &add{a: port{value: in}, b: port{value: c.in(i, 1)}, masker: masker{out: c.output(i, true)}}
	case model.Concat:
		u = c.concat(i)
	case model.Pad:
		u = &pad{op: o.Pad, in: port{value: in}, out: c.output(i, false), h: is[0], w: is[1], c: is[2]}
	case model.Flatten, model.Reshape:
		c.values[i] = in
		return nil
	case model.Dropout:
		if o.Rate == 0 {
			c.values[i] = in
			return nil
		}
		u = &dropout{rate: float64(o.Rate), seed: mix(c.seed) + uint64(i), step: c.step, in: port{value: in}, out: c.output(i, false)}
	default:
		return fmt.Errorf("%w: no training for operator %q", ErrGraph, o.Kind())
	}
	if err != nil {
		return err
	}
	c.b.units = append(c.b.units, u)
	return nil
}

func (c *builder) activation(i int, o model.Activation) unit {
	in := c.in(i, 0)
	if act := fused(o); act != kernel.None {
		out := c.output(i, false)
		out.act = act
		return &rectify{in: port{value: in}, masker: masker{out: out}}
	}
	f, slope := activation(o)
	return &function{in: port{value: in}, out: c.output(i, false), f: f, slope: slope}
}

func (c *builder) concat(i int) unit {
	u := &concat{out: c.output(i, false)}
	for k := range c.g.Layers[i].Inputs {
		s := c.inShape(i, k)
		w := s[len(s)-1]
		u.in, u.width, u.rows = append(u.in, &port{value: c.in(i, k)}), append(u.width, w), s.Elements()/w
	}
	return u
}

func (c *builder) norm(i int, o model.BatchNorm) {
	is := c.inShape(i, 0)
	u := newNorm(o, c.in(i, 0), c.output(i, true), is[len(is)-1], c.n)
	u.scale, u.gScale = c.p.find(i, model.Scale)
	u.shift, u.gShift = c.p.find(i, model.Shift)
	u.mean, u.variance = c.p.state[i][model.Mean], c.p.state[i][model.Variance]
	c.b.units = append(c.b.units, normStats{u}, normApply{u})
	c.b.lanes = true
}

func (c *builder) conv(i int, o model.Conv) (unit, error) {
	s := c.inShape(i, 0)
	k, err := kernel.NewConv(kernel.ConvShape{H: s[0], W: s[1], IC: s[2], OC: o.Out, KH: o.Kernel[0], KW: o.Kernel[1],
		StrideH: o.Stride[0], StrideW: o.Stride[1], DilationH: o.Dilation[0], DilationW: o.Dilation[1],
		PadTop: o.Pad.Top, PadLeft: o.Pad.Left, PadBottom: o.Pad.Bottom, PadRight: o.Pad.Right, Groups: o.Groups})
	if err != nil {
		return nil, err
	}
	u := &conv{k: k, in: port{value: c.in(i, 0)}, masker: masker{out: c.output(i, true)}}
	u.w, u.gw = c.p.find(i, model.Weight)
	u.b, u.gb = c.p.find(i, model.Bias)
	u.wino = newWinograd(k.Shape(), max(1, c.n/maxLanes), u.in.needGrad)
	if u.in.needGrad && !u.wino.dx {
		u.wt = make([]float32, len(u.w))
	}
	size := len(u.w)
	if u.wino.dw {
		size = len(u.wino.gw)
	}
	for range min(c.n, maxLanes) {
		u.acc = append(u.acc, make([]float32, size+len(u.b)))
	}
	c.b.lanes = true
	return u, nil
}

func (c *builder) dense(i int) (unit, error) {
	k, err := kernel.NewDense(c.inShape(i, 0)[0], c.shapes[i][0])
	if err != nil {
		return nil, err
	}
	u := &dense{k: k, in: port{value: c.in(i, 0)}, masker: masker{out: c.output(i, true)}, n: c.n}
	u.w, u.gw = c.p.find(i, model.Weight)
	u.b, u.gb = c.p.find(i, model.Bias)
	if u.in.needGrad {
		u.wt = make([]float32, len(u.w))
	}
	return u, nil
}

func poolShape(s model.Shape, kern, stride [2]int, p model.Pad2D, count bool) kernel.PoolShape {
	return kernel.PoolShape{H: s[0], W: s[1], C: s[2], KH: kern[0], KW: kern[1], StrideH: stride[0], StrideW: stride[1],
		PadTop: p.Top, PadLeft: p.Left, PadBottom: p.Bottom, PadRight: p.Right, CountPad: count}
}

// slots makes room for what the chunks of normalisation leave.
func (c *builder) slots() {
	forward, backward := map[*norm]int{}, map[*norm]int{}
	for _, p := range c.b.fwd {
		for _, u := range p.units {
			if s, ok := u.(normStats); ok {
				forward[s.norm] = p.chunks()
			}
		}
	}
	for _, p := range c.b.bwd {
		for _, u := range p.units {
			if s, ok := u.(normApply); ok {
				backward[s.norm] = p.chunks()
			}
		}
	}
	for u, n := range forward {
		u.setSlots(n, backward[u], len(c.team.workers))
	}
}
