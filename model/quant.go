package model

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
)

// ErrQuant says that a range, a scale or a quantization is not usable.
var ErrQuant = errors.New("invalid quantization")

// Affine maps byte q to the number (q - Zero)·Scale.
type Affine struct {
	Scale float32 // 0 says nothing: the numbers are not bytes
	Zero  uint8
}

// Quantize is the byte nearest to x.
func (a Affine) Quantize(x float32) uint8 {
	return uint8(min(255, max(0, math.RoundToEven(float64(x)/float64(a.Scale))+float64(a.Zero))))
}

// Dequantize is the number that q stands for.
func (a Affine) Dequantize(q uint8) float32 { return float32(int(q)-int(a.Zero)) * a.Scale }

// maxBiasUnits bounds a bias in units of BiasUnit, so that sums have room in 32 bits.
const maxBiasUnits = 1 << 30

// BiasUnit is what a bias of an int8 layer is a multiple of: a product of a byte of
// the input and one of the weights.
func BiasUnit(input, weight float32) float32 { return input * weight }

// BiasUnits is a bias in such units; false where 32 bits have no room for it.
func BiasUnits(bias, unit float32) (int32, bool) {
	n := math.RoundToEven(float64(bias) / float64(unit))
	if !(math.Abs(n) < maxBiasUnits) {
		return 0, false
	}
	return int32(n), true
}

// Quant says which of a graph's numbers are bytes: such a graph is an int8 network.
// The parameters of the graph hold the numbers that the bytes stand for.
//
// A convolution or fully connected layer that Weights names is computed on bytes. Its
// input, and its output — that of a ReLU or ReLU6 where this alone reads it — must then
// be named too. What else is named is rounded to bytes where a layer on bytes reads it.
type Quant struct {
	Input   Affine
	Layers  map[string]Affine    // of outputs: uint8 with a zero point
	Weights map[string][]float32 // of weights: int8 from -127 to 127, the scale of each output channel
}

// Clone returns a deep copy; nil of nil.
func (q *Quant) Clone() *Quant {
	if q == nil {
		return nil
	}
	c := &Quant{Input: q.Input, Layers: maps.Clone(q.Layers), Weights: maps.Clone(q.Weights)}
	for name, s := range c.Weights {
		c.Weights[name] = slices.Clone(s)
	}
	return c
}

