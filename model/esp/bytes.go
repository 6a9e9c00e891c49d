package esp

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/espalier-ml/espalier/model"
)

// int8Tensor is a weight as bytes, with the scale of each output channel.
type int8Tensor struct {
	q     []int8
	scale []float32
}

// int8Weights gives the int8 weights of an int8 network by layer.
func int8Weights(g *model.Graph) map[string]int8Tensor {
	out := map[string]int8Tensor{}
	for i := range g.Layers {
		if q, scale, ok := g.WeightBytes(i); ok {
			out[g.Layers[i].Name] = int8Tensor{q, scale}
		}
	}
	return out
}

// appendAffines writes how the input, and the output of every layer, are bytes.
func appendAffines(b []byte, g *model.Graph) []byte {
	for i := model.Input; i < len(g.Layers); i++ {
		a, ok := g.OutputBytes(i)
		if !ok {
			b = append(b, 0)
			continue
		}
		b = append(b, 1)
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(a.Scale))
		b = append(b, a.Zero)
	}
	return b
}

// affines reads what appendAffines wrote.
func (d *decoder) affines(g *model.Graph) error {
	g.Quant = &model.Quant{Layers: map[string]model.Affine{}, Weights: map[string][]float32{}}
	for i := model.Input; i < len(g.Layers); i++ {
		named := d.byte()
		if named == 0 && !d.cut {
			continue
		}
		raw := d.take(5)
		if d.cut || named != 1 {
			return fmt.Errorf("%w: how the output of layer %d is bytes: want 0, or 1 with a scale and a zero", ErrCorrupt, i)
		}
		a := model.Affine{Scale: math.Float32frombits(binary.LittleEndian.Uint32(raw)), Zero: raw[4]}
		if !(a.Scale > 0) {
			return fmt.Errorf("%w: scale %v of the output of layer %d: want more than 0", ErrCorrupt, a.Scale, i)
		}
		if i == model.Input {
			g.Quant.Input = a
		} else {
			g.Quant.Layers[g.Layers[i].Name] = a
		}
	}
	return nil
}

// int8Tensor reads n weights of bytes with out scales, which come before their encoding.
func (d *decoder) int8Tensor(n, out int) (data, scale []float32, err error) {
	raw := d.take(4 * int64(out))
	encoding := d.byte()
	if d.cut {
		return nil, nil, fmt.Errorf("%w: ends within the scales", ErrCorrupt)
	}
	scale = make([]float32, out)
	for i := range scale {
		scale[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
	}
	q, err := values(d, encoding, n, 1, func(b []byte) int8 { return int8(b[0]) })
	if err != nil {
		return nil, nil, err
	}
	data = make([]float32, n)
	for i, v := range q {
		data[i] = float32(v) * scale[i%out]
	}
	return data, scale, nil
}
