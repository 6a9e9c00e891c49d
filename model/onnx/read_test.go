package onnx

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/modeltest"
	"github.com/espalier-ml/espalier/model/onnx/onnxpb"
)

// file builds small ONNX files for tests: values are named, the input is "x" and
// the output "y".
type file struct{ m *onnxpb.ModelProto }

func newFile(opset int64, dims ...int) file {
	in := valueInfo("x", model.Shape{1})
	shape := &onnxpb.TensorShapeProto{}
	for _, d := range dims {
		dim := &onnxpb.TensorShapeProto_Dimension{Value: &onnxpb.TensorShapeProto_Dimension_DimValue{DimValue: int64(d)}}
		if d < 0 {
			dim.Value = &onnxpb.TensorShapeProto_Dimension_DimParam{DimParam: "n"}
		}
		shape.Dim = append(shape.Dim, dim)
	}
	in.GetType().GetTensorType().Shape = shape
	return file{&onnxpb.ModelProto{IrVersion: 8, OpsetImport: []*onnxpb.OperatorSetIdProto{{Version: opset}}, Graph: &onnxpb.GraphProto{
		Name: "test", Input: []*onnxpb.ValueInfoProto{in}, Output: []*onnxpb.ValueInfoProto{{Name: "y"}},
	}}}
}

// node appends a node: "a b" are its inputs.
func (f file) node(op, inputs, output string, attrs ...*onnxpb.AttributeProto) file {
	n := &onnxpb.NodeProto{OpType: op, Output: strings.Fields(output), Attribute: attrs}
	for _, s := range strings.Fields(inputs) {
		n.Input = append(n.Input, strings.Trim(s, "-"))
	}
	f.m.Graph.Node = append(f.m.Graph.Node, n)
	return f
}

// floats appends an initializer holding 1, 2, 3, …
func (f file) floats(name string, dims ...int64) file {
	t := &onnxpb.TensorProto{Name: name, DataType: typeFloat, Dims: dims}
	n := int64(1)
	for _, d := range dims {
		n *= d
	}
	for i := range n {
		t.FloatData = append(t.FloatData, float32(i+1))
	}
	f.m.Graph.Initializer = append(f.m.Graph.Initializer, t)
	return f
}

func (f file) ints(name string, v ...int64) file {
	f.m.Graph.Initializer = append(f.m.Graph.Initializer, &onnxpb.TensorProto{Name: name, DataType: typeInt64, Dims: []int64{int64(len(v))}, Int64Data: v})
	return f
}

