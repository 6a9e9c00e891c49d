package prune

import (
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"

	"github.com/espalier-ml/espalier/model"
)

// Scores of channels. Where several layers share a group, each layer's scores are
// divided by their mean before they are added, so that a layer of larger weights does
// not decide alone; the publications, which prune one layer at a time or let the
// residual's last layer decide, leave this open. For a group of one layer it changes
// nothing.

// channelL1 is the sum of the filter's absolute weights.
func channelL1(r *request, g *Group) []float64 {
	return r.sum(g, func(i int) []float64 {
		return r.perChannel(i, math.Abs)
	})
}

// channelL2 is the square root of the sum of the filter's squared weights.
func channelL2(r *request, g *Group) []float64 {
	return r.sum(g, func(i int) []float64 {
		s := r.perChannel(i, func(w float64) float64 { return w * w })
		for c := range s {
			s[c] = math.Sqrt(s[c])
		}
		return s
	})
}

// channelFPGM is the sum of the distances from the filter to the others of its layer.
func channelFPGM(r *request, g *Group) []float64 {
	return r.sum(g, func(i int) []float64 {
		w := r.g.Layers[i].Params[model.Weight]
		n := w.Shape[len(w.Shape)-1]
		filters := make([][]float32, n) // one after the other, for the pairs below
		for c := range filters {
			for k := c; k < len(w.Data); k += n {
				filters[c] = append(filters[c], w.Data[k])
			}
		}
		s := make([]float64, n)
		for a := range n {
			for b := range a {
				d := distance(filters[a], filters[b])
				s[a] += d
				s[b] += d
			}
		}
		return s
	})
}

func distance(a, b []float32) float64 {
	s := 0.0
	for i, v := range a {
		d := float64(v) - float64(b[i])
		s += d * d
	}
	return math.Sqrt(s)
}

// channelTaylor is the square of the summed products of weight and gradient over all
// of the channel: the change of the loss to first order, which needs no balance
// between layers.
func channelTaylor(r *request, g *Group) []float64 {
	scores := make([]float64, g.Channels)
	products := map[int][]float64{}
	for _, i := range g.Producers {
		w, d := r.g.Layers[i].Params[model.Weight], r.in.Gradients[r.g.Layers[i].Name]
		n := w.Shape[len(w.Shape)-1]
		products[i] = make([]float64, n)
		for k, v := range w.Data {
			products[i][k%n] += float64(v) * float64(d.Data[k])
		}
	}
	for c, members := range g.members {
		sum := 0.0
		for _, m := range members {
			sum += products[m.Layer][m.Channel]
		}
		scores[c] = sum * sum
	}
	return scores
}

// channelBNScale is the absolute scale of the batch normalisations of the group's
// channels; where the group has none, channelL1.
func channelBNScale(r *request, g *Group) []float64 {
	scores := make([]float64, g.Channels)
	found := false
	for i := range r.g.Layers {
		if _, ok := r.g.Layers[i].Op.(model.BatchNorm); !ok {
			continue
		}
		scale := r.g.Layers[i].Params[model.Scale].Data
		abs := make([]float64, len(scale))
		for c, v := range scale {
			abs[c] = math.Abs(float64(v))
		}
		by := nonZeroMean(abs)
		for c, l := range r.out[i] {
			if p, ok := r.at[r.find(l)]; ok && r.groups[p.group].Name == g.Name {
				scores[p.channel] += abs[c] / by
				found = true
			}
		}
	}
	if !found {
		return channelL1(r, g)
	}
	return scores
}

// needsBatchNorm wants a batch normalisation on channels that can be removed.
func needsBatchNorm(a *analysis) error {
	for i := range a.g.Layers {
		if _, ok := a.g.Layers[i].Op.(model.BatchNorm); !ok {
			continue
		}
		for _, l := range a.out[i] {
			if p, ok := a.at[a.find(l)]; ok && a.groups[p.group].Prunable {
				return nil
			}
		}
	}
	return fmt.Errorf("%w: channel-bn-scale: no batch normalisation follows channels that can be removed", ErrNotApplicable)
}

// randomChannel draws from (seed, group's name).
func randomChannel(r *request, g *Group) []float64 {
	h := fnv.New64a()
	h.Write([]byte(g.Name)) // a hash does not fail
	source := rand.New(rand.NewPCG(r.in.Seed, h.Sum64()))
	scores := make([]float64, g.Channels)
	for c := range scores {
		scores[c] = source.Float64()
	}
	return scores
}

// perChannel sums f over the weights of each output channel of layer i.
func (r *request) perChannel(i int, f func(float64) float64) []float64 {
	w := r.g.Layers[i].Params[model.Weight]
	n := w.Shape[len(w.Shape)-1]
	s := make([]float64, n)
	for k, v := range w.Data {
		s[k%n] += f(float64(v))
	}
	return s
}

// sum adds the producers' scores, each divided by its mean, to the group's channels.
func (r *request) sum(g *Group, score func(layer int) []float64) []float64 {
	by := map[int][]float64{}
	for _, i := range g.Producers {
		s := score(i)
		m := nonZeroMean(s)
		for c := range s {
			s[c] /= m
		}
		by[i] = s
	}
	out := make([]float64, g.Channels)
	for c, members := range g.members {
		for _, m := range members {
			out[c] += by[m.Layer][m.Channel]
		}
	}
	return out
}

func nonZeroMean(v []float64) float64 {
	if m := mean(v); m > 0 {
		return m
	}
	return 1
}
