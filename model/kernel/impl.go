package kernel

import "unsafe"

// ptr points at a float32 inside a checked slice.
type ptr = unsafe.Pointer

// at returns the address off elements after p. A negative off goes back.
func at(p ptr, off int) ptr { return unsafe.Add(p, off*4) }

// addr returns the address of s[i]; s may be longer than i by nothing only when no element is touched.
func addr(s []float32, i int) ptr {
	if i >= len(s) {
		return nil
	}
	return unsafe.Pointer(&s[i])
}

// Flags of the epilogue, as the primitives see them.
const (
	flagAccumulate = 1 << iota // add the destination's old value before the activation
	flagReLU                   // max(0, v), NaN kept
	flagReLU6                  // min(6, max(0, v)), NaN kept
)

// tileArgs describes one micro-kernel call: for rows i (h0 of them from a0 and c0, h1 from a1 and c1) and columns j < n
//
//	s = 0
//	for k3 { for k2 { for k { s += a[i*as] * b[j]; a += ak; b += bk }; a += aj; b += bj }; a += aj3; b += bj3 }
//	c[i*cs+j] = act(s + bias[j] + old c)
//
// All strides are in bytes. The layout is known to the generator of the assembly.
type tileArgs struct {
	k, k2, k3 int
	a0, a1    ptr
	as, ak    int
	aj, aj3   int
	b         ptr
	bk        int
	bj, bj3   int
	c0, c1    ptr
	cs        int
	mask      uint64 // columns of a last vector that is not full: one bit each (AVX-512), or their number
	flags     uint64
	bias      ptr
}

// depthArgs describes a depthwise convolution of n output pixels in a line, c channels each:
//
//	y[i*ys+ch] = act(bias[ch] + old y + sum over kh, kw of x[i*xs + kh*xh + kw*xw + ch] * w[ch])
//
// where w advances by ww after every tap, and by wj after every row of taps. Strides in bytes. With kh zero there are no taps.
type depthArgs struct {
	n, c, kw, kh int
	x            ptr
	xs, xw, xh   int
	w            ptr
	ww, wj       int
	y            ptr
	ys           int
	flags        uint64
	bias         ptr
}

// planeArgs describes a depthwise convolution by 3 by 3 taps of stride 1 with a border of one pixel, of an image of lines
// lines of n > 1 pixels, c channels each. Line j of the result is
//
//	y[i*s+ch] = act(bias[ch] + old y + sum over t, k in 0..2 of x[(i+t-1)*s + (k-1)*l + ch] * w[t*ws + k*wl + ch])
//
// at j*l from x and y, over the pixels that there are. Strides in bytes.
type planeArgs struct {
	n, lines, c int
	x, y        ptr
	s, l        int // from one pixel of a line to the next, from one line to the next
	w           ptr
	ws, wl      int // from one tap along the line to the next, and across lines
	flags       uint64
	bias        ptr
}

// poolArgs describes pooling of n output pixels in a line, with the geometry of depthArgs. dy lies like y, dx like x.
type poolArgs struct {
	n, c, kw, kh int
	x            ptr
	xs, xw, xh   int
	y            ptr
	ys           int
	dy, dx       ptr
	flags        uint64 // flagAccumulate: add to dx; flagReLU: nothing passes where y <= 0
	scale        float32
}

// rowsArgs describes an operation on an m by n grid of pixels with c channels; strides in bytes.
type rowsArgs struct {
	m, n, c int
	x       ptr
	xm, xn  int
	y       ptr
	ym, yn  int
	z       ptr // c channels
}

// sparseArgs describes a sparse convolution of a tile of pixels, all blocks of bs output channels one after the other:
//
//	s[b] = bias[b]; for each of count[block] entries { s[b] += w[b] * x[offs]; w += bs; offs++ }; out[b*outStride] = act(s[b])
//
// where x and out are vectors of pixels, offs holds byte offsets from x, and out, bias and count advance after a block.
type sparseArgs struct {
	blocks    int
	x         ptr
	count     *int32
	offs      *int32
	w         ptr
	out       ptr
	outStride int // bytes from one output channel to the next
	bias      ptr
	flags     uint64
}

// tiler is a micro-kernel and the tiles it can do.
type tiler struct {
	mr   int // most rows of a tile
	half int // most rows of one of its two halves

	// width returns how many of n columns one call should cover, for tiles of at most m rows.
	width func(m, n int) int
	// tile computes h0+h1 rows and n columns, n as width returned it.
	tile func(a *tileArgs, h0, h1, n int)
}

// impl is one variant's primitives. Sizes of zero never reach them.
type impl struct {
	variant Variant
	tiler
	quant quantImpl

	depth      func(a *depthArgs)
	depthPlane func(a *planeArgs) // for channels that fill vectors of lanes; may be nil
	depthGrad  func(a *rowsArgs)  // z[ch] += sum over grid of x*y
	depthBack  func(a *rowsArgs)  // x[px][ch] += y[px][ch] * z[ch]

	maxPool     func(a *poolArgs)
	maxPoolGrad func(a *poolArgs)
	avgPool     func(a *poolArgs)
	avgPoolGrad func(a *poolArgs)

	add      func(dst, a, b ptr, n int, flags uint64)
	axpy     func(alpha float32, x, y ptr, n int)
	scale    func(alpha float32, x ptr, n int)
	relu     func(dst, x ptr, n int, flags uint64)
	reluGrad func(dst, y, dy ptr, n int, flags uint64)
	dropout  func(dst, src ptr, n int, h *[4]uint32)

	// Reductions over rows of c channels; out accumulates in float32, rows in order.
	colSum   func(x, out ptr, rows, c int)
	colSqDev func(x, mean, out ptr, rows, c int)             // out += (x-mean)^2
	colDot   func(x, mean, dy, out ptr, rows, c int)         // out += (x-mean)*dy
	affine   func(y, x, s, t ptr, rows, c int, flags uint64) // y = act(x*s + t (+ old y))
	affine2  func(z, x, y, a, b, d ptr, rows, c int)         // z = a*x + b*y + d

	// dy = dy where act(x*s + t) is not flat, else 0; sum += dy, dot += (x-mean)*dy
	affineGrad func(dy, x, s, t, mean, sum, dot ptr, rows, c int, flags uint64)

	sgd  func(w, v, g ptr, n int, h *[6]float32)
	adam func(w, m, v, g ptr, n int, h *[11]float32)

	lanes int // elements of a vector

	sparsePixels int    // of a vector of sparse
	sparseMost   [2]int // most vectors for blocks of 1 and of 4
	sparse       func(a *sparseArgs, block, vectors int)
	gather       func(w ptr, idx *int32, x ptr, n, block int, out *[4]float32) // out[b] = Σ w[i*block+b]*x[idx[i]] for blocks of 1 or 4

	wino winoImpl

	// peak runs n rounds of 12 independent multiplications and additions of vectors of lanes elements; may be nil.
	peak func(n int)

	// transpose writes dst[j*ldd+i] = src[i*lds+j] for i < m, j < n; leading dimensions in elements.
	transpose func(dst, src ptr, m, n, ldd, lds int)
}
