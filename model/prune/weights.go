package prune

import (
	"cmp"
	"math"
	"slices"

	"github.com/espalier-ml/espalier/model"
)

// remaining lists, in order, the indices of layer i's weights that are left once the
// chosen channels are gone.
func (r *request) remaining(i int) []int {
	w := r.g.Layers[i].Params[model.Weight]
	all := make([]int, len(w.Data))
	for k := range all {
		all[k] = k
	}
	return slice(all, r.kept.axes(i, w.Shape))
}

// ordered is a weight as a number that sorts by magnitude, then by position.
func ordered(v float32, position int) uint64 {
	return uint64(math.Float32bits(v)&^(1<<31))<<32 | uint64(position)
}

func allKept(n int) []bool {
	keep := make([]bool, n)
	for k := range keep {
		keep[k] = true
	}
	return keep
}

// each visits the layers of all groups with a sparsity above zero.
func (r *request) each(visit func(i int, sparsity float64)) {
	for _, g := range r.groups {
		if s := r.in.Target.Weights[g.Name]; s > 0 {
			for _, i := range g.Producers {
				visit(i, s)
			}
		}
	}
}

// magnitude masks the smallest remaining weights of each layer.
func magnitude(r *request, masks *Masks) {
	r.each(func(i int, sparsity float64) {
		l := &r.g.Layers[i]
		data, left := l.Params[model.Weight].Data, r.remaining(i)
		order := make([]uint64, len(left))
		for n, k := range left {
			order[n] = ordered(data[k], k)
		}
		slices.Sort(order)
		keep := allKept(len(data))
		for _, o := range order[:min(count(sparsity, len(left)), len(left)-1)] {
			keep[uint32(o)] = false
		}
		masks.Set(l.Name, keep)
	})
}

// magnitudeGlobal masks the smallest remaining weights of all layers with a sparsity,
// as many as these ask for together. One weight stays in each layer.
func magnitudeGlobal(r *request, masks *Masks) {
	type weight struct {
		order uint64 // magnitude, then position in its layer
		layer int
	}
	var all []weight
	total, left := 0, map[int]int{}
	r.each(func(i int, sparsity float64) {
		l := &r.g.Layers[i]
		data, at := l.Params[model.Weight].Data, r.remaining(i)
		for _, k := range at {
			all = append(all, weight{ordered(data[k], k), i})
		}
		total += count(sparsity, len(at))
		left[i] = len(at)
		masks.Set(l.Name, allKept(len(data)))
	})
	slices.SortFunc(all, func(a, b weight) int {
		return cmp.Or(cmp.Compare(a.order>>32, b.order>>32), cmp.Compare(a.layer, b.layer), cmp.Compare(a.order, b.order))
	})
	for _, w := range all {
		if total == 0 {
			break
		}
		if left[w.layer] > 1 {
			masks.Of(r.g.Layers[w.layer].Name)[uint32(w.order)] = false
			left[w.layer]--
			total--
		}
	}
}

// blockHeight is the number of adjacent output channels of a block.
const blockHeight = 4

// block4x1 masks, in each layer, the blocks of four adjacent remaining output channels
// × one weight with the smallest mean magnitude, until the number of weights masked is
// nearest to what is asked for. Blocks start at multiples of four of the rebuilt
// layer's channels; the last may be narrower. One block stays.
func block4x1(r *request, masks *Masks) {
	r.each(func(i int, sparsity float64) {
		l := &r.g.Layers[i]
		data, at := l.Params[model.Weight].Data, r.remaining(i)
		width := len(r.kept.kept[i])
		blocks := blocksOf(data, at, width)
		slices.SortStableFunc(blocks, func(a, b block) int { return cmp.Compare(a.score, b.score) })
		keep := allKept(len(data))
		want, done := count(sparsity, len(at)), 0
		for _, b := range blocks[:len(blocks)-1] {
			if 2*(want-done) < len(b.at) {
				break
			}
			for _, k := range b.at {
				keep[k] = false
			}
			done += len(b.at)
		}
		masks.Set(l.Name, keep)
	})
}

type block struct {
	score float64
	at    []int
}

// blocksOf cuts rows of width weights into blocks.
func blocksOf(data []float32, at []int, width int) []block {
	var out []block
	for row := 0; row < len(at); row += width {
		for c := 0; c < width; c += blockHeight {
			b := block{at: at[row+c : row+min(c+blockHeight, width)]}
			for _, k := range b.at {
				b.score += math.Abs(float64(data[k]))
			}
			b.score /= float64(len(b.at))
			out = append(out, b)
		}
	}
	return out
}
