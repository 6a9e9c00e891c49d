package onnx

import (
	"fmt"
	"math"
	"slices"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/onnx/onnxpb"
)

// layerWriter writes one layer.
type layerWriter struct {
	*exporter
	*model.Layer
	in    []wire
	shape model.Shape // of the output
	bytes *layerBytes // if the layer is computed on bytes
}

// one appends the layer's only, or last, node.
func (x *layerWriter) one(op string, inputs []string, attrs ...*onnxpb.AttributeProto) (wire, error) {
	return wire{name: x.node(op, x.Name, inputs, attrs...), shape: x.shape}, nil
}

// each is one for an operator that treats every element alike.
func (x *layerWriter) each(op string, inputs []string, attrs ...*onnxpb.AttributeProto) (wire, error) {
	w, err := x.one(op, inputs, attrs...)
	w.perm = x.in[0].perm
	return w, err
}

func (x *layerWriter) write() (wire, error) {
	in := x.in[0]
	data := []string{in.name}
	switch o := x.Op.(type) {
	case model.Conv:
		return x.conv(o)
	case model.Dense:
		return x.dense(o)
	case model.MaxPool:
		return x.one("MaxPool", data, windowAttrs(o.Kernel, o.Stride, o.Pad)...)
	case model.AvgPool:
		attrs := windowAttrs(o.Kernel, o.Stride, o.Pad)
		if o.CountPad {
			attrs = append(attrs, attrInt("count_include_pad", 1))
		}
		return x.one("AveragePool", data, attrs...)
	case model.GlobalAvgPool:
		mean := x.node("GlobalAveragePool", x.Name, data)
		return wire{name: x.node("Flatten", x.Name+"_flat", []string{mean}, attrInt("axis", 1)), shape: x.shape}, nil
	case model.BatchNorm:
		return x.batchNorm(o)
	case model.Activation:
		return x.activation(o)
	case model.Softmax:
		axis := -1
		if len(in.shape) == 3 {
			axis = 1
		}
		return x.each("Softmax", data, attrInt("axis", axis))
	case model.Add:
		return x.add()
	case model.Concat:
		return x.concat()
	case model.Flatten:
		return x.flatten()
	case model.Reshape:
		return x.reshape()
	case model.Pad:
		p := o.Pad
		return x.one("Pad", append(data, x.ints(x.Name+"_pads", 0, 0, p.Top, p.Left, 0, 0, p.Bottom, p.Right)))
	case model.Dropout:
		return x.each("Dropout", append(data, x.floats(x.Name+"_ratio", []float32{o.Rate})))
	}
	return wire{}, fmt.Errorf("%w: %s cannot be written", ErrUnsupported, x.Op.Kind())
}

func windowAttrs(kernel, stride [2]int, p model.Pad2D) []*onnxpb.AttributeProto {
	return []*onnxpb.AttributeProto{
		attrInts("kernel_shape", kernel[:]...),
		attrInts("strides", stride[:]...),
		attrInts("pads", p.Top, p.Left, p.Bottom, p.Right),
	}
}

func (x *layerWriter) conv(o model.Conv) (wire, error) {
	t := x.Params[model.Weight]
	inputs := []string{x.in[0].name}
	if x.bytes != nil {
		inputs = append(inputs, x.byteParams(t.Shape, x.bytes.q, []int{3, 2, 0, 1}, 0)...)
	} else {
		c := (&constant{dims: t.Shape, floats: t.Data}).transposed([]int{3, 2, 0, 1})
		inputs = append(inputs, x.floats(x.Name+"_weight", c.floats, c.dims...))
		inputs = append(inputs, x.bias()...)
	}
	attrs := append(windowAttrs(o.Kernel, o.Stride, o.Pad), attrInts("dilations", o.Dilation[:]...), attrInt("group", o.Groups))
	return x.one("Conv", inputs, attrs...)
}

// dense writes a Gemm whose rows follow the order of the input in the file.
func (x *layerWriter) dense(o model.Dense) (wire, error) {
	perm := x.in[0].perm
	inputs, dims := []string{x.in[0].name}, model.Shape{x.in[0].shape[0], o.Out}
	if x.bytes != nil {
		inputs = append(inputs, x.byteParams(dims, permutedRows(x.bytes.q, perm, o.Out), []int{0, 1}, 1)...)
	} else {
		inputs = append(inputs, x.floats(x.Name+"_weight", permutedRows(x.Params[model.Weight].Data, perm, o.Out), dims...))
		inputs = append(inputs, x.bias()...)
	}
	return x.one("Gemm", inputs)
}

// permutedRows puts rows of the given width into the order that perm lists; nil is the
// order they have.
func permutedRows[T any](w []T, perm []int32, width int) []T {
	if perm == nil {
		return w
	}
	rows := make([]T, 0, len(w))
	for _, j := range perm {
		rows = append(rows, w[int(j)*width:int(j+1)*width]...)
	}
	return rows
}

// bias writes the bias of a layer that has one.
func (x *layerWriter) bias() []string {
	b := x.Params[model.Bias]
	if b == nil {
		return nil
	}
	return []string{x.floats(x.Name+"_bias", b.Data, len(b.Data))}
}

