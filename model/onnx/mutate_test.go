package onnx

import (
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/espalier-ml/espalier/model/modeltest"
	"github.com/espalier-ml/espalier/model/onnx/onnxpb"
)

// mutable collects closures that each change one thing in the message: a number,
// a string, or the presence of a list's element.
func mutable(m protoreflect.Message, r *rand.Rand, names []string) (out []func()) {
	change := func(f protoreflect.FieldDescriptor, old protoreflect.Value) protoreflect.Value {
		numbers := []int64{-1 << 40, -2, -1, 0, 1, 2, 3, 4, 5, 8, 13, 1 << 12, 1 << 20, 1<<31 - 1, 1 << 40}
		n := numbers[r.IntN(len(numbers))]
		switch f.Kind() {
		case protoreflect.Int64Kind:
			return protoreflect.ValueOfInt64(n)
		case protoreflect.Int32Kind:
			return protoreflect.ValueOfInt32(int32(n))
		case protoreflect.FloatKind:
			return protoreflect.ValueOfFloat32(float32(n))
		case protoreflect.StringKind:
			return protoreflect.ValueOfString(names[r.IntN(len(names))])
		case protoreflect.BytesKind:
			return protoreflect.ValueOfBytes(old.Bytes()[:r.IntN(len(old.Bytes())+1)])
		}
		return old
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsList():
			list := v.List()
			for i := range list.Len() {
				if f.Kind() == protoreflect.MessageKind {
					out = append(out, mutable(list.Get(i).Message(), r, names)...)
				} else {
					out = append(out, func() { list.Set(min(i, list.Len()-1), change(f, list.Get(min(i, list.Len()-1)))) })
				}
			}
			out = append(out, func() { list.Truncate(list.Len() - 1) }, func() { list.Append(list.Get(r.IntN(list.Len()))) })
		case f.Kind() == protoreflect.MessageKind:
			out = append(out, mutable(v.Message(), r, names)...)
		default:
			out = append(out, func() { m.Set(f, change(f, v)) })
		}
		return true
	})
	return out
}

// Valid files with one or two things changed never crash the reader, and what it
// accepts is valid.
func TestReadMutatedFiles(t *testing.T) {
	var files [][]byte
	graphs := special()
	for _, name := range slices.Sorted(maps.Keys(graphs)) {
		files = append(files, marshalled(t, graphs[name]))
	}
	for seed := range uint64(6) {
		files = append(files, marshalled(t, quantized(t, modeltest.Graph(seed))))
	}
	ops := []string{"Relu", "Flatten", "Reshape", "Transpose", "Add", "Mul", "Softmax", "Gemm", "Concat", "Squeeze", "Shape", "Gather", "GlobalAveragePool", "Pad", "QuantizeLinear", "DequantizeLinear"}
	count := map[string]int{}
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		m := unmarshal(t, files[r.IntN(len(files))], &onnxpb.ModelProto{})
		names := append([]string{"", "x"}, ops...)
		for _, n := range m.Graph.Node {
			names = append(names, n.Output...)
		}
		for range 1 + r.IntN(2) {
			list := mutable(m.ProtoReflect(), r, names)
			list[r.IntN(len(list))]()
		}
		b, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		g, err := Read(b, Limits{MaxParams: 1 << 22})
		switch {
		case err == nil && g.Validate() != nil:
			t.Fatalf("seed %d: read an invalid graph", seed)
		case err == nil:
			count["read"]++
		case errors.Is(err, ErrFormat):
			count["format"]++
		case errors.Is(err, ErrUnsupported):
			count["unsupported"]++
		case errors.Is(err, ErrTooLarge):
			count["large"]++
		default:
			t.Fatalf("seed %d: error of no known kind: %v", seed, err)
		}
	}
	t.Log(count)
	for _, kind := range []string{"read", "format", "unsupported"} {
		if count[kind] < 20 {
			t.Errorf("%d files ended as %q: the test changes too little", count[kind], kind)
		}
	}
}
