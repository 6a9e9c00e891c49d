package onnx

import (
	"encoding/binary"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/onnx/onnxpb"
)

// byteWriter writes what of an int8 network is bytes. The file says it in "QDQ" form:
// every operator is that of float32 networks, and a QuantizeLinear and a
// DequantizeLinear between two of them say which bytes carry the numbers. A runtime
// that finds these around an operator takes the kernel for bytes.
type byteWriter struct {
	graph     *model.Graph
	consumers [][]int
	ends      map[int]bool // layers whose output a layer on bytes computes
	wires     map[int]wire // by layer, or model.Input: values as they come out of bytes
}

func newByteWriter(g *model.Graph) *byteWriter {
	return &byteWriter{graph: g, consumers: g.Consumers(), ends: map[int]bool{}, wires: map[int]wire{}}
}

// input takes the network's input through bytes if it is in bytes.
func (b *byteWriter) input(e *exporter, w wire) {
	if a, ok := b.graph.OutputBytes(model.Input); ok {
		b.throughBytes(e, model.Input, w, a)
	}
}

// before looks at layer i, which x is about to write: its input may have to be
// one that went through bytes.
func (b *byteWriter) before(x *layerWriter, i int) {
	switch x.Op.(type) {
	case model.MaxPool, model.Flatten, model.Reshape:
	case model.Conv, model.Dense:
		q, scale, ok := b.graph.WeightBytes(i)
		if !ok {
			return
		}
		x.bytes = &layerBytes{q: q, scale: scale}
		x.bytes.in, _ = b.graph.OutputBytes(x.Inputs[0])
		b.ends[b.graph.ByteEnd(i, b.consumers)] = true
	default:
		return
	}
	if w, ok := b.wires[x.Inputs[0]]; ok {
		x.in[0] = w
	}
}

// after takes the output of layer i through bytes if it is in bytes. Where it was
// computed on bytes there is no other form of it.
func (b *byteWriter) after(x *layerWriter, i int) {
	a, ok := b.graph.OutputBytes(i)
	if !ok {
		return
	}
	w := b.throughBytes(x.exporter, i, x.wires[i], a)
	only := b.ends[i]
	switch x.Op.(type) {
	case model.MaxPool, model.Flatten, model.Reshape:
		_, only = b.wires[x.Inputs[0]]
	}
	if only {
		x.wires[i] = w
	}
}

// throughBytes writes the pair of nodes that rounds value i as bytes do.
func (b *byteWriter) throughBytes(e *exporter, i int, w wire, a model.Affine) wire {
	name := InputName
	if i != model.Input {
		name = b.graph.Layers[i].Name
	}
	scale := e.floats(name+"_scale", []float32{a.Scale})
	zero := e.initializer(name+"_zero", typeUint8, []byte{a.Zero}, nil)
	q := e.node("QuantizeLinear", name+"_quantized", []string{w.name, scale, zero})
	w.name = e.node("DequantizeLinear", name+"_dequantized", []string{q, scale, zero})
	b.wires[i] = w
	return w
}

// layerBytes are the weights of a layer on bytes.
type layerBytes struct {
	in    model.Affine
	q     []int8
	scale []float32 // of each output channel
}

// byteParams writes the weight, whose last dimension is the outputs, with its
// dimensions in another order, one scale per output along axis, and the bias as int32.
func (x *layerWriter) byteParams(shape model.Shape, q []int8, perm []int, axis int) []string {
	out, scale := len(x.bytes.scale), x.bytes.scale
	c := &constant{dims: shape, ints: make([]int64, len(q))}
	for i, v := range q {
		c.ints[i] = int64(v)
	}
	c = c.transposed(perm)
	raw := make([]byte, len(q))
	for i, v := range c.ints {
		raw[i] = byte(int8(v))
	}
	inputs := []string{x.dequantized("_weight", typeInt8, raw, c.dims, scale, axis, make([]byte, out))}
	b := x.Params[model.Bias]
	if b == nil {
		return inputs
	}
	raw, unit := nil, make([]float32, out)
	for i, v := range b.Data {
		unit[i] = model.BiasUnit(x.bytes.in.Scale, scale[i])
		n, _ := model.BiasUnits(v, unit[i]) // a valid graph's bias has room
		raw = binary.LittleEndian.AppendUint32(raw, uint32(n))
	}
	return append(inputs, x.dequantized("_bias", typeInt32, raw, []int{out}, unit, 0, make([]byte, 4*out)))
}

// dequantized writes integers with a scale and a zero for each index of axis.
func (x *layerWriter) dequantized(suffix string, typ int32, raw []byte, dims []int, scale []float32, axis int, zero []byte) string {
	name := x.Name + suffix
	return x.node("DequantizeLinear", name+"_dequantized", []string{
		x.initializer(name, typ, raw, dims),
		x.floats(name+"_scale", scale, len(scale)),
		x.initializer(name+"_zero", typ, zero, []int{len(scale)}),
	}, attrInt("axis", axis))
}

// Types of tensors that only int8 networks have.
const (
	typeUint8 = int32(onnxpb.TensorProto_UINT8)
	typeInt8  = int32(onnxpb.TensorProto_INT8)
)