// batchNorm writes a BatchNormalization, or for shapes where ONNX would look for
// the channels elsewhere the product and sum that it is.
func (x *layerWriter) batchNorm(o model.BatchNorm) (wire, error) {
	in := x.in[0]
	inFile := func(name string) []float32 {
		data := x.Params[name].Data
		if in.perm == nil {
			return data
		}
		out := make([]float32, len(data))
		for i, j := range in.perm {
			out[i] = data[j]
		}
		return out
	}
	c := in.shape[len(in.shape)-1]
	if len(in.shape) != 1 && len(in.shape) != 3 {
		scale, shift := scaleShift(x.Params, o.Epsilon)
		scaled := x.node("Mul", x.Name+"_scaled", []string{in.name, x.floats(x.Name+"_scale", scale, c)})
		return x.one("Add", []string{scaled, x.floats(x.Name+"_shift", shift, c)})
	}
	inputs := []string{in.name}
	for _, name := range []string{model.Scale, model.Shift, model.Mean, model.Variance} {
		inputs = append(inputs, x.floats(x.Name+"_"+name, inFile(name), c))
	}
	return x.each("BatchNormalization", inputs, attrFloat("epsilon", o.Epsilon), attrFloat("momentum", complement(o.Momentum)))
}

// scaleShift turns batch normalisation into scale·x + shift.
func scaleShift(params map[string]*model.Tensor, epsilon float32) (scale, shift []float32) {
	for i, v := range params[model.Variance].Data {
		s := float64(params[model.Scale].Data[i]) / math.Sqrt(float64(v)+float64(epsilon))
		scale = append(scale, float32(s))
		shift = append(shift, float32(float64(params[model.Shift].Data[i])-float64(float64(params[model.Mean].Data[i])*s)))
	}
	return scale, shift
}

func (x *layerWriter) activation(a model.Activation) (wire, error) {
	data := []string{x.in[0].name}
	switch a.Func {
	case model.ReLU:
		return x.each("Relu", data)
	case model.ReLU6:
		return x.each("Clip", append(data, x.floats(x.Name+"_min", []float32{0}), x.floats(x.Name+"_max", []float32{6})))
	case model.LeakyReLU:
		return x.each("LeakyRelu", data, attrFloat("alpha", a.Alpha))
	case model.Sigmoid:
		return x.each("Sigmoid", data)
	case model.Tanh:
		return x.each("Tanh", data)
	case model.HardSwish: // an operator of its own from opset 14 only
		gate := x.node("HardSigmoid", x.Name+"_gate", data, attrFloat("alpha", 1.0/6), attrFloat("beta", 0.5))
		return x.each("Mul", append(data, gate))
	}
	return wire{}, fmt.Errorf("%w: activation %q cannot be written", ErrUnsupported, a.Func)
}

func (x *layerWriter) add() (wire, error) {
	a, b := x.in[0], x.in[1]
	if !slices.Equal(a.perm, b.perm) {
		a, b = x.inOrder(a, x.Name+"_left"), x.inOrder(b, x.Name+"_right")
	}
	w, err := x.one("Add", []string{a.name, b.name})
	w.perm = a.perm
	return w, err
}

func (x *layerWriter) concat() (wire, error) {
	names, perm := []string{}, []int32{}
	permuted := slices.ContainsFunc(x.in, func(w wire) bool { return w.perm != nil })
	for _, w := range x.in {
		names = append(names, w.name)
		if !permuted {
			continue
		}
		at := int32(len(perm))
		for i := range w.shape[0] {
			j := int32(i)
			if w.perm != nil {
				j = w.perm[i]
			}
			perm = append(perm, at+j)
		}
	}
	axis := -1
	if len(x.shape) == 3 {
		axis = 1
	}
	w, err := x.one("Concat", names, attrInt("axis", axis))
	if permuted {
		w.perm = perm
	}
	return w, err
}

// flatten leaves an image in the file's order and remembers that.
func (x *layerWriter) flatten() (wire, error) {
	in := x.in[0]
	w, err := x.each("Flatten", []string{in.name}, attrInt("axis", 1))
	if s := in.shape; len(s) == 3 {
		w.perm = imagePerm(s[0], s[1], s[2])
	}
	return w, err
}

// reshape changes the order only where the file's and the graph's differ.
func (x *layerWriter) reshape() (wire, error) {
	in, to := x.in[0], x.shape
	have := in.perm
	if s := in.shape; len(s) == 3 {
		have = imagePerm(s[0], s[1], s[2])
	}
	var want []int32
	if len(to) == 3 {
		want = imagePerm(to[0], to[1], to[2])
	}
	if len(to) == 1 || slices.Equal(have, want) {
		w, err := x.one("Reshape", []string{in.name, x.target(dimsOf(to))})
		if len(to) == 1 {
			w.perm = have
		}
		return w, err
	}
	if len(in.shape) == 3 {
		in = wire{name: x.node("Transpose", x.Name+"_last", []string{in.name}, attrInts("perm", 0, 2, 3, 1)), shape: in.shape}
	}
	in = x.inOrder(in, x.Name+"_order")
	if len(to) != 3 {
		return x.one("Reshape", []string{in.name, x.target(to)})
	}
	last := x.node("Reshape", x.Name+"_last", []string{in.name, x.target(to)})
	return x.one("Transpose", []string{last}, attrInts("perm", 0, 3, 1, 2))
}

// target is a reshape's dimensions, the batch being what is left.
func (x *layerWriter) target(dims []int) string {
	return x.ints(x.Name+"_shape", append([]int{-1}, dims...)...)
}
