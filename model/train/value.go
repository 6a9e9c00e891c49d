package train

import "github.com/espalier-ml/espalier/model/kernel"

// value is what one unit writes and others read, for a whole batch, with its
// gradient.
type value struct {
	size int       // elements of one example
	data []float32 // all examples

	// from computes a fleeting value: it has no data, but is computed in every
	// pass that reads it, chunk by chunk, in the worker's scratch at offset place.
	from  unit
	place int

	// grad is the gradient of all examples. Where it is nil, the gradient lives
	// only while one chunk is worked on, in the worker's scratch at offset local.
	grad  []float32
	local int

	needGrad bool
	act      kernel.Activation // what the producer applied before storing
	masked   bool              // its only reader passes the gradient through that, too
	keep     bool              // the gradient is needed after the pass
	readers  int               // units that read it
	centred  bool              // its only reader is normalisation, which takes constants away
}

// fleeting values are not kept for the batch.
func (v *value) fleeting() bool { return v.from != nil }

// x is the data of examples [n0, n1).
func (v *value) x(w *worker, n0, n1 int) []float32 {
	if v.fleeting() {
		return w.local[v.place : v.place+(n1-n0)*v.size]
	}
	return v.data[n0*v.size : n1*v.size]
}

// dy is the gradient of examples [n0, n1).
func (v *value) dy(w *worker, n0, n1 int) []float32 {
	if v.grad != nil {
		return v.grad[n0*v.size : n1*v.size]
	}
	return w.local[v.local : v.local+(n1-n0)*v.size]
}

// port is a unit's view of one of its inputs. Of the units that read a value,
// the last in the order of units is the first to write the gradient; the others
// add to it.
type port struct {
	*value
	add  bool // the gradient is already there: add to it
	same bool // the gradient is that of the unit's result, in the same place
}

// begin returns where the unit shall write its gradient of examples [n0, n1),
// overwriting. Pair it with end.
func (p *port) begin(w *worker, n0, n1 int) []float32 {
	if !p.add {
		return p.dy(w, n0, n1)
	}
	w.addend = grow(w.addend, (n1-n0)*p.size)
	return w.addend
}

// end completes begin.
func (p *port) end(w *worker, n0, n1 int) error {
	if !p.add {
		return nil
	}
	d := p.dy(w, n0, n1)
	return kernel.Add(d, d, w.addend, kernel.None)
}

// pass adds (or copies) the gradient g of examples [n0, n1) unchanged.
func (p *port) pass(w *worker, g []float32, n0, n1 int) error {
	if p.same {
		return nil
	}
	d := p.dy(w, n0, n1)
	if p.add {
		return kernel.Add(d, d, g, kernel.None)
	}
	copy(d, g)
	return nil
}

func grow(b []float32, n int) []float32 {
	if cap(b) < n {
		return make([]float32, n)
	}
	return b[:n]
}
