package prune

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/modeltest"
	"github.com/espalier-ml/espalier/model/zoo"
)

func build(t testing.TB, name string, input model.Shape, classes int) *model.Graph {
	t.Helper()
	g, err := zoo.Build(name, input, classes, 1)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func groupsOf(t testing.TB, g *model.Graph) []Group {
	t.Helper()
	groups, err := Groups(g)
	if err != nil {
		t.Fatal(err)
	}
	return groups
}

// text shows groups as "name producers channels", fixed ones with an exclamation mark.
func text(g *model.Graph, groups []Group) []string {
	var out []string
	for _, x := range groups {
		var producers []string
		for _, i := range x.Producers {
			producers = append(producers, g.Layers[i].Name)
		}
		mark := ""
		if !x.Prunable {
			mark = "!"
		}
		out = append(out, fmt.Sprintf("%s%s %d", mark, strings.Join(producers, "+"), x.Channels))
	}
	return out
}

func TestGroupsOfTheZoo(t *testing.T) {
	for _, tt := range []struct {
		name    string
		input   model.Shape
		classes int
		want    []string
	}{
		{"mlp-784-128-10", model.Shape{28, 28, 1}, 10, []string{"fc1 128", "!fc2 10"}},
		{"seed-cnn", model.Shape{32, 32, 3}, 10, []string{"conv1 32", "conv2 64", "conv3 64", "fc1 64", "!fc2 10"}},
		{"resnet-8", model.Shape{32, 32, 3}, 10, []string{"conv1+conv3 16", "conv2 16", "conv4 32", "conv5+shortcut1 32", "conv6 64", "conv7+shortcut2 64", "!fc1 10"}},
		{"ds-cnn", model.Shape{49, 10, 1}, 12, []string{"conv1+dw1 64", "conv2+dw2 64", "conv3+dw3 64", "conv4+dw4 64", "conv5 64", "!fc1 12"}},
		{"autoencoder-fc", model.Shape{640}, 0, []string{"fc1 128", "fc2 128", "fc3 128", "fc4 128", "fc5 8", "fc6 128", "fc7 128", "fc8 128", "fc9 128", "!fc10 640"}},
	} {
		g := build(t, tt.name, tt.input, tt.classes)
		groups := groupsOf(t, g)
		if got := text(g, groups); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
		if groups[0].Name != strings.Fields(strings.ReplaceAll(tt.want[0], "+", " "))[0] {
			t.Errorf("%s: the first group is %q", tt.name, groups[0].Name)
		}
	}
	g := build(t, "resnet-8", model.Shape{32, 32, 3}, 10)
	if w := groupsOf(t, g)[0].WeightParams; w != 3*3*3*16+3*3*16*16 {
		t.Errorf("weights of the first group: %d", w)
	}
}

func conv(out, kernel, groups int) model.Conv {
	return model.Conv{Out: out, Kernel: [2]int{kernel, kernel}, Stride: [2]int{1, 1}, Dilation: [2]int{1, 1}, Groups: groups, Bias: true}
}

func layer(name string, op model.Op, inputs ...int) model.Layer {
	return model.Layer{Name: name, Op: op, Inputs: inputs}
}

func graph(input model.Shape, layers ...model.Layer) *model.Graph {
	g := &model.Graph{Input: input, Layers: layers}
	modeltest.Fill(g, 1)
	return g
}

func TestGroups(t *testing.T) {
	img := model.Shape{4, 4, 3}
	for _, tt := range []struct {
		name string
		g    *model.Graph
		want []string
	}{
		{"concat added to one", graph(img, layer("a", conv(2, 1, 1), -1), layer("b", conv(3, 1, 1), -1), layer("cat", model.Concat{}, 0, 1),
			layer("c", conv(5, 1, 1), 2), layer("add", model.Add{}, 2, 3), layer("pool", model.GlobalAvgPool{}, 4), layer("fc", model.Dense{Out: 2}, 5)),
			[]string{"a+b+c 5", "!fc 2"}},
		{"concat alone", graph(img, layer("a", conv(2, 1, 1), -1), layer("b", conv(3, 1, 1), -1), layer("cat", model.Concat{}, 0, 1, -1),
			layer("flat", model.Flatten{}, 2), layer("fc", model.Dense{Out: 2}, 3)),
			[]string{"a 2", "b 3", "!fc 2"}},
		{"added to the input", graph(img, layer("a", conv(3, 1, 1), -1), layer("add", model.Add{}, -1, 0), layer("b", conv(4, 1, 1), 1), layer("flat", model.Flatten{}, 2), layer("fc", model.Dense{Out: 2}, 3)),
			[]string{"!a 3", "b 4", "!fc 2"}},
		{"depthwise on the input", graph(img, layer("dw", conv(6, 3, 3), -1), layer("flat", model.Flatten{}, 0), layer("fc", model.Dense{Out: 2}, 1)),
			[]string{"!dw 3", "!fc 2"}},
		{"depthwise with a multiplier", graph(img, layer("a", conv(4, 1, 1), -1), layer("dw", conv(8, 3, 4), 0), layer("flat", model.Flatten{}, 1), layer("fc", model.Dense{Out: 2}, 2)),
			[]string{"a+dw 4", "!fc 2"}},
		{"a convolution in three groups", graph(img, layer("a", conv(6, 1, 1), -1), layer("b", conv(9, 3, 3), 0), layer("flat", model.Flatten{}, 1), layer("fc", model.Dense{Out: 2}, 2)),
			[]string{"a+b 3", "!fc 2"}},
		{"a convolution in two groups", graph(img, layer("a", conv(6, 1, 1), -1), layer("b", conv(4, 3, 2), 0), layer("flat", model.Flatten{}, 1), layer("fc", model.Dense{Out: 2}, 2)),
			[]string{"!a+b 2", "!fc 2"}},
		{"softmax within", graph(img, layer("a", conv(4, 1, 1), -1), layer("s", model.Softmax{}, 0), layer("flat", model.Flatten{}, 1), layer("fc", model.Dense{Out: 2}, 2)),
			[]string{"!a 4", "!fc 2"}},
		{"vector to image", graph(model.Shape{5}, layer("a", model.Dense{Out: 12}, -1), layer("r", model.Reshape{Shape: model.Shape{2, 2, 3}}, 0), layer("b", conv(4, 1, 1), 1),
			layer("pool", model.GlobalAvgPool{}, 2), layer("fc", model.Dense{Out: 2}, 3)),
			[]string{"a 3", "b 4", "!fc 2"}},
		{"reshape that mixes channels", graph(img, layer("a", conv(6, 1, 1), -1), layer("r", model.Reshape{Shape: model.Shape{6, 4, 4}}, 0), layer("b", conv(4, 1, 1), 1),
			layer("pool", model.GlobalAvgPool{}, 2), layer("fc", model.Dense{Out: 2}, 3)),
			[]string{"a 2", "b 4", "!fc 2"}},
		{"added to itself", graph(img, layer("a", conv(4, 1, 1), -1), layer("add", model.Add{}, 0, 0), layer("flat", model.Flatten{}, 1), layer("fc", model.Dense{Out: 2}, 2)),
			[]string{"a 4", "!fc 2"}},
		{"nobody reads it", graph(img, layer("a", conv(4, 1, 1), -1), layer("flat", model.Flatten{}, -1), layer("fc", model.Dense{Out: 2}, 1)),
			[]string{"a 4", "!fc 2"}},
		{"one channel", graph(img, layer("a", conv(1, 1, 1), -1), layer("flat", model.Flatten{}, 0), layer("fc", model.Dense{Out: 2}, 1)),
			[]string{"!a 1", "!fc 2"}},
		{"no weights", graph(img, layer("r", model.Activation{Func: model.ReLU}, -1)), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := text(tt.g, groupsOf(t, tt.g)); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestMembers(t *testing.T) {
	g := graph(model.Shape{4, 4, 3}, layer("a", conv(2, 1, 1), -1), layer("b", conv(1, 1, 1), -1), layer("cat", model.Concat{}, 1, 0),
		layer("c", conv(3, 1, 1), 2), layer("add", model.Add{}, 3, 2), layer("flat", model.Flatten{}, 4), layer("fc", model.Dense{Out: 2}, 5))
	group := groupsOf(t, g)[0]
	want := [][]Member{{{0, 0}, {3, 1}}, {{0, 1}, {3, 2}}, {{1, 0}, {3, 0}}}
	for c := range want {
		if got := group.Members(c); !reflect.DeepEqual(got, want[c]) {
			t.Errorf("channel %d: got %v, want %v", c, got, want[c])
		}
	}
}

// Every layer with weights is in exactly one group, and every one of its output
// channels in exactly one channel of it.
func TestGroupsPartition(t *testing.T) {
	for seed := range uint64(300) {
		g := modeltest.Graph(seed)
		seen := map[Member]bool{}
		for _, x := range groupsOf(t, g) {
			if x.Name != g.Layers[x.Producers[0]].Name {
				t.Errorf("seed %d: group %q begins with %q", seed, x.Name, g.Layers[x.Producers[0]].Name)
			}
			for c := range x.Channels {
				for _, m := range x.Members(c) {
					if seen[m] {
						t.Fatalf("seed %d: %v is there twice", seed, m)
					}
					seen[m] = true
				}
			}
		}
		want := 0
		for _, l := range g.Layers {
			if w := l.Params[model.Weight]; w != nil {
				want += w.Shape[len(w.Shape)-1]
			}
		}
		if len(seen) != want {
			t.Errorf("seed %d: %d output channels in groups, want %d", seed, len(seen), want)
		}
	}
}

func TestGroupsErrors(t *testing.T) {
	if _, err := Groups(&model.Graph{Input: model.Shape{1}}); !errors.Is(err, model.ErrGraph) {
		t.Errorf("no layers: error %v", err)
	}
	wide := graph(model.Shape{maxLabels}, layer("r", model.Activation{Func: model.ReLU}, -1))
	if _, err := Groups(wide); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a wide graph: error %v", err)
	}
}

// Channels 2 and 3 alone tie a and c to b and d: one of them stays, so that the group
// does not fall apart.
func TestGroupsStayTogether(t *testing.T) {
	g := graph(model.Shape{4, 4, 3}, layer("a", conv(4, 1, 1), -1), layer("b", conv(4, 1, 1), -1), layer("c", conv(2, 1, 1), -1), layer("d", conv(6, 1, 1), -1),
		layer("ab", model.Concat{}, 0, 1), layer("cd", model.Concat{}, 2, 3), layer("add", model.Add{}, 4, 5), layer("flat", model.Flatten{}, 6), layer("fc", model.Dense{Out: 2}, 7))
	groups := groupsOf(t, g)
	if got, want := text(g, groups), []string{"a+b+c+d 8", "!fc 2"}; !reflect.DeepEqual(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
	keep := groups[0].choose([]float64{2, 2, 0, 1, 2, 2, 2, 3}, 8)
	small, _, err := Rebuild(g, &Plan{Keep: map[string][]int{"a": keep}})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := text(small, groupsOf(t, small)), []string{"!a+b+c+d 3", "!fc 2"}; !reflect.DeepEqual(got, want) {
		t.Errorf("kept %v: got %q, want %q", keep, got, want)
	}
}
