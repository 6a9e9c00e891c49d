package prune

import (
	"fmt"
	"slices"

	"github.com/espalier-ml/espalier/model"
)

// Group is a set of layers whose channels must go together: layers that an addition
// joins, and what follows them channel by channel. A channel of the group is one
// output channel of each of its producers, in general the set of all output channels
// that can only be removed at once; of a convolution in groups it is one whole group
// of filters. Every layer with weights is a producer of exactly one Group.
type Group struct {
	Name         string // of its first producer; stays when the graph is rebuilt
	Producers    []int  // convolutions and fully connected layers, ascending
	Channels     int
	Prunable     bool  // channels may be removed: not those of the graph's input, output or a softmax
	WeightParams int64 // weights of the producers, biases not counted

	members [][]Member
	least   map[int]int // by producer: the output channels that must stay
}

// Member is one output channel of a layer.
type Member struct{ Layer, Channel int }

// Members lists what channel k of the group consists of, by layer, then channel.
func (g *Group) Members(k int) []Member { return g.members[k] }

// Groups finds the groups of a valid graph, ordered by their first producer. Errors
// are Validate's, or wrap ErrTooLarge.
func Groups(g *model.Graph) ([]Group, error) {
	a, err := analyse(g)
	if err != nil {
		return nil, err
	}
	return a.groups, nil
}

// maxLabels bounds the channels of all layers together.
const maxLabels = 1 << 25

// analysis follows every channel through the graph. A channel is a label; labels that
// must go together are united.
type analysis struct {
	g      *model.Graph
	shapes []model.Shape
	input  []int   // labels of the graph's input
	out    [][]int // labels of each layer's output, along its last dimension
	parent []int   // union-find; the smallest label is the root
	frozen []bool  // by label, at the root once analysed: must stay
	groups []Group
	at     map[int]place // of a root
}

type place struct{ group, channel int }

func analyse(g *model.Graph) (*analysis, error) {
	if err := g.Validate(); err != nil {
		return nil, err
	}
	if err := g.WantFloat(); err != nil {
		return nil, err
	}
	shapes, err := g.Shapes()
	if err != nil {
		return nil, err
	}
	total := 0
	for _, s := range append([]model.Shape{g.Input}, shapes...) {
		if total += s[len(s)-1]; total > maxLabels {
			return nil, fmt.Errorf("%w: more than %d channels in all layers together", ErrTooLarge, maxLabels)
		}
	}
	a := &analysis{g: g, shapes: shapes, out: make([][]int, len(g.Layers)), at: map[int]place{}}
	a.input = a.fresh(g.Input[len(g.Input)-1])
	a.freeze(a.input)
	for i := range g.Layers {
		a.layer(i)
	}
	a.freeze(a.out[len(a.out)-1])
	for label, f := range a.frozen {
		if f {
			a.frozen[a.find(label)] = true
		}
	}
	a.collect()
	return a, nil
}

func (a *analysis) fresh(n int) []int {
	out := make([]int, n)
	for k := range out {
		out[k] = len(a.parent)
		a.parent = append(a.parent, out[k])
		a.frozen = append(a.frozen, false)
	}
	return out
}

func (a *analysis) freeze(labels []int) {
	for _, l := range labels {
		a.frozen[l] = true
	}
}

func (a *analysis) find(l int) int {
	for a.parent[l] != l {
		a.parent[l] = a.parent[a.parent[l]]
		l = a.parent[l]
	}
	return l
}

func (a *analysis) unite(x, y int) {
	x, y = a.find(x), a.find(y)
	a.parent[max(x, y)] = min(x, y)
}

// labels of what layer i reads, by input.
func (a *analysis) inputs(i int) [][]int {
	in := make([][]int, len(a.g.Layers[i].Inputs))
	for k, j := range a.g.Layers[i].Inputs {
		in[k] = a.input
		if j != model.Input {
			in[k] = a.out[j]
		}
	}
	return in
}

