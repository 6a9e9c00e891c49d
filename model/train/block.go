package train

import "slices"

// unit computes one layer, or a layer with what is fused to it, over a range of
// examples.
type unit interface {
	// forward computes the output of examples [n0, n1) from its inputs'.
	forward(w *worker, c chunk) error
	// backward computes, from the gradient of the output, those of the inputs
	// (where they need one) and its share of the parameters'.
	backward(w *worker, c chunk) error
	// ports are the inputs, result the output, reads what backward needs besides
	// gradients.
	ports() []*port
	result() *value
	reads() []*value
}

// chunk is a range of examples within a lane.
type chunk struct {
	n0, n1 int
	lane   int
	slot   int // number of the chunk within the pass, lanes in order
	first  bool
}

// finisher is work that needs a whole pass: it runs after it, as n independent
// tasks.
type finisher interface {
	tasks() int
	task
}

// Units that leave work for after a pass implement these. What normalisation
// leaves others wait for; see levels.
type (
	forwardFinisher  interface{ forwardFinish() finisher }
	backwardFinisher interface{ backwardFinish() finisher }
	// preparer does what is needed once before the backward pass, such as
	// transposing weights.
	preparer interface{ prepare(w *worker) error }
	// forwardPreparer does what is needed once before the forward pass.
	forwardPreparer interface{ prepareForward(w *worker) error }
	// follower is a finisher that another one follows.
	follower interface{ then() finisher }
)

// pass is a list of units that go through the batch chunk by chunk together.
type pass struct {
	units    []unit
	steps    []step
	lanes    [][2]int
	chunk    int
	slots    []int // number of the first chunk of each lane
	backward bool
	finish   []finisher
}

// step is one direction of a unit.
type step struct {
	unit
	back bool
}

// block is a part of the network between two points where one tensor is alive.
// It is not for concurrent use.
type block struct {
	name    string
	team    *team
	in, out *value
	units   []unit
	fwd     []*pass
	bwd     []*pass
	local   int // float32 that each worker needs for what lives within a chunk
	lanes   bool

	from, to   int // the block's parameters in the flat vector of all
	prepare    prepareTask
	prepareFwd prepareForwardTask
}

func (b *block) forward() error {
	for _, w := range b.team.workers {
		w.local = grow(w.local, b.local)
	}
	if err := b.team.run(len(b.prepareFwd), &b.prepareFwd); err != nil {
		return err
	}
	for _, p := range b.fwd {
		if err := b.runPass(p); err != nil {
			return err
		}
	}
	return nil
}

func (b *block) backward() error {
	if err := b.team.run(len(b.prepare), &b.prepare); err != nil {
		return err
	}
	for _, p := range b.bwd {
		if err := b.runPass(p); err != nil {
			return err
		}
	}
	return nil
}

func (b *block) runPass(p *pass) error {
	if err := b.team.run(len(p.lanes), p); err != nil {
		return err
	}
	for _, f := range p.finish {
		if err := b.team.run(f.tasks(), f); err != nil {
			return err
		}
	}
	return nil
}

// do runs one lane.
func (p *pass) do(w *worker, lane int) error {
	c := chunk{lane: lane, slot: p.slots[lane], first: true}
	for end := p.lanes[lane][1]; ; c.slot++ {
		if c.n1 == 0 {
			c.n0 = p.lanes[lane][0]
		} else {
			c.n0, c.first = c.n1, false
		}
		if c.n0 >= end {
			return nil
		}
		c.n1 = min(c.n0+p.chunk, end)
		for _, s := range p.steps {
			var err error
			if s.back {
				err = s.backward(w, c)
			} else {
				err = s.forward(w, c)
			}
			if err != nil {
				return err
			}
		}
	}
}

// prepareTask runs the preparers of a block.
type prepareTask []preparer

func (p *prepareTask) do(w *worker, i int) error { return (*p)[i].prepare(w) }

// prepareForwardTask runs the forward preparers of a block.
type prepareForwardTask []forwardPreparer

func (p *prepareForwardTask) do(w *worker, i int) error { return (*p)[i].prepareForward(w) }

// maxLanes bounds the threads that share a batch where a reduction over
// examples needs a fixed order.
const maxLanes = 8

// cacheFloats is what a chunk in one unit should fit: about half of a core's
// second-level cache.
const cacheFloats = 256 << 10 / 4

// layOut divides the batch of n examples for every pass of the block.
func (b *block) layOut(n int) {
	parts := min(n, maxLanes)
	if !b.lanes {
		parts = min(n, len(b.team.workers))
	}
	var lanes [][2]int
	for i := range parts {
		lanes = append(lanes, [2]int{i * n / parts, (i + 1) * n / parts})
	}
	for _, p := range append(append([]*pass{}, b.fwd...), b.bwd...) {
		p.lanes, p.chunk = lanes, (n+parts-1)/parts
		if most := max(1, cacheFloats/p.size()); b.lanes && most < p.chunk {
			p.chunk = evenly(p.chunk, most)
		}
		slot := 0
		for _, l := range lanes {
			p.slots = append(p.slots, slot)
			slot += (l[1] - l[0] + p.chunk - 1) / p.chunk
		}
	}
}