func (f file) bytes(t testing.TB) []byte {
	t.Helper()
	b, err := proto.Marshal(f.m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func attrString(name, v string) *onnxpb.AttributeProto {
	return &onnxpb.AttributeProto{Name: name, Type: onnxpb.AttributeProto_STRING, S: []byte(v)}
}

func TestReadRefuses(t *testing.T) {
	image := func() file { return newFile(13, -1, 2, 4, 4) }
	vector := func() file { return newFile(13, -1, 6) }
	changed := func(f file, change func(*onnxpb.ModelProto)) file { change(f.m); return f }
	for name, test := range map[string]struct {
		f    file
		want error
		text string
	}{
		"no nodes":         {image(), ErrFormat, "without nodes"},
		"old opset":        {newFile(5, 1, 6).node("Relu", "x", "y"), ErrUnsupported, "opset 5"},
		"no opset":         {changed(vector().node("Relu", "x", "y"), func(m *onnxpb.ModelProto) { m.OpsetImport = nil }), ErrFormat, "opset"},
		"functions":        {changed(vector().node("Relu", "x", "y"), func(m *onnxpb.ModelProto) { m.Functions = [][]byte{{}} }), ErrUnsupported, "defined in the file"},
		"sparse":           {changed(vector().node("Relu", "x", "y"), func(m *onnxpb.ModelProto) { m.Graph.SparseInitializer = [][]byte{{}} }), ErrUnsupported, "sparse"},
		"domain":           {changed(vector().node("Relu", "x", "y"), func(m *onnxpb.ModelProto) { m.Graph.Node[0].Domain = "com.x" }), ErrUnsupported, `"com.x"`},
		"operator":         {vector().node("Einsum", "x", "y"), ErrUnsupported, "operator Einsum"},
		"attribute":        {vector().node("Relu", "x", "y", attrInt("magic", 1)), ErrUnsupported, `"magic"`},
		"attribute twice":  {vector().node("LeakyRelu", "x", "y", attrFloat("alpha", 1), attrFloat("alpha", 1)), ErrFormat, "twice"},
		"attribute type":   {vector().node("LeakyRelu", "x", "y", attrInt("alpha", 1)), ErrFormat, "want FLOAT"},
		"not defined":      {vector().node("Relu", "z", "y"), ErrFormat, `"z" is not defined`},
		"defined twice":    {vector().node("Relu", "x", "y").node("Relu", "x", "y"), ErrFormat, "twice"},
		"output missing":   {vector().node("Relu", "x", "z"), ErrFormat, `"y" is not computed`},
		"output is input":  {vector().node("Identity", "x", "y"), ErrUnsupported, "is the input"},
		"output constant":  {vector().floats("w", 1).node("Identity", "w", "y"), ErrUnsupported, "is a constant"},
		"mask used":        {vector().node("Dropout", "x", "z m").node("Relu", "m", "y"), ErrUnsupported, "second output"},
		"two inputs":       {changed(vector().node("Relu", "x", "y"), func(m *onnxpb.ModelProto) { m.Graph.Input = append(m.Graph.Input, valueInfo("q", nil)) }), ErrUnsupported, `"x" and "q"`},
		"integers in":      {changed(vector().node("Relu", "x", "y"), func(m *onnxpb.ModelProto) { m.Graph.Input[0].GetType().GetTensorType().ElemType = typeInt64 }), ErrUnsupported, "FLOAT"},
		"unknown size":     {newFile(13, -1, -1).node("Relu", "x", "y"), ErrUnsupported, "known ones"},
		"absurd size":      {newFile(13, 1, 1<<20, 1<<20, 2).node("Relu", "x", "y"), ErrTooLarge, "elements"},
		"arity":            {vector().node("Relu", "x x", "y"), ErrFormat, "2 inputs"},
		"conv 1d":          {newFile(13, -1, 2, 9).floats("w", 3, 2, 3).node("Conv", "x w", "y"), ErrUnsupported, "3 dimensions"},
		"conv channels":    {image().floats("w", 3, 3, 2, 2).node("Conv", "x w", "y"), ErrFormat, "2 channels"},
		"conv weight":      {image().node("Relu", "x", "w").node("Conv", "x w", "y"), ErrUnsupported, "want a constant"},
		"conv too large":   {image().floats("w", 3, 2, 5, 5).node("Conv", "x w", "y"), ErrUnsupported, "window"},
		"conv stride":      {image().floats("w", 3, 2, 2, 2).node("Conv", "x w", "y", attrInts("strides", 0, 1)), ErrFormat, "strides"},
		"conv auto_pad":    {image().floats("w", 3, 2, 2, 2).node("Conv", "x w", "y", attrString("auto_pad", "ODD")), ErrFormat, `"ODD"`},
		"gemm transA":      {vector().floats("w", 6, 2).node("Gemm", "x w", "y", attrInt("transA", 1)), ErrUnsupported, "transA"},
		"gemm of image":    {image().floats("w", 6, 2).node("Gemm", "x w", "y"), ErrUnsupported, "features"},
		"gemm size":        {vector().floats("w", 5, 2).node("Gemm", "x w", "y"), ErrFormat, "6 features"},
		"pool dilations":   {image().node("MaxPool", "x", "y", attrInts("kernel_shape", 2, 2), attrInts("dilations", 2, 2)), ErrUnsupported, "dilations"},
		"pool kernel":      {image().node("MaxPool", "x", "y"), ErrFormat, "kernel_shape"},
		"clip":             {newFile(6, -1, 6).node("Clip", "x", "y", attrFloat("min", -1)), ErrUnsupported, "clip to [-1"},
		"softmax on image": {newFile(12, -1, 2, 4, 4).node("Softmax", "x", "y"), ErrUnsupported, "channels alone"},
		"hard sigmoid":     {vector().node("HardSigmoid", "x", "y", attrFloat("alpha", 1.0/6)), ErrUnsupported, "HardSigmoid on its own"},
		"swish":            {vector().node("Sigmoid", "x", "s").node("Mul", "x s", "y"), ErrUnsupported, "product of two"},
		"shuffle":          {image().ints("a", 0, 1, 2, 4, 4).ints("b", -1, 2, 16).node("Reshape", "x b", "y"), ErrUnsupported, "channels stay together"},
		"transpose":        {image().node("Transpose", "x", "y", attrInts("perm", 0, 1, 3, 2)), ErrUnsupported, "perm"},
		"perm":             {image().node("Transpose", "x", "y", attrInts("perm", 0, 1, 1, 2)), ErrFormat, "perm"},
		"batch moves":      {newFile(13, 2, 6).ints("s", 3, 4).node("Reshape", "x s", "y"), ErrUnsupported, "batch of 2"},
		"flatten out":      {image().node("Flatten", "x", "y"), ErrUnsupported, "flattened image"},
		"per element":      {image().floats("c", 2, 4, 4).node("Add", "x c", "y"), ErrUnsupported, "one per channel"},
		"raw size":         {changed(vector().floats("w", 6, 2).node("Gemm", "x w", "y"), func(m *onnxpb.ModelProto) { m.Graph.Initializer[0].RawData = make([]byte, 47) }), ErrFormat, "47 bytes"},
		"external":         {changed(vector().floats("w", 6, 2).node("Gemm", "x w", "y"), func(m *onnxpb.ModelProto) { m.Graph.Initializer[0].DataLocation = 1 }), ErrUnsupported, "another file"},
		"negative dim":     {changed(vector().floats("w", 6, 2).node("Gemm", "x w", "y"), func(m *onnxpb.ModelProto) { m.Graph.Initializer[0].Dims[0] = -6 }), ErrFormat, "-6"},
		"half precision":   {changed(vector().floats("w", 6, 2).node("Gemm", "x w", "y"), func(m *onnxpb.ModelProto) { m.Graph.Initializer[0].DataType = 10 }), ErrUnsupported, "FLOAT16"},
		"huge constant":    {newFile(13, -1, 6).ints("s", 1<<20, 1<<9).node("ConstantOfShape", "s", "w").node("MatMul", "x w", "y"), ErrTooLarge, "limit"},
	} {
		t.Run(name, func(t *testing.T) {
			g, err := Read(test.f.bytes(t), Limits{})
			if g != nil || !errors.Is(err, test.want) || !strings.Contains(fmt.Sprint(err), test.text) {
				t.Errorf("error %v: want %v with %q", err, test.want, test.text)
			}
		})
	}
}

// What exporters write in several ways is read as the same thing.
func TestReadFolds(t *testing.T) {
	attrTensor := func(t *onnxpb.TensorProto) *onnxpb.AttributeProto {
		return &onnxpb.AttributeProto{Name: "value", Type: onnxpb.AttributeProto_TENSOR, T: t}
	}
	one := &onnxpb.TensorProto{DataType: typeFloat, Dims: []int64{1}, FloatData: []float32{0.5}}
	for name, test := range map[string]struct {
		f    file
		want []string // kinds of the layers
		out  []float32
	}{
		"bias and scale":        {newFile(13, -1, 2).floats("w", 2, 2).floats("b", 2).floats("s", 1).node("MatMul", "x w", "a").node("Add", "b a", "c").node("Mul", "c s", "d").node("Sub", "d b", "y"), []string{"dense"}, []float32{7, 10}},
		"scale of the input":    {newFile(13, -1, 2).floats("m", 1, 2).floats("s", 2).node("Sub", "x m", "a").node("Div", "a s", "y"), []string{"batch-norm", "batch-norm"}, []float32{0, 0}},
		"constant minus":        {newFile(13, -1, 2).floats("m", 1).node("Sub", "m x", "y"), []string{"batch-norm"}, []float32{0, -1}},
		"computed shape":        {newFile(13, -1, 1, 1, 2).ints("zero", 0).ints("ax", 0).ints("rest", -1).node("Shape", "x", "s").node("Gather", "s zero", "n").node("Concat", "n rest", "to", attrInt("axis", 0)).node("Reshape", "x to", "f").node("Relu", "f", "y"), []string{"flatten", "relu"}, []float32{1, 2}},
		"transposed weight":     {newFile(13, -1, 2).floats("w", 3, 2).node("Transpose", "w", "wt").node("MatMul", "x wt", "y"), []string{"dense"}, []float32{5, 11, 17}},
		"constant of shape":     {newFile(13, -1, 2).ints("s", 2, 3).node("ConstantOfShape", "s", "w", attrTensor(one)).node("MatMul", "x w", "y"), []string{"dense"}, []float32{1.5, 1.5, 1.5}},
		"mean, squeezed":        {newFile(11, -1, 2, 1, 1).node("ReduceMean", "x", "m", attrInts("axes", -1, -2)).node("Squeeze", "m", "y", attrInts("axes", 2, 3)), []string{"global-avg-pool"}, []float32{1, 2}},
		"pooled and convolved":  {newFile(13, -1, 2, 1, 1).floats("w", 1, 2, 1, 1).node("GlobalAveragePool", "x", "m").node("Conv", "m w", "y"), []string{"global-avg-pool", "reshape", "conv"}, []float32{5}},
		"dead branch":           {newFile(13, -1, 2).node("Relu", "x", "y").node("Tanh", "y", "z"), []string{"relu"}, []float32{1, 2}},
		"clip is relu":          {newFile(6, -1, 2).node("Clip", "x", "y", attrFloat("min", 0)), []string{"relu"}, []float32{1, 2}},
		"no batch":              {newFile(13, 2).floats("w", 2, 2).node("MatMul", "x w", "y"), []string{"dense"}, []float32{7, 10}},
		"sum":                   {newFile(13, -1, 2).node("Relu", "x", "a").node("Sum", "a a x", "y"), []string{"relu", "add", "add"}, []float32{3, 6}},
		"scaled, then branched": {newFile(13, -1, 2).floats("w", 2, 2).floats("b", 2).node("MatMul", "x w", "a").node("Add", "a b", "c").node("Add", "a c", "y"), []string{"dense", "batch-norm", "add"}, []float32{15, 22}},
	} {
		t.Run(name, func(t *testing.T) {
			g, err := Read(test.f.bytes(t), Limits{})
			if err != nil {
				t.Fatal(err)
			}
			var kinds []string
			for _, l := range g.Layers {
				kinds = append(kinds, l.Op.Kind())
			}
			if fmt.Sprint(kinds) != fmt.Sprint(test.want) {
				t.Errorf("layers %v: want %v", kinds, test.want)
			}
			y, err := modeltest.Output(g, []float32{1, 2})
			if err != nil {
				t.Fatal(err)
			}
			closeTo(t, y, test.out, 1e-6)
		})
	}
}

func TestReadIsBounded(t *testing.T) {
	good := marshalled(t, chain(model.Shape{8}, model.Dense{Out: 100}))
	for name, test := range map[string]struct {
		b      []byte
		limits Limits
	}{
		"bytes":      {good, Limits{MaxBytes: 100}},
		"parameters": {good, Limits{MaxParams: 799}},
		"copies":     {good, Limits{MaxParams: 1599}},
		"messages": {protowire.AppendBytes(protowire.AppendTag(nil, 7, protowire.BytesType),
			[]byte(strings.Repeat("\x0a\x00", maxMessages+1))), Limits{}},
	} {
		if _, err := Read(test.b, test.limits); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: error %v: want %v", name, err, ErrTooLarge)
		}
	}
	if _, err := Read(good, Limits{MaxParams: 1600}); err != nil {
		t.Error(err)
	}
	for n := range len(good) {
		if _, err := Read(good[:n], Limits{}); err == nil {
			t.Fatalf("a file cut to %d bytes of %d was read", n, len(good))
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, g := range special() {
		f.Add(marshalled(f, g))
	}
	f.Add(newFile(11, -1, 2, 1, 1).node("ReduceMean", "x", "m", attrInts("axes", -1, -2)).node("Squeeze", "m", "y", attrInts("axes", 2, 3)).bytes(f))
	f.Add(newFile(13, -1, 1, 1, 2).ints("zero", 0).ints("rest", -1).node("Shape", "x", "s").node("Gather", "s zero", "n").node("Concat", "n rest", "to", attrInt("axis", 0)).node("Reshape", "x to", "f").node("Relu", "f", "y").bytes(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := Read(b, Limits{MaxBytes: 1 << 20, MaxParams: 1 << 20})
		if err != nil {
			if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrUnsupported) && !errors.Is(err, ErrTooLarge) {
				t.Errorf("error of no known kind: %v", err)
			}
			return
		}
		if err := g.Validate(); err != nil {
			t.Errorf("read an invalid graph: %v", err)
		}
	})
}
