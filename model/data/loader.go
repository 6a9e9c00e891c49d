package data

import (
	"fmt"
	"iter"
	"sync"
)

// LoaderConfig says how a Loader makes batches.
type LoaderConfig struct {
	Batch    int    // samples per batch, 1 or more
	Seed     uint64 // of the order and of the augmentation
	Shuffle  bool   // another order every epoch; else the order of the indices
	DropLast bool   // leave out the last batch if it is not full
	Augment  Augment
	Prefetch int // batches made ahead, in a goroutine; 0 means 2
}

// Batch is a normalised batch. It belongs to the Loader and is valid until the
// next one is asked for.
type Batch struct {
	Inputs  []float32 // len(Labels) × Shape, channels last
	Labels  []int32
	Indices []int32 // which samples these are
}

// Loader hands out the batches of an epoch, made ahead in a goroutine that lives
// only while the epoch is iterated. One epoch at a time; a Set serves many.
type Loader struct {
	set     *Set
	indices []int32
	cfg     LoaderConfig
	order   []int32
	scratch []uint8
	free    chan *Batch
}

// NewLoader prepares batches over the samples listed in indices, of a set that
// has been split.
func NewLoader(s *Set, indices []int32, cfg LoaderConfig) (*Loader, error) {
	if cfg.Batch < 1 {
		return nil, fmt.Errorf("%w: batch %d: want 1 or more", ErrOption, cfg.Batch)
	}
	if len(s.Mean) == 0 {
		return nil, fmt.Errorf("%w: the set has not been split", ErrOption)
	}
	if cfg.Prefetch < 0 {
		return nil, fmt.Errorf("%w: prefetch %d: want 0 or more", ErrOption, cfg.Prefetch)
	}
	if cfg.Prefetch == 0 {
		cfg.Prefetch = 2
	}
	if err := cfg.Augment.validate(s); err != nil {
		return nil, err
	}
	for _, i := range indices {
		if i < 0 || int(i) >= s.Len() {
			return nil, fmt.Errorf("%w: index %d: want 0 to %d", ErrOption, i, s.Len()-1)
		}
	}
	l := &Loader{set: s, indices: indices, cfg: cfg, order: make([]int32, len(indices))}
	if l.Steps() == 0 {
		return nil, fmt.Errorf("%w: %d samples do not fill a batch of %d", ErrNoData, len(indices), cfg.Batch)
	}
	n := s.Shape.Elements()
	if !cfg.Augment.IsZero() {
		l.scratch = make([]uint8, n)
	}
	cfg.Prefetch = min(cfg.Prefetch, l.Steps())
	l.free = make(chan *Batch, cfg.Prefetch+1)
	size := min(cfg.Batch, len(indices))
	for range cap(l.free) {
		l.free <- &Batch{
			Inputs:  make([]float32, size*n),
			Labels:  make([]int32, size),
			Indices: make([]int32, size),
		}
	}
	return l, nil
}

// Steps is the number of batches in an epoch.
func (l *Loader) Steps() int {
	if l.cfg.DropLast {
		return len(l.indices) / l.cfg.Batch
	}
	return (len(l.indices) + l.cfg.Batch - 1) / l.cfg.Batch
}

// Epoch iterates over the batches of one epoch. The batches depend on the
// samples, the configuration and the epoch's number alone. Leaving the loop stops
// the goroutine and waits for it.
func (l *Loader) Epoch(epoch int) iter.Seq[*Batch] {
	return func(yield func(*Batch) bool) {
		ready := make(chan *Batch, cap(l.free))
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() { l.produce(epoch, ready, stop) })
		defer func() {
			close(stop)
			wg.Wait()
			for b := range ready {
				l.free <- b
			}
		}()
		for b := range ready {
			more := yield(b)
			l.free <- b
			if !more {
				return
			}
		}
	}
}

func (l *Loader) produce(epoch int, ready chan<- *Batch, stop <-chan struct{}) {
	defer close(ready)
	copy(l.order, l.indices)
	if l.cfg.Shuffle {
		r := newRandom(l.cfg.Seed, streamEpoch, uint64(epoch))
		r.shuffle(l.order)
	}
	for step := range l.Steps() {
		var b *Batch
		select {
		case b = <-l.free:
		case <-stop:
			return
		}
		from := step * l.cfg.Batch
		l.fill(b, l.order[from:min(from+l.cfg.Batch, len(l.order))], epoch)
		ready <- b // never blocks: there are no more batches than places
	}
}

func (l *Loader) fill(b *Batch, indices []int32, epoch int) {
	n := l.set.Shape.Elements()
	k := len(indices)
	b.Inputs, b.Labels, b.Indices = b.Inputs[:k*n], b.Labels[:k], b.Indices[:k]
	copy(b.Indices, indices)
	if l.scratch == nil {
		l.set.Batch(b.Inputs, b.Labels, indices)
		return
	}
	s := l.set
	for j, i := range indices {
		r := newRandom(l.cfg.Seed, streamAugment, uint64(epoch), uint64(i))
		l.cfg.Augment.apply(l.scratch, s.Images[int(i)*n:int(i+1)*n], s.Shape[0], s.Shape[1], s.Shape[2], r)
		s.bytesInto(b.Inputs[j*n:(j+1)*n], l.scratch)
		b.Labels[j] = s.Labels[i]
	}
}
