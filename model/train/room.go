package train

// life is the passes on the way back, in order, that touch a value's gradient.
type life struct{ from, to int }

// gradients gives every value room for its gradient: for the whole batch where
// several passes touch it or something needs it after the pass, else for one
// chunk per worker. That of the block's result comes from outside. Values that
// do not live at the same time share the room, which is then more often in the
// cache.
func (c *builder) gradients() {
	b := c.b
	lives, chunk := c.lives()
	var whole []*value
	local := make([]int, len(b.bwd)) // by pass
	seen := map[*value]bool{b.out: true, b.in: true}
	for _, u := range b.units {
		v := u.result()
		if seen[v] {
			continue
		}
		seen[v] = true
		l := lives[v]
		if l.from != l.to || v.keep {
			whole = append(whole, v)
			continue
		}
		v.local = local[l.from]
		local[l.from] += (chunk*v.size + align - 1) / align * align
		b.local = max(b.local, local[l.from])
	}
	c.share(whole, lives)
	if b.in.needGrad {
		b.in.grad = make([]float32, c.n*b.in.size)
	}
}

// lives finds when each gradient is touched, and the largest chunk on the way
// back.
func (c *builder) lives() (lives map[*value]life, chunk int) {
	lives, chunk = map[*value]life{}, 1
	for i, p := range c.b.bwd {
		touch := func(v *value) {
			l, ok := lives[v]
			if !ok {
				l.from = i
			}
			l.to = i
			lives[v] = l
		}
		chunk = max(chunk, p.chunk)
		for _, u := range p.units {
			touch(u.result())
			if _, ok := u.(*dense); ok {
				u.result().keep = true
			}
			if s, ok := u.(normStats); ok {
				touch(s.mask.out)
			}
			for _, in := range u.ports() {
				touch(in.value)
			}
		}
	}
	return lives, chunk
}

// share gives values room for the gradient of the batch. In the order in which
// they come to life, each takes over the largest room whose values are dead.
func (c *builder) share(values []*value, lives map[*value]life) {
	type room struct {
		size, until int
		values      []*value
	}
	var rooms []*room
	for pass := range c.b.bwd {
		for _, v := range values {
			l := lives[v]
			if l.from != pass {
				continue
			}
			var best *room
			for _, r := range rooms {
				if r.until < pass && (best == nil || r.size > best.size) {
					best = r
				}
			}
			if best == nil {
				best = &room{}
				rooms = append(rooms, best)
			}
			best.size, best.until, best.values = max(best.size, v.size), l.to, append(best.values, v)
		}
	}
	for _, r := range rooms {
		data := make([]float32, c.n*r.size)
		for _, v := range r.values {
			v.grad = data[:c.n*v.size]
		}
	}
}
