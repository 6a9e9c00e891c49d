package zoo

import "github.com/espalier-ml/espalier/model"

func mlp(hidden ...int) func(*builder, int) {
	return func(b *builder, classes int) {
		b.flatten()
		for _, n := range hidden {
			b.dense(n)
			b.relu()
		}
		b.dense(classes)
	}
}

// lenet5 pads its first convolution where the input is smaller than the 32×32 of
// the original, as is usual for 28×28.
func lenet5(b *builder, classes int) {
	pad := 0
	if s := b.g.Input; len(s) == 3 && (s[0] < 32 || s[1] < 32) {
		pad = 2
	}
	b.validConv(6, 5, pad)
	b.relu()
	b.maxPool()
	b.validConv(16, 5, 0)
	b.relu()
	b.maxPool()
	b.flatten()
	b.dense(120)
	b.relu()
	b.dense(84)
	b.relu()
	b.dense(classes)
}

func seedCNN(b *builder, classes int) {
	for i, c := range []int{32, 64, 64} {
		b.validConv(c, 3, 0)
		b.relu()
		if i < 2 {
			b.maxPool()
		}
	}
	b.flatten()
	b.dense(64)
	b.relu()
	b.dense(classes)
}

// resnet8 is MLPerf Tiny's resnet_v1_eembc: convolutions with bias, a projection
// without normalisation in the second and third stack, pooling over the whole image.
func resnet8(b *builder, classes int) {
	b.conv(16, 3, 3, 1)
	x := b.normRelu()
	for i, c := range []int{16, 32, 64} {
		stride := min(i+1, 2)
		b.conv(c, 3, 3, stride)
		b.normRelu()
		b.conv(c, 3, 3, 1)
		y := b.norm()
		if i > 0 && b.err == nil {
			x = b.add("shortcut", model.Conv{Out: c, Kernel: [2]int{1, 1}, Stride: [2]int{stride, stride}, Dilation: [2]int{1, 1}, Groups: 1, Bias: true}, x)
		}
		b.add("add", model.Add{}, y, x)
		x = b.relu()
	}
	b.add("pool", model.GlobalAvgPool{})
	b.dense(classes)
}

// dsCNN is MLPerf Tiny's ds_cnn: 10×4 convolution of stride 2, four separable
// blocks, dropout before and after them.
func dsCNN(b *builder, classes int) {
	b.conv(64, 10, 4, 2)
	b.normRelu()
	b.add("drop", model.Dropout{Rate: 0.2})
	for range 4 {
		b.separable(64, 1)
	}
	b.add("drop", model.Dropout{Rate: 0.4})
	b.add("pool", model.GlobalAvgPool{})
	b.dense(classes)
}

// mobilenet025 is MLPerf Tiny's mobilenet_v1 of width 0.25: 13 separable blocks.
func mobilenet025(b *builder, classes int) {
	b.conv(8, 3, 3, 2)
	b.normRelu()
	for _, l := range []struct{ out, stride int }{
		{16, 1}, {32, 2}, {32, 1}, {64, 2}, {64, 1}, {128, 2},
		{128, 1}, {128, 1}, {128, 1}, {128, 1}, {128, 1}, {256, 2}, {256, 1},
	} {
		b.separable(l.out, l.stride)
	}
	b.add("pool", model.GlobalAvgPool{})
	b.dense(classes)
}

// separable is a depthwise and a pointwise convolution, each normalised, with ReLU.
func (b *builder) separable(out, stride int) {
	b.depthwise(stride)
	b.normRelu()
	b.conv(out, 1, 1, 1)
	b.normRelu()
}

func autoencoderFC(b *builder, _ int) {
	b.flatten()
	for _, n := range []int{128, 128, 128, 128, 8, 128, 128, 128, 128} {
		b.dense(n)
		b.normRelu()
	}
	b.dense(b.g.Input.Elements())
}
