package kernel

// Batch normalisation is built from per-channel reductions and per-channel affine maps:
//
//	mean = ChannelSums(x)/n;  variance = ChannelSquares(x, mean)/n;  y = Affine(x, gamma/σ, beta - mean*gamma/σ)
//	backward: Σdy = ChannelSums(dy), Σdy·(x-mean) = ChannelDots(x, mean, dy), both by AffineGrad in one pass; dx = Combine(x, dy, …)
//
// Reductions sum blocks of rows in float32, at most blockRows of them into one sum, and the blocks in float64, so that they
// stay accurate over many pixels. The blocks are counted from the first row of a call: divide work between goroutines at
// fixed rows.
const blockRows = 128

// together is how many rows of c channels reductions take as one, so that narrow rows fill vectors and no sum waits for
// the one before.
func together(c int) int {
	k := 1
	for 2*k*c <= 64 {
		k *= 2
	}
	return k
}

// repeated copies per-channel vectors so often that they fit rows taken together, one after the other.
func (s *Scratch) repeated(c int, vs ...[]float32) []float32 {
	k := together(c)
	s.wide = grow(s.wide, len(vs)*k*c)
	for i := range len(vs) * k {
		copy(s.wide[i*c:(i+1)*c], vs[i/k])
	}
	return s.wide
}

// reduce calls f for blocks of rows, of c channels or of several rows taken together, to leave sums for outs in s.block,
// those for the second after w of the first. It adds them to outs.
func (s *Scratch) reduce(c, n0, n1 int, outs [2][]float64, f func(row, rows, c, w int)) {
	k := together(c)
	w := k * c
	s.block = grow(s.block, 2*w)
	for r := n0; r < n1; r += k * blockRows {
		n := min(k*blockRows, n1-r)
		clear(s.block)
		if n >= k {
			f(r, n/k, w, w)
		}
		if n%k > 0 {
			f(r+n-n%k, n%k, c, w)
		}
		for j, out := range outs {
			for i := j * w; i < j*w+w && out != nil; i += c {
				for ch, v := range s.block[i : i+c] {
					out[ch] += float64(v)
				}
			}
		}
	}
}

// ChannelSums adds the sums over rows [n0, n1) of x, c channels each, to out.
func ChannelSums(s *Scratch, x []float32, c, n0, n1 int, out []float64) error {
	im, err := current()
	_, errS := planeSize(1, c)
	if err := firstErr(err, errS, checkImages("x", x, c, n0, n1), checkLen("out", out, c)); err != nil {
		return err
	}
	s = s.orNew()
	s.reduce(c, n0, n1, [2][]float64{out}, func(r, n, wide, _ int) { im.colSum(addr(x, r*c), addr(s.block, 0), n, wide) })
	return nil
}

// ChannelSquares adds the sums of (x - mean)² over rows [n0, n1) to out.
func ChannelSquares(s *Scratch, x, mean []float32, c, n0, n1 int, out []float64) error {
	im, err := current()
	_, errS := planeSize(1, c)
	if err := firstErr(err, errS, checkImages("x", x, c, n0, n1), checkLen("mean", mean, c), checkLen("out", out, c)); err != nil {
		return err
	}
	s = s.orNew()
	mean = s.repeated(c, mean)
	s.reduce(c, n0, n1, [2][]float64{out}, func(r, n, wide, _ int) { im.colSqDev(addr(x, r*c), addr(mean, 0), addr(s.block, 0), n, wide) })
	return nil
}

// ChannelDots adds the sums of (x - mean)·dy over rows [n0, n1) to out.
func ChannelDots(s *Scratch, x, mean, dy []float32, c, n0, n1 int, out []float64) error {
	im, err := current()
	_, errS := planeSize(1, c)
	if err := firstErr(err, errS, checkImages("x", x, c, n0, n1), checkImages("dy", dy, c, n0, n1), checkLen("mean", mean, c),
		checkLen("out", out, c)); err != nil {
		return err
	}
	s = s.orNew()
	mean = s.repeated(c, mean)
	s.reduce(c, n0, n1, [2][]float64{out}, func(r, n, wide, _ int) {
		im.colDot(addr(x, r*c), addr(mean, 0), addr(dy, r*c), addr(s.block, 0), n, wide)
	})
	return nil
}