func (a *analysis) layer(i int) {
	in := a.inputs(i)
	x := in[0]
	switch o := a.g.Layers[i].Op.(type) {
	case model.Conv:
		a.out[i] = a.fresh(o.Out)
		if o.Groups > 1 {
			a.tieConvGroups(o.Groups, x, a.out[i])
		}
	case model.Dense:
		a.out[i] = a.fresh(o.Out)
	case model.Add:
		for c := range x {
			a.unite(x[c], in[1][c])
		}
		a.out[i] = x
	case model.Concat:
		a.out[i] = slices.Concat(in...)
	case model.Flatten, model.Reshape:
		s := a.shapes[i]
		a.out[i] = a.reshape(x, s[len(s)-1])
	case model.Softmax: // the sum below the line needs every channel
		a.freeze(x)
		a.out[i] = x
	default: // channel by channel
		a.out[i] = x
	}
}

// tieConvGroups: a convolution's groups stay or go whole, inputs and outputs together.
func (a *analysis) tieConvGroups(groups int, in, out []int) {
	wi, wo := len(in)/groups, len(out)/groups
	for g := range groups {
		first := out[g*wo]
		for _, l := range in[g*wi : (g+1)*wi] {
			a.unite(first, l)
		}
		for _, l := range out[g*wo : (g+1)*wo] {
			a.unite(first, l)
		}
	}
}

// reshape follows elements: element e has place e mod ci in the last dimension before,
// e mod co after, and all that share a place in either go together. The number of
// elements being a multiple of both, places i and j share an element exactly where
// they are equal modulo the greatest common divisor of ci and co.
func (a *analysis) reshape(x []int, co int) []int {
	d := gcd(len(x), co)
	for i, l := range x {
		a.unite(l, x[i%d])
	}
	out := make([]int, co)
	for j := range out {
		out[j] = x[j%d]
	}
	return out
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// isProducer reports whether a layer makes channels of its own.
func isProducer(op model.Op) bool {
	switch op.(type) {
	case model.Conv, model.Dense:
		return true
	}
	return false
}

// collect makes groups of the producers that share labels.
func (a *analysis) collect() {
	owner := map[int]int{}                 // root: a producer
	leader := make([]int, len(a.g.Layers)) // union-find over producers
	find := func(i int) int {
		for leader[i] != i {
			i = leader[i]
		}
		return i
	}
	for i := range a.g.Layers {
		leader[i] = i
		if !isProducer(a.g.Layers[i].Op) {
			continue
		}
		for _, l := range a.out[i] {
			r := a.find(l)
			j, ok := owner[r]
			if !ok {
				owner[r] = i
				continue
			}
			p, q := find(i), find(j)
			leader[max(p, q)] = min(p, q)
		}
	}
	index := map[int]int{} // leader: its group
	for i := range a.g.Layers {
		if !isProducer(a.g.Layers[i].Op) {
			continue
		}
		first := find(i)
		k, ok := index[first]
		if !ok {
			k = len(a.groups)
			index[first] = k
			a.groups = append(a.groups, Group{Name: a.g.Layers[i].Name, Prunable: true, least: map[int]int{}})
		}
		a.join(k, i)
	}
	for k := range a.groups {
		g := &a.groups[k]
		g.Channels = len(g.members)
		g.Prunable = g.Prunable && len(g.choose(make([]float64, g.Channels), 1)) < g.Channels
	}
}

// leastOf is the number of output channels that a producer must keep: one, or two
// groups of a convolution in groups, since with one it would couple nothing any more
// and its group would fall apart.
func leastOf(op model.Op) int {
	if o, ok := op.(model.Conv); ok && o.Groups > 1 {
		return 2 * o.Out / o.Groups
	}
	return 1
}

// join adds producer i to group k.
func (a *analysis) join(k, i int) {
	g := &a.groups[k]
	g.Producers = append(g.Producers, i)
	g.least[i] = leastOf(a.g.Layers[i].Op)
	g.WeightParams += int64(len(a.g.Layers[i].Params[model.Weight].Data))
	for c, l := range a.out[i] {
		r := a.find(l)
		p, ok := a.at[r]
		if !ok {
			p = place{group: k, channel: len(g.members)}
			a.at[r] = p
			g.members = append(g.members, nil)
			g.Prunable = g.Prunable && !a.frozen[r]
		}
		g.members[p.channel] = append(g.members[p.channel], Member{Layer: i, Channel: c})
	}
}
