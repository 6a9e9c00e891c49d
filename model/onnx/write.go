package onnx

import (
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"

	"google.golang.org/protobuf/proto"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/onnx/onnxpb"
)

// What Write writes.
const (
	writeIR    = 8
	writeOpset = 13
	// InputName and OutputName are the names of a written network's input and
	// output.
	InputName  = "input"
	OutputName = "output"
	// BatchName is the name of the dimension that stands for the batch.
	BatchName = "N"
)

// Options of Write. The zero value will do.
type Options struct {
	ProducerVersion string // recorded beside the producer's name
}

// Write writes a graph as an ONNX file: float32 (or int8), IR 8, opset 13, one input and
// one output, the batch a symbolic dimension. An int8 network is written in QDQ form.
// An image {H, W, C} becomes
// {N, C, H, W}, a vector {N, features}; Meta becomes the file's metadata. Equal
// graphs give equal bytes. The graph must be valid; its errors are Validate's.
func Write(w io.Writer, g *model.Graph, o Options) error {
	b, err := Marshal(g, o)
	if err != nil {
		return err
	}
	if _, err := w.Write(b); err != nil {
		return fmt.Errorf("write onnx file: %w", err)
	}
	return nil
}

// Marshal gives the bytes that Write writes.
func Marshal(g *model.Graph, o Options) ([]byte, error) {
	if err := g.Validate(); err != nil {
		return nil, err
	}
	e := &exporter{graph: g, out: &onnxpb.GraphProto{Name: g.Name}, used: map[string]bool{InputName: true, OutputName: true}}
	if g.Quant != nil {
		e.bytes = newByteWriter(g)
	}
	if e.out.Name == "" {
		e.out.Name = "network"
	}
	if err := e.run(); err != nil {
		return nil, err
	}
	m := &onnxpb.ModelProto{
		IrVersion: writeIR, ProducerName: "espalier", ProducerVersion: o.ProducerVersion, Graph: e.out,
		OpsetImport: []*onnxpb.OperatorSetIdProto{{Version: writeOpset}},
	}
	for _, k := range slices.Sorted(maps.Keys(g.Meta)) {
		m.MetadataProps = append(m.MetadataProps, &onnxpb.StringStringEntryProto{Key: k, Value: g.Meta[k]})
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("write onnx file: %w", err)
	}
	return b, nil
}

// wire is a value in the file: its name, its shape in the graph, and for a vector
// where its element i is in the graph's order (nil: at i).
type wire struct {
	name  string
	shape model.Shape
	perm  []int32
}

// exporter writes layer by layer.
type exporter struct {
	graph *model.Graph
	out   *onnxpb.GraphProto
	used  map[string]bool // names of values
	wires []wire          // of the layers
	bytes *byteWriter     // of int8 networks
}

func (e *exporter) run() error {
	shapes, err := e.graph.Shapes()
	if err != nil {
		return err
	}
	input := wire{name: InputName, shape: e.graph.Input}
	e.out.Input = []*onnxpb.ValueInfoProto{valueInfo(InputName, input.shape)}
	e.wires = make([]wire, len(shapes))
	if e.bytes != nil {
		e.bytes.input(e, input)
	}
	for i := range e.graph.Layers {
		l := &e.graph.Layers[i]
		in := make([]wire, len(l.Inputs))
		for k, j := range l.Inputs {
			if in[k] = input; j != model.Input {
				in[k] = e.wires[j]
			}
		}
		x := &layerWriter{exporter: e, Layer: l, in: in, shape: shapes[i]}
		if e.bytes != nil {
			e.bytes.before(x, i)
		}
		if e.wires[i], err = x.write(); err != nil {
			return fmt.Errorf("layer %q: %w", l.Name, err)
		}
		if e.bytes != nil {
			e.bytes.after(x, i)
		}
	}
	last := e.wires[len(shapes)-1]
	if last.perm != nil {
		last = e.inOrder(last, "output_order")
	}
	e.rename(last.name)
	e.out.Output = []*onnxpb.ValueInfoProto{valueInfo(OutputName, last.shape)}
	return nil
}