// size is how many elements of one example the largest unit of a pass touches:
// it is what lies between two units that has to stay in the cache.
func (p *pass) size() int {
	most := 1
	for _, u := range p.units {
		size := u.result().size
		for _, in := range u.ports() {
			size += in.size
		}
		if p.backward {
			size *= 2
		}
		most = max(most, size)
	}
	return most
}

// evenly is the size of the fewest, most even parts of n of at most limit.
func evenly(n, limit int) int {
	parts := (n + limit - 1) / limit
	return (n + parts - 1) / parts
}

// chunks is the number of chunks of a pass.
func (p *pass) chunks() int {
	last := len(p.lanes) - 1
	return p.slots[last] + (p.lanes[last][1]-p.lanes[last][0]+p.chunk-1)/p.chunk
}

// levels are how many results of normalisation over the batch units wait for.
func levels(units []unit) []int {
	of, levels := map[*value]int{}, make([]int, len(units))
	for i, u := range units {
		for _, in := range u.ports() {
			levels[i] = max(levels[i], of[in.value])
		}
		if _, ok := u.(normApply); ok {
			levels[i]++
		}
		if _, ok := u.(normStats); !ok {
			of[u.result()] = levels[i]
		}
	}
	return levels
}

// order moves units to the first pass that they can be in, so that all readers
// of a value tend to be in one. Statistics come last, so that the same units are
// in one pass on the way back.
func (b *block) order() {
	type place struct {
		level int
		stats bool
	}
	levels, units := levels(b.units), map[place][]unit{}
	for i, u := range b.units {
		_, stats := u.(normStats)
		p := place{levels[i], stats}
		units[p] = append(units[p], u)
	}
	b.units = b.units[:0]
	for l := range slices.Max(levels) + 1 {
		b.units = append(append(b.units, units[place{l, false}]...), units[place{l, true}]...)
	}
}

// plan groups the units into passes, forward and backward.
func (b *block) plan() {
	levels := levels(b.units)
	for i, u := range b.units {
		if i == 0 || levels[i] > levels[i-1] {
			b.fwd = append(b.fwd, &pass{})
		}
		p := b.fwd[len(b.fwd)-1]
		p.units = append(p.units, u)
		if q, ok := u.(forwardPreparer); ok {
			b.prepareFwd = append(b.prepareFwd, q)
		}
		if f, ok := u.(forwardFinisher); ok {
			p.finish = append(p.finish, f.forwardFinish())
		}
	}
	waiting := map[*norm]bool{}
	for i := len(b.units) - 1; i >= 0; i-- {
		u := b.units[i]
		if s, ok := u.(normStats); len(b.bwd) == 0 || ok && waiting[s.norm] {
			b.bwd = append(b.bwd, &pass{backward: true})
			clear(waiting)
		}
		p := b.bwd[len(b.bwd)-1]
		p.units = append(p.units, u)
		if a, ok := u.(normApply); ok {
			waiting[a.norm] = true
		}
		b.planBackward(p, u)
	}
	for _, p := range slices.Concat(b.fwd, b.bwd) {
		p.plan()
	}
}

// planBackward adds what a unit needs before and after its pass on the way back.
func (b *block) planBackward(p *pass, u unit) {
	if q, ok := u.(preparer); ok {
		b.prepare = append(b.prepare, q)
	}
	f, ok := u.(backwardFinisher)
	if !ok {
		return
	}
	p.finish = append(p.finish, f.backwardFinish())
	if q, ok := p.finish[len(p.finish)-1].(follower); ok {
		p.finish = append(p.finish, q.then())
	}
}

// plan lists the steps: the units, each after those that compute the fleeting
// values it reads.
func (p *pass) plan() {
	l := lister{pass: p, done: map[*value]bool{}, direct: map[*value]bool{}}
	units := slices.DeleteFunc(slices.Clone(p.units), func(u unit) bool { return !p.backward && u.result().from == u }) // when somebody reads it
	for _, u := range units {
		if _, ok := u.(*add); ok && !p.backward {
			continue
		}
		for _, v := range l.reads(u) {
			l.direct[v] = true
		}
	}
	for _, u := range units {
		if !p.backward {
			l.forward(u)
			continue
		}
		for _, v := range l.reads(u) {
			l.need(v)
		}
		p.steps = append(p.steps, step{u, true})
	}
}

// lister lists the steps of a pass.
type lister struct {
	*pass
	done   map[*value]bool // fleeting values that steps compute
	direct map[*value]bool // what units other than additions read
}

// reads is what a unit reads in this pass.
func (l *lister) reads(u unit) (vs []*value) {
	if l.backward {
		return u.reads()
	}
	for _, in := range u.ports() {
		vs = append(vs, in.value)
	}
	return vs
}

// need makes sure that a value is there.
func (l *lister) need(v *value) {
	if v.fleeting() && !l.done[v] {
		l.done[v] = true
		l.forward(v.from)
	}
}

// forward lists the way forth of a unit, after what it needs. An addition
// normalises on the way what nothing else in the pass reads.
func (l *lister) forward(u unit) {
	if a, ok := u.(*add); ok {
		u = a.normalising(func(v *value) bool { return !l.direct[v] && !l.done[v] })
	}
	for _, in := range u.ports() {
		l.need(in.value)
	}
	l.steps = append(l.steps, step{unit: u})
}
