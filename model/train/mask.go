package train

import (
	"fmt"
	"math"

	"github.com/espalier-ml/espalier/model"
)

// masks keeps pruned weights at zero. Gradients are masked after every step
// backward, so that the moments and the weights of masked elements stay zero by
// themselves; where masks change, weights and moments are masked too.
type masks struct {
	p     *params
	parts []maskPart
}

type maskPart struct {
	off  int
	keep []uint32 // all ones or zero
}

func checkMasks(m Masks, g *model.Graph) error {
	for layer, params := range m {
		i, ok := g.Index(layer)
		if !ok {
			return fmt.Errorf("%w: masks: no layer %q", ErrOptions, layer)
		}
		for name, keep := range params {
			t := g.Layers[i].Params[name]
			if t == nil {
				return fmt.Errorf("%w: masks: layer %q has no parameter %q", ErrOptions, layer, name)
			}
			if keep != nil && len(keep) != len(t.Data) {
				return fmt.Errorf("%w: masks: %d elements for parameter %q of layer %q: want %d", ErrOptions, len(keep), name, layer, len(t.Data))
			}
		}
	}
	return nil
}

// set takes over m. The parts are made new only where their number changes.
func (k *masks) set(m Masks) {
	old := k.parts
	k.parts = k.parts[:0]
	for _, s := range k.p.spans {
		keep := m[k.p.graph.Layers[s.layer].Name][s.name]
		if keep == nil {
			continue
		}
		part := maskPart{off: s.off}
		if n := len(k.parts); n < len(old) && len(old[n].keep) == s.len {
			part.keep = old[n].keep
		} else {
			part.keep = make([]uint32, s.len)
		}
		for i, v := range keep {
			part.keep[i] = 0
			if v {
				part.keep[i] = math.MaxUint32
			}
		}
		k.parts = append(k.parts, part)
	}
}

// apply zeroes the masked elements of a flat vector.
func (k *masks) apply(flat []float32) {
	for _, p := range k.parts {
		v := flat[p.off : p.off+len(p.keep)]
		for i, m := range p.keep {
			v[i] = math.Float32frombits(math.Float32bits(v[i]) & m)
		}
	}
}
