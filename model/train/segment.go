package train

import (
	"fmt"

	"github.com/espalier-ml/espalier/model"
)

// segment is a range [from, to) of layers with one tensor going in, that of
// layer in (or model.Input), and one coming out, that of the last live layer.
type segment struct{ from, to, in int }

// segments cuts the part of the graph that layer out depends on (live) into one
// segment per block. A new one starts after every layer whose output is the
// only tensor alive, if layers with weights lie between it and the next such
// layer, and lie before it too.
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
	cur, heavy := segment{from: 0, in: model.Input}, false
	start, in := 0, model.Input // of the stretch since the last cut
	for i := range out + 1 {
		if live[i] && reach <= i {
			if hasWeights(g, live, start, i+1) {
				if heavy {
					cur.to = start
					segs = append(segs, cur)
					cur = segment{from: start, in: in}
				}
				heavy = true
			}
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

func hasWeights(g *model.Graph, live []bool, from, to int) bool {
	for i := from; i < to; i++ {
		switch g.Layers[i].Op.(type) {
		case model.Conv, model.Dense:
			if live[i] {
				return true
			}
		}
	}
	return false
}
