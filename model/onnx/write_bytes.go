package onnx

import (
	"encoding/binary"
	"math"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/onnx/onnxpb"
	"github.com/espalier-ml/espalier/model/quantize"
)

// byteWriter decides what of a graph is computed on bytes: what model/infer
// computes so. The file says it in "QDQ" form: every operator is that of float32
// networks, and a QuantizeLinear and a DequantizeLinear between two of them say
// which bytes carry the numbers. A runtime that finds these around an operator
// takes the kernel for bytes.
type byteWriter struct {
	graph     *model.Graph // without dropout, batch normalisations and paddings merged into layers
	scheme    *quantize.Scheme
	named     map[string]string // by layer: the scheme's name of what it computes, where it differs
	consumers [][]int
	ends      map[int]bool      // layers whose output is in bytes
	values    map[int]byteValue // by layer, or model.Input: values that are in bytes somewhere
}

// byteValue is a value as it comes out of bytes.
type byteValue struct {
	wire   wire
	affine quantize.Affine
}

// newByteWriter prepares a valid graph.
func newByteWriter(g *model.Graph, s *quantize.Scheme) (*byteWriter, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	g, err := model.Simplify(g)
	if err != nil {
		return nil, err
	}
	folded, err := model.FoldBatchNorm(g)
	if err != nil {
		return nil, err
	}
	b := &byteWriter{scheme: s, named: foldedNames(g, folded), ends: map[int]bool{}, values: map[int]byteValue{}}
	if b.graph, err = mergePads(folded); err != nil {
		return nil, err
	}
	b.consumers = b.graph.Consumers()
	return b, nil
}

// foldedNames gives, for layers that batch normalisations were folded into, the
// name of the last of these.
func foldedNames(g, folded *model.Graph) map[string]string {
	named, into := map[string]string{}, map[string]string{}
	for i := range g.Layers {
		l := &g.Layers[i]
		if _, ok := folded.Index(l.Name); ok {
			continue
		}
		base := g.Layers[l.Inputs[0]].Name
		if b, ok := into[base]; ok {
			base = b
		}
		into[l.Name], named[base] = base, l.Name
	}
	return named
}

// mergePads gives convolutions the padding of a Pad that only they read.
func mergePads(g *model.Graph) (*model.Graph, error) {
	consumers := g.Consumers()
	for i := range g.Layers {
		c, ok := g.Layers[i].Op.(model.Conv)
		j := g.Layers[i].Inputs[0]
		if !ok || j == model.Input || len(consumers[j]) != 1 {
			continue
		}
		if p, ok := g.Layers[j].Op.(model.Pad); ok {
			c.Pad.Top, c.Pad.Left = c.Pad.Top+p.Pad.Top, c.Pad.Left+p.Pad.Left
			c.Pad.Bottom, c.Pad.Right = c.Pad.Bottom+p.Pad.Bottom, c.Pad.Right+p.Pad.Right
			g.Layers[i].Op, g.Layers[i].Inputs[0] = c, g.Layers[j].Inputs[0]
		}
	}
	return model.Simplify(g)
}

// affine is what the scheme says of the output of layer i, or of the input.
func (b *byteWriter) affine(i int) (quantize.Affine, bool) {
	if i == model.Input {
		return b.scheme.Input, b.scheme.Input.Scale > 0
	}
	l := &b.graph.Layers[i]
	switch l.Op.(type) {
	case model.Flatten, model.Reshape: // the same numbers
		return b.affine(l.Inputs[0])
	}
	name := l.Name
	if n, ok := b.named[name]; ok {
		name = n
	}
	a := b.scheme.Layers[name]
	return a, a.Scale > 0
}