// Affine writes rows [n0, n1) of y = act(x*scale + shift), per channel; y may be x. With accumulate the old y is added
// before the activation.
func Affine(y, x, scale, shift []float32, c, n0, n1 int, act Activation, accumulate bool) error {
	im, err := current()
	flags, errA := act.flags()
	_, errS := planeSize(1, c)
	if err := firstErr(err, errA, errS, checkImages("x", x, c, n0, n1), checkImages("y", y, c, n0, n1), checkLen("scale", scale, c),
		checkLen("shift", shift, c)); err != nil || n0 == n1 {
		return err
	}
	if accumulate {
		flags |= flagAccumulate
	}
	im.affine(addr(y, n0*c), addr(x, n0*c), addr(scale, 0), addr(shift, 0), n1-n0, c, flags)
	return nil
}

// addBlock is how many elements AffineAdd computes at a time: few enough for the first-level cache.
const addBlock = 2048

// AffineAdd writes rows [n0, n1) of y = act(x*scale + shift + zAct(z*zScale + zShift)), per channel, or of
// y = act(x*scale + shift + z) where zScale and zShift are nil. y may be z, not x.
func AffineAdd(y, x, scale, shift, z, zScale, zShift []float32, c, n0, n1 int, act, zAct Activation) error {
	im, err := current()
	flags, errA := act.flags()
	zFlags, errZ := zAct.flags()
	_, errS := planeSize(1, c)
	if err := firstErr(err, errA, errZ, errS, checkImages("x", x, c, n0, n1), checkImages("y", y, c, n0, n1), checkImages("z", z, c, n0, n1),
		same(c, []string{"scale", "shift"}, scale, shift)); err != nil {
		return err
	}
	if zScale != nil || zShift != nil {
		if err := same(c, []string{"zScale", "zShift"}, zScale, zShift); err != nil {
			return err
		}
	}
	rows := max(1, addBlock/c)
	for r := n0; r < n1; r += rows {
		n := min(rows, n1-r)
		if zScale != nil {
			im.affine(addr(y, r*c), addr(z, r*c), addr(zScale, 0), addr(zShift, 0), n, c, zFlags)
		} else {
			copy(y[r*c:(r+n)*c], z[r*c:(r+n)*c])
		}
		im.affine(addr(y, r*c), addr(x, r*c), addr(scale, 0), addr(shift, 0), n, c, flags|flagAccumulate)
	}
	return nil
}

// AffineGrad turns dy, the gradient of rows [n0, n1) of Affine's y without accumulate, into that before the activation, in
// place, and adds its sums per channel to sum, and those of it times (x - mean) to dot: what the gradients of scale and shift
// and normalisation's sums are made of.
func AffineGrad(s *Scratch, dy, x, scale, shift, mean []float32, c, n0, n1 int, act Activation, sum, dot []float64) error {
	im, err := current()
	flags, errA := act.flags()
	_, errS := planeSize(1, c)
	if err := firstErr(err, errA, errS, checkImages("x", x, c, n0, n1), checkImages("dy", dy, c, n0, n1), checkLen("sum", sum, c), checkLen("dot", dot, c),
		same(c, []string{"scale", "shift", "mean"}, scale, shift, mean)); err != nil {
		return err
	}
	s = s.orNew()
	p := s.repeated(c, scale, shift, mean)
	s.reduce(c, n0, n1, [2][]float64{sum, dot}, func(r, n, wide, w int) {
		im.affineGrad(addr(dy, r*c), addr(x, r*c), addr(p, 0), addr(p, w), addr(p, 2*w), addr(s.block, 0), addr(s.block, w), n, wide, flags)
	})
	return nil
}

// Combine writes rows [n0, n1) of z = x*a + y*b + d, per channel; z may be x or y.
func Combine(z, x, y, a, b, d []float32, c, n0, n1 int) error {
	im, err := current()
	_, errS := planeSize(1, c)
	if err := firstErr(err, errS, checkImages("x", x, c, n0, n1), checkImages("y", y, c, n0, n1), checkImages("z", z, c, n0, n1),
		same(c, []string{"a", "b", "d"}, a, b, d)); err != nil || n0 == n1 {
		return err
	}
	im.affine2(addr(z, n0*c), addr(x, n0*c), addr(y, n0*c), addr(a, 0), addr(b, 0), addr(d, 0), n1-n0, c)
	return nil
}
