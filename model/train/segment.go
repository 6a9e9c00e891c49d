package train

import (
	"fmt"

	"github.com/espalier-ml/espalier/model"
)

// segment is a range [from, to) of layers with one tensor going in, that of
// layer in (or model.Input), and one coming out, that of the last live layer.
type segment struct{ from, to, in int }

// segments cuts the part of the graph that layer out depends on (live) into one
// segment per block. Cuts are possible after every layer whose output is the
// only tensor alive. They are made before every fully connected layer, and
// after: what lies between two of them goes through the batch in chunks
// together, which is what convolutions gain from and fully connected layers,
// whose weights each chunk would have to fetch again, lose from.
func segments(g *model.Graph, out int) (segs []segment, live []bool, err error) {
	live = reachable(g, out)
	lastUse := make([]int, out+1)
	reach := -1 // last use of all tensors before the current one
	for i := range out + 1 {
		for _, j := range g.Layers[i].Inputs {
			switch {
			case !live[i]:
			case j == model.Input:
				reach = i
			default:
				lastUse[j] = i
			}
		}
	}
	cur, heavy, full := segment{from: 0, in: model.Input}, false, false
	start, in := 0, model.Input // of the stretch since the last possible cut
	for i := range out + 1 {
		if live[i] && reach <= i {
			conv, dense := weights(g, live, start, i+1)
			if heavy && (dense || conv && full) {
				cur.to = start
				segs = append(segs, cur)
				cur, full = segment{from: start, in: in}, false
			}
			heavy, full = heavy || conv || dense, full || dense
			start, in = i+1, i
		}
		reach = max(reach, lastUse[i])
	}
	if !heavy {
		return nil, nil, fmt.Errorf("%w: %q has no layer with weights", ErrGraph, g.Name)
	}
	cur.to = out + 1
	return append(segs, cur), live, nil
}

// reachable marks the layers that layer out depends on.
func reachable(g *model.Graph, out int) []bool {
	live := make([]bool, len(g.Layers))
	live[out] = true
	for i := out; i >= 0; i-- {
		if !live[i] {
			continue
		}
		for _, j := range g.Layers[i].Inputs {
			if j != model.Input {
				live[j] = true
			}
		}
	}
	return live
}

// weights says which layers with weights lie in [from, to).
func weights(g *model.Graph, live []bool, from, to int) (conv, dense bool) {
	for i := from; i < to; i++ {
		switch g.Layers[i].Op.(type) {
		case model.Conv:
			conv = conv || live[i]
		case model.Dense:
			dense = dense || live[i]
		}
	}
	return conv, dense
}
