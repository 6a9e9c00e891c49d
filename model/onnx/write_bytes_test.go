package onnx

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/infer"
	"github.com/espalier-ml/espalier/model/modeltest"
	"github.com/espalier-ml/espalier/model/onnx/onnxpb"
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
	s, err := infer.Quantize(t.Context(), g, examples{g}, []int32{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func planned(t testing.TB, g *model.Graph, x []float32, n int) ([]float32, []infer.Layer) {
	t.Helper()
	p, err := infer.Compile(g, infer.Options{Batch: n})
	if err != nil {
		t.Fatal(err)
	}
	y := make([]float32, n*p.OutputSize())
	if err := p.Run(x, y); err != nil {
		t.Fatal(err)
	}
	return y, p.Layers()
}

// distance is the root of the mean squared difference, relative to the spread of
// want.
func distance(got, want []float32) float64 {
	var mean, diff, spread float64
	for _, v := range want {
		mean += float64(v) / float64(len(want))
	}
	for i, v := range want {
		diff += (float64(v) - float64(got[i])) * (float64(v) - float64(got[i]))
		spread += (float64(v) - mean) * (float64(v) - mean)
	}
	return math.Sqrt(diff / (spread + 1e-12))
}

// byteGraphs are the networks that int8 files are tested on: the zoo, and random
// ones with every operator.
func byteGraphs(t testing.TB) map[string]*model.Graph {
	t.Helper()
	graphs := map[string]*model.Graph{}
	for _, name := range zoo.Names() {
		if g, err := zoo.Build(name, model.Shape{28, 28, 1}, 10, 1); err == nil && name != "autoencoder-fc" {
			graphs[name] = g
		}
	}
	for seed := range uint64(30) {
		graphs[fmt.Sprintf("random %d", seed)] = modeltest.Graph(seed)
	}
	return graphs
}

// An int8 file gives in ONNX Runtime, which computes what it says step by step,
// nearly what the native runtime computes on bytes.
func TestInt8FilesInORT(t *testing.T) {
	const batch = 8
	graphs := byteGraphs(t)
	dir := t.TempDir()
	var names []string
	var cases []modeltest.ORTCase
	for name, g := range graphs {
		b, err := Marshal(quantized(t, g), Options{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		path := filepath.Join(dir, fmt.Sprintf("%d.onnx", len(names)))
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		c := modeltest.ORTCase{Model: path, Dims: append([]int{batch}, dimsOf(g.Input)...)}
		for k := range uint64(batch) {
			c.Inputs = append(c.Inputs, channelsFirst(modeltest.Example(g, k), g.Input)...)
		}
		names, cases = append(names, name), append(cases, c)
	}
	for i, r := range modeltest.RunORT(t, "../..", cases) {
		t.Run(names[i], func(t *testing.T) {
			if r.Error != "" {
				t.Fatal(r.Error)
			}
			g := graphs[names[i]]
			var x []float32
			for k := range uint64(batch) {
				x = append(x, modeltest.Example(g, k)...)
			}
			want, _ := planned(t, quantized(t, g), x, batch)
			shapes, err := g.Shapes()
			if err != nil {
				t.Fatal(err)
			}
			out := shapes[len(shapes)-1]
			n := out.Elements()
			for k := range batch {
				copy(want[k*n:], channelsFirst(want[k*n:(k+1)*n], out))
			}
			floats, _ := planned(t, g, x, batch)
			d, loss := distance(r.Outputs, want), distance(floats, want)
			t.Logf("%.4f of the spread away, float32 %.4f", d, loss)
			if !(d < 0.01) {
				t.Errorf("outputs are %.3f of their spread away from the native runtime's", d)
			}
		})
	}
}

// Every layer that the native runtime computes on bytes has its weights as int8
// in the file, and the file shrinks accordingly.
func TestInt8FilesHaveBytes(t *testing.T) {
	for name, g := range byteGraphs(t) {
		t.Run(name, func(t *testing.T) {
			s := quantized(t, g)
			b, err := Marshal(s, Options{})
			if err != nil {
				t.Fatal(err)
			}
			again, err := Marshal(s, Options{})
			if err != nil || !slices.Equal(b, again) {
				t.Fatalf("the same network gives other bytes, %v", err)
			}
			var m onnxpb.ModelProto
			if err := proto.Unmarshal(b, &m); err != nil {
				t.Fatal(err)
			}
			types := map[string]int32{}
			for _, i := range m.Graph.Initializer {
				types[i.Name] = i.DataType
			}
			_, layers := planned(t, s, modeltest.Example(g, 0), 1)
			for _, l := range layers {
				if l.Kernel == infer.KernelInt8 && types[l.Name+"_weight"] != typeInt8 {
					t.Errorf("weight of %s has type %s: want INT8", l.Name, typeName(types[l.Name+"_weight"]))
				}
			}
		})
	}
	g, err := zoo.Build("seed-cnn", model.Shape{32, 32, 3}, 10, 1)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Marshal(quantized(t, g), Options{})
	if f := len(marshalled(t, g)); err != nil || len(b)*100 > f*29 {
		t.Errorf("%d bytes, %v: want at most 29 %% of %d", len(b), err, f)
	}
}

// An int8 file read back is the network that was written, to the bit.
func TestInt8FilesComeBack(t *testing.T) {
	for name, g := range byteGraphs(t) {
		t.Run(name, func(t *testing.T) {
			q := quantized(t, g)
			b := marshalled(t, q)
			got, err := Read(b, Limits{})
			if err != nil {
				t.Fatal(err)
			}
			if got.Quant == nil || !reflect.DeepEqual(got.Quant.Weights, q.Quant.Weights) || got.Quant.Input != q.Quant.Input {
				t.Fatalf("read back, the quantization is %+v: want %+v", got.Quant, q.Quant)
			}
			x := modeltest.Example(g, 3)
			y, layers := planned(t, got, x, 1)
			want, before := planned(t, q, x, 1)
			if !slices.Equal(y, want) {
				t.Errorf("other outputs than before writing")
			}
			if n := onBytes(layers); n != onBytes(before) {
				t.Errorf("%d layers on bytes: want %d", n, onBytes(before))
			}
			if again := marshalled(t, got); !strings.HasPrefix(name, "random") && !bytes.Equal(again, b) {
				t.Errorf("written again, the bytes differ")
			}
		})
	}
}

func onBytes(layers []infer.Layer) (n int) {
	for _, l := range layers {
		if l.Kernel == infer.KernelInt8 {
			n++
		}
	}
	return n
}
