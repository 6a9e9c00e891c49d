package onnx

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/onnx/onnxpb"
)

// small appends an initializer of integers of a type.
func (f file) small(name string, typ int32, dims []int64, v ...int32) file {
	f.m.Graph.Initializer = append(f.m.Graph.Initializer, &onnxpb.TensorProto{Name: name, DataType: typ, Dims: dims, Int32Data: v})
	return f
}

// scale appends an initializer of floats.
func (f file) scale(name string, dims []int64, v ...float32) file {
	f.m.Graph.Initializer = append(f.m.Graph.Initializer, &onnxpb.TensorProto{Name: name, DataType: typeFloat, Dims: dims, FloatData: v})
	return f
}

// through takes a value through bytes: its zero point's type says which.
func (f file) through(from, to, scale, zero string) file {
	return f.node("QuantizeLinear", from+" "+scale+" "+zero, to+"_q").node("DequantizeLinear", to+"_q "+scale+" "+zero, to)
}

// int8Dense is a fully connected layer of two features on bytes: x → y, with scales
// "sx" and "sy" and zeros "zx" and "zy" to be added.
func int8Dense() file {
	return newFile(13, -1, 2).
		through("x", "xd", "sx", "zx").
		node("DequantizeLinear", "w sw zw", "wd", attrInt("axis", 1)).
		node("DequantizeLinear", "b sb", "bd", attrInt("axis", 0)).
		node("Gemm", "xd wd bd", "g").through("g", "y", "sy", "zy").
		small("w", typeInt8, []int64{2, 3}, 1, 2, 3, -4, 127, -127).scale("sw", []int64{3}, 0.5, 1, 2).small("zw", typeInt8, []int64{3}, 0, 0, 0).
		small("b", typeInt32, []int64{3}, 10, -20, 30).scale("sb", []int64{3}, 0.25, 0.5, 1)
}

