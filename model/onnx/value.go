package onnx

import (
	"slices"

	"github.com/espalier-ml/espalier/model"
)

// value is a computed tensor: where the graph has it, and how ONNX sees it.
type value struct {
	layer int         // that computes it, or model.Input
	shape model.Shape // of that layer's output
	dims  []int       // in ONNX, without the batch
	image bool        // dims are {C, H, W} and shape is {H, W, C}
	perm  []int32     // of a vector: where ONNX's element i is in the layer's output; nil: at i

	// hardSigmoid marks clip(x/6 + 1/2), which only exists as a factor of x.
	hardSigmoid bool
	// bytes marks the output of a QuantizeLinear, which only a DequantizeLinear reads.
	bytes *model.Affine
}

// imagePerm maps the order {C, H, W} to {H, W, C}; nil if they are the same.
func imagePerm(h, w, c int) []int32 {
	if c == 1 || h*w == 1 {
		return nil
	}
	perm := make([]int32, 0, h*w*c)
	for k := range c {
		for p := range h * w {
			perm = append(perm, int32(p*c+k))
		}
	}
	return perm
}

// order is where ONNX's element i, counted over all dimensions, is in the layer's
// output; nil means at i.
func (v value) order() []int32 {
	if v.image {
		return imagePerm(v.shape[0], v.shape[1], v.shape[2])
	}
	return v.perm
}

// isVector reports whether the value is one row of features in ONNX too.
func (v value) isVector() bool { return len(v.dims) == 1 && len(v.shape) == 1 }

// channelAxis is the index into dims of the last dimension of shape; -1 if no
// single dimension of ONNX is that.
func (v value) channelAxis() int {
	switch {
	case v.image:
		return 0
	case slices.Equal(v.dims, v.shape):
		return len(v.dims) - 1
	case len(v.shape) == 1 && len(v.dims) == 3 && v.dims[1] == 1 && v.dims[2] == 1: // pooled
		return 0
	}
	return -1
}

// sameOrder copies how v is seen, for the output of a layer that keeps its shape.
func (v value) sameOrder(layer int) value {
	v.layer = layer
	return v
}
