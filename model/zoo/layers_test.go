package zoo

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/espalier-ml/espalier/model"
)

const residual = `
- {op: conv, name: stem, out: 8, kernel: 3, padding: same, norm: true, activation: relu}
- {op: conv, out: 8, kernel: [3, 1], padding: same}
- {op: batch-norm, name: branch}
- {op: add, from: [branch, stem], activation: relu6}
- {op: depthwise-conv, kernel: 3, stride: 2}
- {op: concat, name: both, from: [depthwise-conv1, depthwise-conv1]}
- {op: max-pool, kernel: 2}
- {op: leaky-relu}
- {op: dropout, rate: 0.25}
- {op: flatten}
- {op: dense, out: 12, activation: tanh}
- {op: dense}
`

func specs(t *testing.T, text string) []LayerSpec {
	t.Helper()
	var out []LayerSpec
	if err := yaml.UnmarshalWithOptions([]byte(text), &out, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestFromLayers(t *testing.T) {
	g, err := FromLayers(specs(t, residual), model.Shape{9, 9, 3}, 5, 1)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range g.Layers {
		got = append(got, l.Name+" "+l.Op.Kind())
	}
	want := []string{"stem conv", "stem.norm batch-norm", "stem.relu relu", "conv1 conv", "branch batch-norm", "add1 add", "add1.relu6 relu6",
		"depthwise-conv1 conv", "both concat", "max-pool1 max-pool", "leaky-relu1 leaky-relu", "dropout1 dropout", "flatten1 flatten", "dense1 dense", "dense1.tanh tanh", "dense2 dense"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if stem := g.Layers[0].Op.(model.Conv); stem.Bias || stem.Pad != (model.Pad2D{Top: 1, Left: 1, Bottom: 1, Right: 1}) {
		t.Errorf("stem %+v", stem)
	}
	if c := g.Layers[3].Op.(model.Conv); !c.Bias || c.Kernel != [2]int{3, 1} || c.Pad != (model.Pad2D{Top: 1, Bottom: 1}) {
		t.Errorf("conv1 %+v", c)
	}
	if a := g.Layers[10].Op.(model.Activation); a.Alpha != 0.01 {
		t.Errorf("leaky-relu %+v", a)
	}
	shapes, err := g.Shapes()
	if err != nil || !shapes[8].Equal(model.Shape{4, 4, 16}) || !shapes[15].Equal(model.Shape{5}) {
		t.Errorf("shapes %v, error %v", shapes, err)
	}
}

func TestPairText(t *testing.T) {
	for text, want := range map[string]Pair{`3`: {3, 3}, `[2, 5]`: {2, 5}} {
		var p Pair
		if err := json.Unmarshal([]byte(text), &p); err != nil || p != want {
			t.Errorf("%s: %v, error %v", text, p, err)
		}
		if err := yaml.Unmarshal([]byte(text), &p); err != nil || p != want {
			t.Errorf("%s as YAML: %v, error %v", text, p, err)
		}
	}
	for _, text := range []string{`"x"`, `[1]`, `[1, 2, 3]`, `{}`} {
		if err := json.Unmarshal([]byte(text), new(Pair)); err == nil {
			t.Errorf("%s was accepted", text)
		}
	}
}

func TestFromLayersErrors(t *testing.T) {
	for _, tt := range []struct{ name, layers, says string }{
		{"unknown operator", "- {op: gelu}", `layers[0] gelu: op "gelu"`},
		{"a field of another operator", "- {op: flatten, out: 3}", "out: flatten has none"},
		{"no kernel", "- {op: conv, out: 3}", "kernel: missing"},
		{"negative kernel", "- {op: conv, out: 3, kernel: -3}", "want each 1 to 4096"},
		{"absurd kernel", "- {op: conv, out: 3, kernel: 1000000}", "want each 1 to 4096"},
		{"no channels", "- {op: conv, kernel: 3}", "3 channels to 0"},
		{"padding", "- {op: conv, kernel: 3, out: 3, padding: full}", `padding "full"`},
		{"larger than the input", "- {op: conv, kernel: 11, out: 3}", "window of 11 over 9"},
		{"dense of an image", "- {op: dense}", "flatten first"},
		{"conv of a vector", "- {op: flatten}\n- {op: conv, kernel: 1, out: 3}", "layers[1] conv: reads [243]"},
		{"add of one", "- {op: add}", "from: add needs"},
		{"unknown name", "- {op: relu, from: [nobody]}", `from: "nobody"`},
		{"a later name", "- {op: relu, from: [late]}\n- {op: relu, name: late}", `from: "late"`},
		{"add of unequal", "- {op: conv, name: a, kernel: 3, out: 3}\n- {op: add, from: [a, input]}", "want equal shapes"},
		{"a name twice", "- {op: relu, name: a}\n- {op: relu, name: a}", `name "a" is taken`},
		{"input as a name", "- {op: relu, name: input}", `name "input" is taken`},
		{"activation", "- {op: conv, kernel: 1, out: 3, activation: gelu}", `activation "gelu"`},
		{"softmax at the end", "- {op: flatten}\n- {op: dense}\n- {op: softmax}", "the loss has it"},
		{"not the classes", "- {op: flatten}\n- {op: dense, out: 4}", "want the 5 classes"},
		{"rate", "- {op: dropout, rate: 1}", "dropout rate 1"},
		{"too many weights", "- {op: flatten}\n- {op: dense, out: 100000000}\n- {op: dense}", "more than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := FromLayers(specs(t, tt.layers), model.Shape{9, 9, 3}, 5, 1)
			if !errors.Is(err, ErrLayers) && !errors.Is(err, ErrInput) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error %v: want %q in it", err, tt.says)
			}
		})
	}
	if _, err := FromLayers(nil, model.Shape{9}, 5, 1); !errors.Is(err, ErrLayers) {
		t.Errorf("no layers: error %v", err)
	}
	if _, err := FromLayers(make([]LayerSpec, MaxSpecs+1), model.Shape{9}, 5, 1); !errors.Is(err, ErrLayers) {
		t.Errorf("too many layers: error %v", err)
	}
	if _, err := FromLayers(specs(t, "- {op: dense}"), model.Shape{9}, 0, 1); !errors.Is(err, ErrInput) {
		t.Errorf("no classes: error %v", err)
	}
}