func TestReadInt8FilesOfOthers(t *testing.T) {
	unsigned := func(f file) file {
		return f.scale("sx", nil, 0.5).small("zx", typeUint8, nil, 100).scale("sy", nil, 2).small("zy", typeUint8, nil, 7)
	}
	t.Run("bytes without a sign", func(t *testing.T) {
		g, err := Read(unsigned(int8Dense()).bytes(t), Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if g.Quant == nil || !slices.Equal(g.Quant.Weights["g"], []float32{0.5, 1, 2}) || g.Quant.Input != (model.Affine{Scale: 0.5, Zero: 100}) ||
			g.Quant.Layers["g"] != (model.Affine{Scale: 2, Zero: 7}) {
			t.Errorf("%+v", g.Quant)
		}
		if b := g.Layers[0].Params[model.Bias].Data; !slices.Equal(b, []float32{2.5, -10, 30}) {
			t.Errorf("bias %v", b)
		}
	})
	t.Run("bytes with a sign", func(t *testing.T) {
		f := int8Dense().scale("sx", nil, 0.5).small("zx", typeInt8, nil, -28).scale("sy", []int64{1}, 2).small("zy", typeInt8, []int64{1}, -121)
		g, err := Read(f.bytes(t), Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if g.Quant == nil || g.Quant.Input != (model.Affine{Scale: 0.5, Zero: 100}) || g.Quant.Layers["g"] != (model.Affine{Scale: 2, Zero: 7}) {
			t.Errorf("%+v: want the same numbers by bytes without a sign", g.Quant)
		}
	})
	t.Run("one scale of a transposed weight, floats in the file, no zero", func(t *testing.T) {
		f := newFile(10, -1, 2).through("x", "xd", "s", "").
			node("QuantizeLinear", "w sw zw", "wq").node("DequantizeLinear", "wq sw zw", "wd").
			node("Gemm", "xd wd", "g", attrInt("transB", 1)).node("Relu", "g", "r").through("r", "y", "s", "").
			scale("w", []int64{3, 2}, 0.5, 1, 1.6, -500, 0.3, 63.5).scale("sw", nil, 0.5).small("zw", typeInt8, nil, 0).scale("s", nil, 1)
		for _, n := range f.m.Graph.Node {
			if strings.HasSuffix(n.OpType, "Linear") && len(n.Input) == 2 {
				continue
			}
			n.Input = slices.DeleteFunc(n.Input, func(s string) bool { return s == "" })
		}
		g, err := Read(f.bytes(t), Limits{})
		if err != nil {
			t.Fatal(err)
		}
		// -500 is cut to -128 bytes, which is none of -127 to 127: float32 then.
		if g.Quant != nil {
			t.Errorf("%+v: want float32, as a weight is -128", g.Quant)
		}
		if w := g.Layers[0].Params[model.Weight].Data; !slices.Equal(w, []float32{0.5, 1.5, 0.5, 1, -64, 63.5}) {
			t.Errorf("weights %v", w)
		}
		f.m.Graph.Initializer[0].FloatData[3] = -63.5
		if g, err = Read(f.bytes(t), Limits{}); err != nil {
			t.Fatal(err)
		}
		if g.Quant == nil || !slices.Equal(g.Quant.Weights["g"], []float32{0.5, 0.5, 0.5}) {
			t.Errorf("%+v: want one scale for all channels", g.Quant)
		}
	})
	t.Run("weights with a zero", func(t *testing.T) {
		f := unsigned(int8Dense())
		f.m.Graph.Initializer[2].Int32Data[1] = 5
		g, err := Read(f.bytes(t), Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if w := g.Layers[0].Params[model.Weight].Data; g.Quant != nil || !slices.Equal(w, []float32{0.5, -3, 6, -2, 122, -254}) {
			t.Errorf("%+v, weights %v: want the numbers in float32", g.Quant, w)
		}
	})
	for name, test := range map[string]struct {
		f    file
		want error
		text string
	}{
		"bytes into an operator": {newFile(13, -1, 2).node("QuantizeLinear", "x s", "q").node("Relu", "q", "y").scale("s", nil, 1),
			ErrUnsupported, "want a DequantizeLinear"},
		"bytes as the output":     {newFile(13, -1, 2).node("Relu", "x", "r").node("QuantizeLinear", "r s", "y").scale("s", nil, 1), ErrUnsupported, "is bytes"},
		"floats as bytes":         {newFile(13, -1, 2).node("DequantizeLinear", "x s", "y").scale("s", nil, 1), ErrFormat, "not bytes"},
		"a constant of floats":    {newFile(13, -1, 2).node("DequantizeLinear", "w s", "y").scale("s", nil, 1).scale("w", nil, 1), ErrFormat, "want integers"},
		"two scales of a value":   {newFile(13, -1, 2).node("QuantizeLinear", "x s", "y").scale("s", []int64{2}, 1, 2), ErrUnsupported, "want one"},
		"scale of 0":              {newFile(13, -1, 2).node("QuantizeLinear", "x s", "y").scale("s", nil, 0), ErrUnsupported, "above 0"},
		"computed scale":          {newFile(13, -1, 2).node("QuantizeLinear", "x x", "y"), ErrUnsupported, "want a constant"},
		"zero of floats":          {newFile(13, -1, 2).node("QuantizeLinear", "x s s", "y").scale("s", nil, 1), ErrFormat, "integers"},
		"more zeros than scales":  {newFile(13, -1, 2).node("QuantizeLinear", "x s z", "y").scale("s", nil, 1).small("z", typeUint8, []int64{2}, 1, 2), ErrFormat, "as many"},
		"bytes of 32 bits":        {newFile(13, -1, 2).node("QuantizeLinear", "x s z", "y").scale("s", nil, 1).small("z", typeInt32, nil, 1), ErrUnsupported, "INT32"},
		"blocks":                  {newFile(21, -1, 2).node("QuantizeLinear", "x s", "y", attrInt("block_size", 2)).scale("s", nil, 1), ErrUnsupported, "block_size"},
		"scales of another axis":  {newFile(13, -1, 2).node("DequantizeLinear", "w s", "y", attrInt("axis", 3)).scale("s", []int64{2}, 1, 2).small("w", typeInt8, []int64{2}, 1, 2), ErrFormat, "axis 3"},
		"another scale to read":   {newFile(13, -1, 2).node("QuantizeLinear", "x s", "q").node("DequantizeLinear", "q r", "y").scale("s", nil, 1).scale("r", nil, 2), ErrUnsupported, "read with scale 2"},
		"the input in two ways":   {newFile(13, -1, 2).through("x", "a", "s", "z").through("x", "b", "r", "z").node("Add", "a b", "y").scale("s", nil, 1).scale("r", nil, 2).small("z", typeUint8, nil, 0), ErrUnsupported, "two ways"},
		"an output in two ways":   {newFile(13, -1, 2).node("Relu", "x", "l").through("l", "a", "s", "z").through("l", "b", "r", "z").node("Add", "a b", "y").scale("s", nil, 1).scale("r", nil, 2).small("z", typeUint8, nil, 0), ErrUnsupported, "two ways"},
		"an operator of integers": {newFile(13, -1, 2).node("QLinearMatMul", "x x x x x x x x", "y"), ErrUnsupported, "QLinearMatMul"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Read(test.f.bytes(t), Limits{})
			if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("%v: want %v, %q", err, test.want, test.text)
			}
		})
	}
}
