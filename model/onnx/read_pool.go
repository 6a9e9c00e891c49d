package onnx

import (
	"fmt"
	"slices"

	"github.com/espalier-ml/espalier/model"
)

// pool reads what both kinds of pooling share. Rounding up becomes more padding
// at the end, which ONNX does not count either.
func (n *node) pool() (x value, kernel, stride [2]int, pad model.Pad2D, err error) {
	if err = n.arity(1, 1); err != nil {
		return
	}
	if x, err = n.image(0); err != nil {
		return
	}
	var dilation [2]int
	if kernel, stride, dilation, pad, err = n.window(x, nil); err != nil {
		return
	}
	if dilation != [2]int{1, 1} {
		err = fmt.Errorf("%w: attribute %q is %v: want 1", ErrUnsupported, "dilations", dilation)
		return
	}
	if n.int("ceil_mode", 0) != 0 {
		pad.Bottom = ceilPad(x.shape[0], kernel[0], stride[0], pad.Top, pad.Bottom)
		pad.Right = ceilPad(x.shape[1], kernel[1], stride[1], pad.Left, pad.Right)
	}
	return
}

// ceilPad is the padding after, enlarged so that rounding down gives what
// rounding up would: a last window counts if it starts before the padding.
func ceilPad(in, kernel, stride, before, after int) int {
	total := in + before + after
	if total < kernel {
		return after
	}
	out := (total-kernel+stride-1)/stride + 1
	if (out-1)*stride >= in+before {
		out--
	}
	return max(after, (out-1)*stride+kernel-in-before)
}

func readMaxPool(n *node) error {
	x, kernel, stride, pad, err := n.pool()
	if err != nil {
		return err
	}
	n.only("storage_order", 0)
	return n.imageLayer(model.MaxPool{Kernel: kernel, Stride: stride, Pad: pad}, x)
}

func readAveragePool(n *node) error {
	x, kernel, stride, pad, err := n.pool()
	if err != nil {
		return err
	}
	count := n.int("count_include_pad", 0) != 0
	if count && n.int("ceil_mode", 0) != 0 {
		return fmt.Errorf("%w: attributes %q and %q together", ErrUnsupported, "ceil_mode", "count_include_pad")
	}
	return n.imageLayer(model.AvgPool{Kernel: kernel, Stride: stride, Pad: pad, CountPad: count}, x)
}

// imageLayer adds a layer without parameters from image to image.
func (n *node) imageLayer(op model.Op, x value) error {
	y, err := n.im.emit(n, op, nil, x)
	if err == nil {
		y.image, y.dims = true, []int{y.shape[2], y.shape[0], y.shape[1]}
	}
	return n.is(y, err)
}

func readGlobalAverage(n *node) error {
	if err := n.arity(1, 1); err != nil {
		return err
	}
	return n.globalAverage(true)
}

// globalAverage keeps the averaged dimensions as {C, 1, 1}, or drops them.
func (n *node) globalAverage(keep bool) error {
	x, err := n.image(0)
	if err != nil {
		return err
	}
	y, err := n.im.emit(n, model.GlobalAvgPool{}, nil, x)
	if err == nil && keep {
		y.dims = []int{y.shape[0], 1, 1}
	}
	return n.is(y, err)
}

func readGlobalMax(n *node) error {
	if err := n.arity(1, 1); err != nil {
		return err
	}
	x, err := n.image(0)
	if err != nil {
		return err
	}
	return n.imageLayer(model.MaxPool{Kernel: [2]int{x.shape[0], x.shape[1]}, Stride: [2]int{1, 1}}, x)
}

// readReduceMean: over height and width it is a global average.
func readReduceMean(n *node) error {
	if err := n.arity(1, 2); err != nil {
		return err
	}
	axes := n.ints("axes", -1, nil)
	if n.in(1) != "" {
		var err error
		if axes, err = n.intInput(1); err != nil {
			return err
		}
	}
	for i, a := range axes {
		if a < 0 {
			axes[i] += 4
		}
	}
	slices.Sort(axes)
	if !slices.Equal(axes, []int{2, 3}) {
		return fmt.Errorf("%w: mean over axes %v: want 2 and 3 of an image", ErrUnsupported, axes)
	}
	n.only("noop_with_empty_axes", 0)
	return n.globalAverage(n.int("keepdims", 1) != 0)
}

// readPad: zeros around height and width.
func readPad(n *node) error {
	if err := n.arity(1, 4); err != nil {
		return err
	}
	x, err := n.image(0)
	if err != nil {
		return err
	}
	if mode := n.string("mode", "constant"); mode != "constant" {
		return fmt.Errorf("%w: attribute %q is %q: want constant", ErrUnsupported, "mode", mode)
	}
	var pads []int
	var fill float32
	if n.im.opset < 11 {
		pads, fill = n.ints("pads", 8, nil), n.float("value", 0)
	} else if pads, fill, err = n.padInputs(); err != nil {
		return err
	}
	if len(pads) != 8 || n.err != nil {
		return fmt.Errorf("%w: pads %v: want 8", ErrFormat, pads)
	}
	if fill != 0 || pads[0]|pads[1]|pads[4]|pads[5] != 0 || slices.Min(pads) < 0 {
		return fmt.Errorf("%w: pads %v with %v: want zeros around height and width", ErrUnsupported, pads, fill)
	}
	return n.imageLayer(model.Pad{Pad: model.Pad2D{Top: pads[2], Left: pads[3], Bottom: pads[6], Right: pads[7]}}, x)
}

// padInputs reads what became inputs with opset 11: pads, value and, with 18, axes.
func (n *node) padInputs() (pads []int, fill float32, err error) {
	if pads, err = n.intInput(1); err != nil {
		return nil, 0, err
	}
	c, err := n.floats(2)
	if err != nil {
		return nil, 0, err
	}
	if c != nil && len(c.floats) == 1 {
		fill = c.floats[0]
	}
	axes, err := n.intInput(3)
	if err != nil || axes == nil {
		return pads, fill, err
	}
	if len(pads) != 2*len(axes) {
		return nil, 0, fmt.Errorf("%w: pads %v for axes %v", ErrFormat, pads, axes)
	}
	all := make([]int, 8)
	for i, a := range axes {
		if a < 0 {
			a += 4
		}
		if a < 0 || a > 3 {
			return nil, 0, fmt.Errorf("%w: axes %v of 4 dimensions", ErrFormat, axes)
		}
		all[a], all[a+4] = pads[i], pads[i+len(axes)]
	}
	return all, fill, nil
}
