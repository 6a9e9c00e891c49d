package model_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/modeltest"
)

func withoutParams(g *model.Graph) *model.Graph {
	g = g.Clone()
	for i := range g.Layers {
		g.Layers[i].Params = nil
	}
	return g
}

func TestStructureRoundTrip(t *testing.T) {
	for seed := range uint64(200) {
		g := modeltest.Graph(seed)
		g.Meta = map[string]string{model.MetaClasses: "a,<b>,ü"}
		b, err := model.MarshalStructure(g)
		if err != nil {
			t.Fatal(err)
		}
		got, err := model.UnmarshalStructure(b)
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, b)
		}
		if want := withoutParams(g); !reflect.DeepEqual(got, want) {
			t.Fatalf("seed %d: got %+v, want %+v", seed, got, want)
		}
		again, err := model.MarshalStructure(got)
		if err != nil || string(again) != string(b) {
			t.Fatalf("seed %d: written again: %v\n%s\n%s", seed, err, again, b)
		}
	}
}

// The text is part of files that exist: a change needs a new version.
func TestStructureIsStable(t *testing.T) {
	b, err := model.MarshalStructure(small())
	if err != nil {
		t.Fatal(err)
	}
	want := `{"version":1,"name":"small","input":[4,4,2],"layers":[` +
		`{"name":"conv","op":"conv","inputs":[-1],"attrs":{"out":3,"kernel":[3,3],"stride":[1,1],"dilation":[1,1],"groups":1,"bias":true}},` +
		`{"name":"bn","op":"batch-norm","inputs":[0],"attrs":{"epsilon":0.001,"momentum":0.1}},` +
		`{"name":"flat","op":"flatten","inputs":[1]},` +
		`{"name":"fc","op":"dense","inputs":[2],"attrs":{"out":5}}],"meta":{"job":"j"}}`
	if string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
}

func TestStructureErrors(t *testing.T) {
	layers := func(s string) string { return `{"version":1,"input":[4],"layers":[` + s + `]}` }
	for _, tt := range []struct {
		name, in string
		want     error
	}{
		{"empty", ``, model.ErrStructure},
		{"cut", `{"version":1,"input":[4],`, model.ErrStructure},
		{"other version", `{"version":2,"input":[4],"layers":[]}`, model.ErrStructureVersion},
		{"no version", `{"input":[4],"layers":[]}`, model.ErrStructureVersion},
		{"no layers", layers(``), model.ErrStructure},
		{"data after", layers(`{"name":"a","op":"relu","inputs":[-1]}`) + `{}`, model.ErrStructure},
		{"unknown field", `{"version":1,"input":[4],"layers":[],"extra":1}`, model.ErrStructure},
		{"unknown operator", layers(`{"name":"a","op":"gelu","inputs":[-1]}`), model.ErrStructure},
		{"unknown attribute", layers(`{"name":"a","op":"dense","inputs":[-1],"attrs":{"out":3,"in":4}}`), model.ErrStructure},
		{"attribute of another operator", layers(`{"name":"a","op":"flatten","inputs":[-1],"attrs":{"out":3}}`), model.ErrStructure},
		{"not finite", layers(`{"name":"a","op":"leaky-relu","inputs":[-1],"attrs":{"alpha":1e99}}`), model.ErrStructure},
		{"wrong shape", layers(`{"name":"a","op":"global-avg-pool","inputs":[-1]}`), model.ErrShape},
		{"later input", layers(`{"name":"a","op":"relu","inputs":[0]}`), model.ErrGraph},
		{"null layer", layers(`null`), model.ErrStructure},
		{"too long", strings.Repeat(" ", model.MaxStructureBytes+1), model.ErrStructure},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := model.UnmarshalStructure([]byte(tt.in)); !errors.Is(err, tt.want) {
				t.Errorf("error %v: want %v", err, tt.want)
			}
		})
	}
	g := small()
	g.Layers[0].Name = "\xff"
	if _, err := model.MarshalStructure(g); !errors.Is(err, model.ErrStructure) {
		t.Errorf("a name that is not UTF-8: error %v", err)
	}
}

func FuzzStructure(f *testing.F) {
	for seed := range uint64(20) {
		b, err := model.MarshalStructure(modeltest.Graph(seed))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := model.UnmarshalStructure(b)
		if err != nil {
			return
		}
		out, err := model.MarshalStructure(g)
		if err != nil {
			t.Fatalf("cannot write what was read: %v", err)
		}
		again, err := model.UnmarshalStructure(out)
		if err != nil || len(again.Layers) != len(g.Layers) {
			t.Fatalf("cannot read what was written: %v", err)
		}
	})
}
