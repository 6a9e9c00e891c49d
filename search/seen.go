package search

import (
	"math"
	"math/bits"
	"math/rand/v2"
)

// Seen is a set of configurations that need not be tried again. Its zero value is empty. It is not safe for concurrent
// use, but for calls of Has.
type Seen struct {
	// below holds further configurations, which are only looked up.
	below *Seen
	// slots is a hash table with open addressing and linear probing; its length is a power of two.
	slots []seenSlot
	count int
}

// seenSlot is free while its config is nil.
type seenSlot struct {
	hash   uint64
	config Config
}

// Seen returns the set of all configurations in the history and pending. It is the request's own; Known, if there is one, is
// looked up and not changed.
func (r Request) Seen() *Seen {
	n := len(r.Pending) + max(r.N, 0)
	if r.Known == nil {
		n += len(r.History)
	}
	s := &Seen{below: r.Known, slots: make([]seenSlot, 1<<bits.Len(uint(n+n/2)))}
	for i := range r.History {
		if r.Known != nil {
			break
		}
		s.Add(r.History[i].Config)
	}
	for i := range r.Pending {
		s.Add(r.Pending[i].Config)
	}
	return s
}

// find returns the slot that holds c or, free, would hold it. At least one slot is free.
func (s *Seen) find(hash uint64, c Config) *seenSlot {
	mask := uint64(len(s.slots) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		slot := &s.slots[i]
		if slot.config == nil || slot.hash == hash && slot.config.Equal(c) {
			return slot
		}
	}
}

// Has reports whether c is in the set.
func (s *Seen) Has(c Config) bool { return s.has(c.hash(), c) }

func (s *Seen) has(hash uint64, c Config) bool {
	return len(s.slots) > 0 && s.find(hash, c).config != nil || s.below != nil && s.below.has(hash, c)
}

// Add puts c, which must not be empty nor change afterwards, into the set.
func (s *Seen) Add(c Config) {
	if len(c) == 0 {
		return
	}
	hash := c.hash()
	if s.has(hash, c) {
		return
	}
	if len(s.slots) == 0 {
		s.slots = make([]seenSlot, 8)
	}
	*s.find(hash, c) = seenSlot{hash, c}
	if s.count++; 4*s.count > 3*len(s.slots) {
		old := s.slots
		s.slots = make([]seenSlot, 2*len(old))
		for _, o := range old {
			if o.config != nil {
				*s.find(o.hash, o.config) = o
			}
		}
	}
}

// Len returns how many different configurations the set has.
func (s *Seen) Len() int {
	if s.below != nil {
		return s.count + s.below.Len()
	}
	return s.count
}

// How often Fresh asks before it falls back to the next means.
const (
	freshProposals = 32
	freshSamples   = 32
)

// Fresh returns a valid configuration outside the set: the first such of some proposals (nil: none), else a random one,
// else, in a finite space, the next one after a random place. ok is false when a finite space has none left. In an
// infinite space whose random samples all repeat it gives up and returns one of them.
func (s *Seen) Fresh(space Space, rng *rand.Rand, propose func() Config) (c Config, ok bool) {
	if propose != nil {
		for range freshProposals {
			if c = propose(); !s.Has(c) {
				return c, true
			}
		}
	}
	for range freshSamples {
		if c = space.Sample(rng); !s.Has(c) {
			return c, true
		}
	}
	size := space.Size()
	if math.IsInf(size, 1) {
		return c, true
	}
	// At most Len configurations can be skipped, so the walk ends soon however large the space is.
	for range s.Len() + 1 {
		c = space.next(c)
		if !s.Has(c) {
			return c, true
		}
	}
	return nil, false
}

// next returns the configuration after c in the order of a counter whose last active parameter turns fastest; after
// the last comes the first. Floats, which cannot vary in a finite space, stay at their minimum.
func (s Space) next(c Config) Config {
	out := make(Config, len(c))
	copy(out, c)
	turned := -1
	for i := len(out) - 1; i >= 0 && turned < 0; i-- {
		if _, high := s.Params[i].Bounds(); s.Params[i].Kind != Float && out[i] < high {
			out[i]++
			turned = i
		}
	}
	for i := turned + 1; i < len(out); i++ {
		out[i] = math.NaN()
		if s.Active(out, i) {
			out[i], _ = s.Params[i].Bounds()
		}
	}
	return out
}

// Collect is the loop that samplers share: for each trial number it asks propose for that trial's source of proposals
// (nil: random ones), given its random source and everything pending by then, takes the first fresh proposal and makes it
// pending for the next. The request must be valid.
func (r Request) Collect(propose func(number int, rng *rand.Rand, pending []Trial) func() Config) ([]Config, error) {
	seen := r.Seen()
	pending := append(make([]Trial, 0, len(r.Pending)+r.N), r.Pending...)
	out := make([]Config, 0, r.N)
	for number := r.First; number < r.First+r.N; number++ {
		rng := Rand(r.Seed, number)
		c, ok := seen.Fresh(r.Space, rng, propose(number, rng, pending))
		if !ok {
			break
		}
		seen.Add(c)
		pending = append(pending, Trial{Number: number, Config: c})
		out = append(out, c)
	}
	if r.N > 0 && len(out) == 0 {
		return nil, ErrExhausted
	}
	return out, nil
}