// before looks at layer i, which x is about to write: its input may have to be
// one that went through bytes.
func (b *byteWriter) before(x *layerWriter, i int) {
	from := x.Inputs[0]
	v, inBytes := b.values[from]
	switch x.Op.(type) {
	case model.MaxPool, model.Flatten, model.Reshape:
		if inBytes {
			x.in[0] = v.wire
		}
		return
	case model.Conv, model.Dense:
	default:
		return
	}
	in, ok := v.affine, inBytes
	if !inBytes {
		in, ok = b.affine(from)
	}
	last := i
	if c := b.consumers[i]; len(c) == 1 {
		if a, ok := b.graph.Layers[c[0]].Op.(model.Activation); ok && (a.Func == model.ReLU || a.Func == model.ReLU6) {
			last = c[0]
		}
	}
	if _, named := b.affine(last); !ok || !named || !biasFits(x.Layer, in) {
		return
	}
	if !inBytes {
		v = b.throughBytes(x, from, x.in[0], in)
	}
	x.in[0], x.quant, b.ends[last] = v.wire, &in, true
}

// after takes the output of layer i through bytes if it is in bytes.
func (b *byteWriter) after(x *layerWriter, i int) {
	if b.ends[i] {
		a, _ := b.affine(i)
		b.wireBytes(x, i, a)
		return
	}
	switch x.Op.(type) {
	case model.MaxPool, model.Flatten, model.Reshape:
		if v, ok := b.values[x.Inputs[0]]; ok {
			b.wireBytes(x, i, v.affine)
		}
	}
}

func (b *byteWriter) wireBytes(x *layerWriter, i int, a quantize.Affine) {
	x.wires[i] = b.throughBytes(x, i, x.wires[i], a).wire
}

// throughBytes writes the pair of nodes that rounds value i as bytes do.
func (b *byteWriter) throughBytes(x *layerWriter, i int, w wire, a quantize.Affine) byteValue {
	name := InputName
	if i != model.Input {
		name = b.graph.Layers[i].Name
	}
	scale := x.floats(name+"_scale", []float32{a.Scale})
	zero := x.initializer(name+"_zero", typeUint8, []byte{a.Zero}, nil)
	q := x.node("QuantizeLinear", name+"_quantized", []string{w.name, scale, zero})
	w.name = x.node("DequantizeLinear", name+"_dequantized", []string{q, scale, zero})
	b.values[i] = byteValue{w, a}
	return b.values[i]
}

// biasFits reports whether the bias of a layer, in units of the products of
// bytes, has room in 32 bits.
func biasFits(l *model.Layer, in quantize.Affine) bool {
	bias := l.Params[model.Bias]
	if bias == nil {
		return true
	}
	_, scale := quantize.Weights(l.Params[model.Weight].Data, len(bias.Data))
	for i, v := range bias.Data {
		if !(math.Abs(biasUnits(v, in.Scale, scale[i])) < 1<<30) {
			return false
		}
	}
	return true
}

func biasUnits(bias, in, weight float32) float64 {
	return math.RoundToEven(float64(bias) / (float64(in) * float64(weight)))
}

// byteParams writes a weight, whose last dimension is the outputs, as int8 with
// its dimensions in another order, one scale per output along axis, and the bias
// as int32.
func (x *layerWriter) byteParams(w *model.Tensor, perm []int, axis int) []string {
	out := w.Shape[len(w.Shape)-1]
	q, scale := quantize.Weights(w.Data, out)
	c := &constant{dims: w.Shape, floats: make([]float32, len(q))}
	for i, v := range q {
		c.floats[i] = float32(v)
	}
	c = c.transposed(perm)
	raw := make([]byte, len(c.floats))
	for i, v := range c.floats {
		raw[i] = byte(int8(v))
	}
	inputs := []string{x.dequantized("_weight", typeInt8, raw, c.dims, scale, axis, make([]byte, out))}
	b := x.Params[model.Bias]
	if b == nil {
		return inputs
	}
	raw, unit := nil, make([]float32, out)
	for i, v := range b.Data {
		unit[i] = float32(float64(x.quant.Scale) * float64(scale[i]))
		raw = binary.LittleEndian.AppendUint32(raw, uint32(int32(biasUnits(v, x.quant.Scale, scale[i]))))
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
