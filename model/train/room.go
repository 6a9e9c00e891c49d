package train

import "slices"

// rooms gives every value that is kept room for the batch, and so every
// gradient that several passes touch or that something needs after its pass;
// what lives within one chunk gets a place in the scratch of the workers. The
// gradient of the block's result comes from outside.
func (c *builder) rooms() {
	b, a := c.b, &arena{}
	for _, v := range b.results() {
		if v.fleeting() {
			v.place = b.local
			b.local += aligned(b.largestChunk(v) * v.size)
		} else {
			a.add(c.n*v.size, func(room []float32) { v.data = room })
		}
	}
	start := b.local
	var kept []*life
	local := make([]int, len(b.bwd)) // by pass
	for _, l := range b.lives() {
		switch {
		case l.values[0] == b.in || l.values[0] == b.out:
		case l.kept():
			kept = append(kept, l)
		default:
			for _, v := range l.values {
				v.local = start + local[l.from]
			}
			local[l.from] += aligned(b.bwd[l.from].chunk * l.size())
		}
	}
	b.local += slices.Max(append(local, 0))
	c.share(kept, a)
	if b.in.needGrad {
		a.add(c.n*b.in.size, func(room []float32) { b.in.grad = room })
	}
	a.make()
}

// largestChunk is the most examples for which a fleeting value is computed at once.
func (b *block) largestChunk(v *value) (n int) {
	for _, p := range slices.Concat(b.fwd, b.bwd) {
		if slices.ContainsFunc(p.steps, func(s step) bool { return !s.back && s.result() == v }) {
			n = max(n, p.chunk)
		}
	}
	return n
}

// results lists the values that the block's units compute.
func (b *block) results() (vs []*value) {
	for _, u := range b.units {
		if v := u.result(); v != b.in && !slices.Contains(vs, v) {
			vs = append(vs, v)
		}
	}
	return vs
}

// room is memory for gradients that do not live at the same time.
type room struct {
	size  int // of an example
	lives []*life
}

// share gives gradients room for the batch, in the order in which they come to
// life. Best is a room in which each chunk of the gradient can take the place
// of another one's that the same pass has just read for the last time; else the
// largest free one.
func (c *builder) share(lives []*life, a *arena) {
	var rooms []*room
	for _, l := range lives {
		var best *room
		inPlace := false
		for _, r := range rooms {
			last := r.lives[len(r.lives)-1]
			p := last.to == l.from && last.last < l.first && last.size() == l.size() && !slices.ContainsFunc(last.values, func(v *value) bool { return v.keep })
			if (p || last.to < l.from) && (best == nil || p && !inPlace || p == inPlace && r.size > best.size) {
				best, inPlace = r, p
			}
		}
		if best == nil {
			best = &room{}
			rooms = append(rooms, best)
		}
		best.size, best.lives = max(best.size, l.size()), append(best.lives, l)
	}
	for _, r := range rooms {
		a.add(c.n*r.size, func(data []float32) {
			for _, l := range r.lives {
				for _, v := range l.values {
					v.grad = data[:c.n*v.size]
				}
			}
		})
	}
}

// aligned rounds a number of elements up.
func aligned(n int) int { return (n + align - 1) / align * align }

// arena is memory for many long vectors: one piece, of huge pages where the
// system has them, since a step goes through all of it several times.
type arena struct {
	sizes []int
	set   []func([]float32)
}

// add asks for n elements, which make hands to set.
func (a *arena) add(n int, set func([]float32)) {
	a.sizes, a.set = append(a.sizes, n), append(a.set, set)
}

const (
	hugePage = 2 << 20 / 4 // elements
	// stagger keeps vectors, whose sizes tend to be powers of two, from competing
	// for the same places of the second-level cache when a step goes through
	// several of them at once.
	stagger = 1265 * align
)

// make gets the memory. Vectors that are far smaller than a cache are not
// staggered.
func (a *arena) make() {
	total := 0
	offs := make([]int, len(a.sizes))
	for i, n := range a.sizes {
		offs[i] = total
		total += aligned(n)
		if n > 4*stagger {
			total += stagger
		}
	}
	all := hugeFloats(total)
	for i, n := range a.sizes {
		a.set[i](all[offs[i] : offs[i]+n : offs[i]+n])
	}
}