// rename gives the value that is the network's result its name.
func (e *exporter) rename(from string) {
	for _, n := range e.out.Node {
		for _, names := range [][]string{n.Input, n.Output} {
			for i, s := range names {
				if s == from {
					names[i] = OutputName
				}
			}
		}
	}
}

// dimsOf is a shape as ONNX has it, without the batch.
func dimsOf(s model.Shape) []int {
	if len(s) == 3 {
		return []int{s[2], s[0], s[1]}
	}
	return s
}

func valueInfo(name string, s model.Shape) *onnxpb.ValueInfoProto {
	shape := &onnxpb.TensorShapeProto{Dim: []*onnxpb.TensorShapeProto_Dimension{
		{Value: &onnxpb.TensorShapeProto_Dimension_DimParam{DimParam: BatchName}},
	}}
	for _, d := range dimsOf(s) {
		shape.Dim = append(shape.Dim, &onnxpb.TensorShapeProto_Dimension{Value: &onnxpb.TensorShapeProto_Dimension_DimValue{DimValue: int64(d)}})
	}
	t := &onnxpb.TypeProto_Tensor{ElemType: typeFloat, Shape: shape}
	return &onnxpb.ValueInfoProto{Name: name, Type: &onnxpb.TypeProto{Value: &onnxpb.TypeProto_TensorType{TensorType: t}}}
}

// fresh makes a name unique among values.
func (e *exporter) fresh(name string) string {
	unique := name
	for i := 2; e.used[unique]; i++ {
		unique = name + "_" + strconv.Itoa(i)
	}
	e.used[unique] = true
	return unique
}

// node appends a node named and returning name.
func (e *exporter) node(op, name string, inputs []string, attrs ...*onnxpb.AttributeProto) string {
	out := e.fresh(name)
	e.out.Node = append(e.out.Node, &onnxpb.NodeProto{Name: out, OpType: op, Input: inputs, Output: []string{out}, Attribute: attrs})
	return out
}

// floats appends an initializer of floats.
func (e *exporter) floats(name string, data []float32, dims ...int) string {
	raw := make([]byte, 0, 4*len(data))
	for _, v := range data {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(v))
	}
	return e.initializer(name, typeFloat, raw, dims)
}

// ints appends an initializer of 64-bit integers.
func (e *exporter) ints(name string, data ...int) string {
	raw := make([]byte, 0, 8*len(data))
	for _, v := range data {
		raw = binary.LittleEndian.AppendUint64(raw, uint64(v))
	}
	return e.initializer(name, typeInt64, raw, []int{len(data)})
}

func (e *exporter) initializer(name string, typ int32, raw []byte, dims []int) string {
	name = e.fresh(name)
	t := &onnxpb.TensorProto{Name: name, DataType: typ, RawData: raw}
	for _, d := range dims {
		t.Dims = append(t.Dims, int64(d))
	}
	e.out.Initializer = append(e.out.Initializer, t)
	return name
}

func attrInt(name string, v int) *onnxpb.AttributeProto {
	return &onnxpb.AttributeProto{Name: name, Type: onnxpb.AttributeProto_INT, I: int64(v)}
}

func attrFloat(name string, v float32) *onnxpb.AttributeProto {
	return &onnxpb.AttributeProto{Name: name, Type: onnxpb.AttributeProto_FLOAT, F: v}
}

func attrInts(name string, v ...int) *onnxpb.AttributeProto {
	a := &onnxpb.AttributeProto{Name: name, Type: onnxpb.AttributeProto_INTS}
	for _, x := range v {
		a.Ints = append(a.Ints, int64(x))
	}
	return a
}

// inOrder picks a vector's elements into the graph's order.
func (e *exporter) inOrder(w wire, name string) wire {
	if w.perm == nil {
		return w
	}
	at := make([]int, len(w.perm))
	for i, j := range w.perm {
		at[j] = i
	}
	index := e.ints(name+"_index", at...)
	return wire{name: e.node("Gather", name, []string{w.name, index}, attrInt("axis", 1)), shape: w.shape}
}
