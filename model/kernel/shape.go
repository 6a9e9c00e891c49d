package kernel

import "fmt"

// ConvShape gives the sizes of a two-dimensional convolution (a cross-correlation, as in ONNX and PyTorch). Sizes and
// strides count elements. Zero strides, dilations and groups mean 1.
type ConvShape struct {
	H, W, IC int // input height, width, channels
	OC       int // output channels
	KH, KW   int // kernel

	StrideH, StrideW     int
	DilationH, DilationW int
	PadTop, PadLeft      int
	PadBottom, PadRight  int
	Groups               int // divides IC and OC; Groups == IC == OC is depthwise
}

// withDefaults replaces zero strides, dilations and groups by 1.
func (s ConvShape) withDefaults() ConvShape {
	for _, p := range []*int{&s.StrideH, &s.StrideW, &s.DilationH, &s.DilationW, &s.Groups} {
		if *p == 0 {
			*p = 1
		}
	}
	return s
}

// Validate returns an error wrapping ErrShape when the sizes make no convolution.
func (s ConvShape) Validate() error {
	s = s.withDefaults()
	for _, f := range []struct {
		name string
		v    int
	}{
		{"H", s.H}, {"W", s.W}, {"IC", s.IC}, {"OC", s.OC}, {"KH", s.KH}, {"KW", s.KW}, {"StrideH", s.StrideH},
		{"StrideW", s.StrideW}, {"DilationH", s.DilationH}, {"DilationW", s.DilationW}, {"Groups", s.Groups},
	} {
		if f.v < 1 || f.v > maxElems {
			return fmt.Errorf("conv %s is %d, want 1 to %d: %w", f.name, f.v, maxElems, ErrShape)
		}
	}
	if s.IC%s.Groups != 0 || s.OC%s.Groups != 0 {
		return fmt.Errorf("conv Groups is %d, want a divisor of IC %d and OC %d: %w", s.Groups, s.IC, s.OC, ErrShape)
	}
	if _, err := outSize("height", s.H, s.KH, s.StrideH, s.DilationH, s.PadTop, s.PadBottom); err != nil {
		return err
	}
	_, err := outSize("width", s.W, s.KW, s.StrideW, s.DilationW, s.PadLeft, s.PadRight)
	return err
}

// outSize returns the number of window positions along one axis.
func outSize(axis string, in, k, stride, dilation, pad0, pad1 int) (int, error) {
	if pad0 < 0 || pad1 < 0 || pad0 > maxElems || pad1 > maxElems {
		return 0, fmt.Errorf("%s padding is %d and %d, want 0 to %d: %w", axis, pad0, pad1, maxElems, ErrShape)
	}
	ext, ok := mul(k-1, dilation)
	if !ok {
		return 0, fmt.Errorf("%s kernel %d with dilation %d is too large: %w", axis, k, dilation, ErrShape)
	}
	room := int64(in) + int64(pad0) + int64(pad1) - int64(ext) - 1
	if room < 0 {
		return 0, fmt.Errorf("%s %d with padding %d+%d is smaller than the kernel's extent %d: %w", axis, in, pad0, pad1, ext+1, ErrShape)
	}
	n := room/int64(stride) + 1
	if n > maxElems {
		return 0, fmt.Errorf("%s of the output is %d, want at most %d: %w", axis, n, maxElems, ErrShape)
	}
	return int(n), nil
}

// span is a run of output positions [lo, hi) along one axis for which exactly the taps [k0, k1) fall inside the input.
type span struct{ lo, hi, k0, k1 int }

// spans splits the output positions of one axis into runs with the same valid taps. At most the positions near the two
// edges differ, so the work per call does not grow with padding; nothing is ever copied into a padded buffer.
func spans(out, in, k, stride, dilation, pad int) []span {
	var ss []span
	for o := range out {
		start := o*stride - pad
		var k0, k1 int
		if start < 0 {
			k0 = min(k, (-start+dilation-1)/dilation)
		}
		if last := in - 1 - start; last >= 0 {
			k1 = min(k, last/dilation+1)
		}
		if k0 >= k1 {
			k0, k1 = 0, 0
		}
		if n := len(ss); n > 0 && ss[n-1].k0 == k0 && ss[n-1].k1 == k1 {
			ss[n-1].hi++
		} else {
			ss = append(ss, span{o, o + 1, k0, k1})
		}
	}
	return ss
}

// backSpan is a run of n input positions along one axis, a stride apart from in on, that the same number of taps reach:
// tap, which connects the first with output out, and further ones a step apart.
type backSpan struct{ in, n, tap, taps, out int }

// backStep is from one of these taps to the next: so many taps on, so many outputs back.
type backStep struct{ tap, out int }

// backSpans are the spans of both axes for the gradient of the input.
type backSpans struct {
	rows, cols   []backSpan
	stepH, stepW backStep
	gaps         bool // there are positions that no tap reaches
	few          bool // so few positions share their taps that tiles would be nearly empty
}

func newBackSpans(c *Conv) *backSpans {
	s, b := &c.s, &backSpans{}
	var h, w int
	b.rows, b.stepH, h = spansBack(c.oh, s.H, s.KH, s.StrideH, s.DilationH, s.PadTop)
	b.cols, b.stepW, w = spansBack(c.ow, s.W, s.KW, s.StrideW, s.DilationW, s.PadLeft)
	b.gaps = h < s.H || w < s.W
	b.few = h*w < 4*len(b.rows)*len(b.cols)
	return b
}

// spansBack splits the input positions of one axis that taps reach, and counts them.
func spansBack(out, in, k, stride, dilation, pad int) (ss []backSpan, step backStep, reached int) {
	step.tap = stride / gcd(stride, dilation)
	step.out = step.tap * dilation / stride
	for phase := range min(stride, in) {
		first := len(ss)
		for i := phase; i < in; i += stride {
			s := backSpan{in: i, n: 1}
			for t := range k {
				if o := i + pad - t*dilation; o >= 0 && o%stride == 0 && o/stride < out {
					if s.taps == 0 {
						s.tap, s.out = t, o/stride
					}
					s.taps++
				}
			}
			if s.taps == 0 {
				continue
			}
			reached++
			if n := len(ss); n > first && ss[n-1].tap == s.tap && ss[n-1].taps == s.taps && ss[n-1].in+ss[n-1].n*stride == i {
				ss[n-1].n++
			} else {
				ss = append(ss, s)
			}
		}
	}
	return ss, step, reached
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// tapRange returns the output positions [lo, hi) for which tap t falls inside the input.
func tapRange(t, out, in, stride, dilation, pad int) (lo, hi int) {
	off := t*dilation - pad // input position of output 0
	if off < 0 {
		lo = (-off + stride - 1) / stride
	}
	if last := in - 1 - off; last >= 0 {
		hi = min(out, last/stride+1)
	}
	return min(lo, hi), hi
}