// Check refuses scales that are not finite, or below 0.
func (q *Quant) Check() error {
	if err := q.Input.check(); err != nil {
		return fmt.Errorf("input: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(q.Layers)) {
		if err := q.Layers[name].check(); err != nil {
			return fmt.Errorf("layer %q: %w", name, err)
		}
	}
	return nil
}

func (a Affine) check() error {
	if !(a.Scale >= 0 && a.Scale <= math.MaxFloat32) {
		return fmt.Errorf("%w: scale %v: want a finite number of 0 or more", ErrQuant, a.Scale)
	}
	return nil
}

// WantFloat refuses an int8 network.
func (g *Graph) WantFloat() error {
	if g.Quant != nil {
		return fmt.Errorf("%w: the network is int8: want its float32 original", ErrQuant)
	}
	return nil
}

// OutputBytes is how the output of layer i, or the graph's input, becomes bytes; false
// where it does not.
func (g *Graph) OutputBytes(i int) (Affine, bool) {
	if g.Quant == nil {
		return Affine{}, false
	}
	a := g.Quant.Input
	if i != Input {
		a = g.Quant.Layers[g.Layers[i].Name]
	}
	return a, a.Scale > 0
}

// WeightBytes gives the weight of layer i as bytes with their scales; false where the
// layer is not computed on bytes. The graph must be valid.
func (g *Graph) WeightBytes(i int) (q []int8, scale []float32, ok bool) {
	if g.Quant == nil || g.Quant.Weights[g.Layers[i].Name] == nil {
		return nil, nil, false
	}
	scale = g.Quant.Weights[g.Layers[i].Name]
	w := g.Layers[i].Params[Weight].Data
	q = make([]int8, len(w))
	for k, v := range w {
		q[k] = int8(math.RoundToEven(float64(v) / float64(scale[k%len(scale)])))
	}
	return q, scale, true
}

// ByteEnd is the layer whose output a layer on bytes computes: i, or the ReLU or ReLU6
// that alone reads it. Consumers are the graph's.
func (g *Graph) ByteEnd(i int, consumers [][]int) int {
	if c := consumers[i]; len(c) == 1 {
		if a, ok := g.Layers[c[0]].Op.(Activation); ok && (a.Func == ReLU || a.Func == ReLU6) {
			return c[0]
		}
	}
	return i
}

// checkQuant refuses a quantization that does not fit the graph, whose parameters are
// known to be right.
func (g *Graph) checkQuant() error {
	q := g.Quant
	if err := q.Check(); err != nil {
		return err
	}
	at := g.layerIndex()
	for _, name := range slices.Sorted(maps.Keys(q.Layers)) {
		if _, ok := at[name]; !ok {
			return fmt.Errorf("%w: outputs of layer %q: no such layer", ErrQuant, name)
		}
	}
	consumers := g.Consumers()
	for _, name := range slices.Sorted(maps.Keys(q.Weights)) {
		i, ok := at[name]
		if !ok {
			return fmt.Errorf("%w: weights of layer %q: no such layer", ErrQuant, name)
		}
		if err := g.checkByteLayer(i, consumers); err != nil {
			return fmt.Errorf("layer %q: %w", name, err)
		}
	}
	return nil
}

func (g *Graph) layerIndex() map[string]int {
	at := make(map[string]int, len(g.Layers))
	for i := range g.Layers {
		at[g.Layers[i].Name] = i
	}
	return at
}

func (g *Graph) checkByteLayer(i int, consumers [][]int) error {
	l := &g.Layers[i]
	w, scale := l.Params[Weight], g.Quant.Weights[l.Name]
	if w == nil || len(scale) != w.Shape[len(w.Shape)-1] {
		return fmt.Errorf("%w: %d scales of the weights of a %s: want one per output channel of a convolution or fully connected layer",
			ErrQuant, len(scale), l.Op.Kind())
	}
	for _, s := range scale {
		if !(s > 0 && s <= math.MaxFloat32) {
			return fmt.Errorf("%w: scale %v of weights: want a finite number above 0", ErrQuant, s)
		}
	}
	for k, v := range w.Data {
		s := scale[k%len(scale)]
		n := math.RoundToEven(float64(v) / float64(s))
		if !(math.Abs(n) <= 127) || float32(n)*s != v {
			return fmt.Errorf("%w: weight %v with scale %v: want a multiple of at most 127", ErrQuant, v, s)
		}
	}
	in, ok := g.OutputBytes(l.Inputs[0])
	if !ok {
		return fmt.Errorf("%w: the input of a layer on bytes has no scale", ErrQuant)
	}
	if _, ok := g.OutputBytes(g.ByteEnd(i, consumers)); !ok {
		return fmt.Errorf("%w: the output of a layer on bytes has no scale", ErrQuant)
	}
	if b := l.Params[Bias]; b != nil {
		for k, v := range b.Data {
			if _, ok := BiasUnits(v, BiasUnit(in.Scale, scale[k])); !ok {
				return fmt.Errorf("%w: bias %v has no room in 32 bits with scales %v and %v", ErrQuant, v, in.Scale, scale[k])
			}
		}
	}
	return nil
}

// SettleQuant drops from the quantization what no longer fits the graph, after layers
// were changed: those layers are float32 then.
func (g *Graph) SettleQuant() {
	q := g.Quant
	if q == nil {
		return
	}
	at := g.layerIndex()
	maps.DeleteFunc(q.Layers, func(name string, a Affine) bool {
		_, ok := at[name]
		return !ok || a.Scale == 0 || a.check() != nil
	})
	if q.Input.check() != nil {
		q.Input = Affine{}
	}
	consumers := g.Consumers()
	maps.DeleteFunc(q.Weights, func(name string, _ []float32) bool {
		i, ok := at[name]
		return !ok || g.checkByteLayer(i, consumers) != nil
	})
	if len(q.Weights) == 0 {
		g.Quant = nil
	}
}
