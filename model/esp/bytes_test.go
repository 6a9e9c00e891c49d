package esp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"reflect"
	"slices"
	"testing"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/infer"
	"github.com/espalier-ml/espalier/model/modeltest"
	"github.com/espalier-ml/espalier/model/zoo"
)

// examples gives a network's random examples by index.
type examples struct{ g *model.Graph }

func (e examples) Batch(x []float32, labels []int32, indices []int32) {
	n := e.g.Input.Elements()
	for i, k := range indices {
		copy(x[i*n:], modeltest.Example(e.g, uint64(k)))
	}
	clear(labels)
}

func quantized(t testing.TB, g *model.Graph) *model.Graph {
	t.Helper()
	q, err := infer.Quantize(t.Context(), g, examples{g}, []int32{0, 1, 2, 3})
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func TestInt8RoundTrip(t *testing.T) {
	for seed := range uint64(60) {
		g := quantized(t, sparse(modeltest.Graph(seed), float64(seed%10)/10, seed))
		b := write(t, g)
		got, err := Read(bytes.NewReader(b), Limits{})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if !reflect.DeepEqual(got.Quant, g.Quant) {
			t.Fatalf("seed %d: the quantization is %+v: want %+v", seed, got.Quant, g.Quant)
		}
		for i := range g.Layers {
			for name, w := range g.Layers[i].Params {
				for k, v := range got.Layers[i].Params[name].Data {
					if v != w.Data[k] {
						t.Fatalf("seed %d: %s of %s: value %d is %v: want %v", seed, name, g.Layers[i].Name, k, v, w.Data[k])
					}
				}
			}
		}
		if n, err := Size(g); err != nil || n != int64(len(b)) {
			t.Fatalf("seed %d: size %d, error %v: want %d", seed, n, err, len(b))
		}
		if again := write(t, got); !bytes.Equal(again, b) {
			t.Fatalf("seed %d: written again, the bytes differ", seed)
		}
	}
}

// A quarter of the bytes for a dense network, and less where weights are zero.
func TestInt8IsSmall(t *testing.T) {
	g, err := zoo.Build("seed-cnn", model.Shape{32, 32, 3}, 10, 1)
	if err != nil {
		t.Fatal(err)
	}
	last := 0
	for i, p := range []float64{0.95, 0.5, 0} {
		n := len(write(t, quantized(t, sparse(g, p, 1))))
		if bound := int(122570*(1-p)*1.01) + 122570/8*min(1, 2-i) + 3000; n <= last || n > bound {
			t.Errorf("at %v sparsity %d bytes: want at most %d, and more than %d", p, n, bound, last)
		}
		last = n
	}
}

// A whole int8 file, as docs/esp.md describes it.
func TestInt8FileBytes(t *testing.T) {
	structure := `{"version":1,"input":[1],"layers":[{"name":"l","op":"dense","inputs":[-1],"attrs":{"out":2}}]}`
	file := func(tensor ...byte) []byte {
		b := append([]byte("\x89ESP\x02\x00"), byte(len(structure)), byte(len(structure)))
		b = append(b, structure...)
		b = append(b, 1, 0, 0, 0, 0x3f, 128) // the input: 0.5, 128
		b = append(b, 1, 0, 0, 0x80, 0x3f, 3)
		return seal(append(append(b, tensor...), 0, 0, 0, 0))
	}
	scales := binary.LittleEndian.AppendUint32([]byte{1, 0, 0, 0x80, 0x3f}, 0x40000000) // 1 and 2
	scales = slices.Clip(scales)
	good := file(append(scales, 0, 5, 0x81)...)
	got, err := Read(bytes.NewReader(good), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	want := vector(5, -254)
	want.Quant = &model.Quant{Input: model.Affine{Scale: 0.5, Zero: 128}, Layers: map[string]model.Affine{"l": {Scale: 1, Zero: 3}},
		Weights: map[string][]float32{"l": {1, 2}}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v: want %+v", got, want)
	}
	for name, tensor := range map[string][]byte{
		"-128":                append(scales, 0, 5, 0x80),
		"cut within scales":   {1, 0, 0},
		"cut within values":   append(scales, 0, 5),
		"cut within indices":  append(scales, 2, 2, 0),
		"cut within a bitmap": append(scales, 1),
		"a scale of 0":        {1, 0, 0, 0, 0, 0, 0, 0x80, 0x3f, 0, 5, 5},
		"an infinite scale":   {1, 0, 0, 0x80, 0x7f, 0, 0, 0x80, 0x3f, 0, 5, 5},
	} {
		if _, err := Read(bytes.NewReader(file(tensor...)), Limits{}); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: error %v: want %v", name, err, ErrCorrupt)
		}
	}
	if _, err := Read(bytes.NewReader(file(append(scales, 7, 5, 5)...)), Limits{}); !errors.Is(err, ErrVersion) {
		t.Errorf("an unknown encoding: error %v: want %v", err, ErrVersion)
	}
	float := append([]byte("\x89ESP\x01\x00"), byte(len(structure)), byte(len(structure)))
	float = append(append(append(float, structure...), scales...), 0, 5, 5, 0, 0, 0, 0)
	if _, err := Read(bytes.NewReader(seal(float)), Limits{}); !errors.Is(err, ErrVersion) {
		t.Errorf("int8 weights in a float32 file: error %v: want %v", err, ErrVersion)
	}
}
