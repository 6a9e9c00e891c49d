package kernel

import (
	"fmt"
	"math"
)

// same checks that all slices have the length of the first.
func same(n int, names []string, ss ...[]float32) error {
	for i, s := range ss {
		if err := checkLen(names[i], s, n); err != nil {
			return err
		}
	}
	return nil
}

// Add writes act(a + b) to dst for every element of dst. The slices may be the same.
func Add(dst, a, b []float32, act Activation) error {
	im, err := current()
	flags, errA := act.flags()
	if err := firstErr(err, errA, same(len(dst), []string{"a", "b"}, a, b)); err != nil || len(dst) == 0 {
		return err
	}
	im.add(addr(dst, 0), addr(a, 0), addr(b, 0), len(dst), flags)
	return nil
}

// AddScaled adds alpha*x to y for every element of y.
func AddScaled(y []float32, alpha float32, x []float32) error {
	im, err := current()
	if err := firstErr(err, checkLen("x", x, len(y))); err != nil || len(y) == 0 {
		return err
	}
	im.axpy(alpha, addr(x, 0), addr(y, 0), len(y))
	return nil
}

// Scale multiplies x by alpha.
func Scale(x []float32, alpha float32) error {
	im, err := current()
	if err != nil || len(x) == 0 {
		return err
	}
	im.scale(alpha, addr(x, 0), len(x))
	return nil
}

// Activate writes act(x) to dst for every element of dst; dst may be x.
func Activate(dst, x []float32, act Activation) error {
	im, err := current()
	flags, errA := act.flags()
	if err := firstErr(err, errA, checkLen("x", x, len(dst))); err != nil || len(dst) == 0 {
		return err
	}
	im.relu(addr(dst, 0), addr(x, 0), len(dst), flags)
	return nil
}

// ActivateGrad writes to dst the gradient before the activation, from its output y and the gradient dy after it: dy
// where 0 < y (and y < 6 for ReLU6), else 0. dst may be dy.
func ActivateGrad(dst, y, dy []float32, act Activation) error {
	im, err := current()
	flags, errA := act.flags()
	if err := firstErr(err, errA, same(len(dst), []string{"y", "dy"}, y, dy)); err != nil || len(dst) == 0 {
		return err
	}
	if flags == 0 {
		copy(dst, dy)
		return nil
	}
	im.reluGrad(addr(dst, 0), addr(y, 0), addr(dy, 0), len(dst), flags)
	return nil
}

// Dropout writes to dst the elements of src, each zero with probability rate and else scaled by 1/(1-rate). Which ones
// depends on key and the element's index alone: the same call gives the gradient. Every variant gives the same bits. dst may
// be src.
func Dropout(s *Scratch, dst, src []float32, key uint64, rate float64) error {
	im, err := current()
	if err == nil && !(rate >= 0 && rate < 1) {
		err = fmt.Errorf("dropout rate is %g, want 0 or more and below 1: %w", rate, ErrParam)
	}
	if err := firstErr(err, checkLen("src", src, len(dst))); err != nil || len(dst) == 0 {
		return err
	}
	s = s.orNew()
	key = (key ^ key>>30) * 0xbf58476d1ce4e5b9 // the finalizer of SplitMix64 (Steele, Lea and Flood, 2014): every bit counts
	key = (key ^ key>>27) * 0x94d049bb133111eb
	key ^= key >> 31
	// Of 2³¹ hashes those up to the limit drop; -1 drops none.
	s.drop = [4]uint32{uint32(key), uint32(key >> 32), uint32(int32(min(rate*(1<<31)+0.5, 1<<31-1)) - 1), math.Float32bits(float32(1 / (1 - rate)))}
	im.dropout(addr(dst, 0), addr(src, 0), len(dst), &s.drop)
	return nil
}

// ColumnSums adds the sum over rows [n0, n1) of x, each c long, to out: the gradient of a bias, with c channels and
// pixels as rows. Rows are added one by one to what out holds, so consecutive calls continue one sum.
func ColumnSums(x, out []float32, c, n0, n1 int) error {
	im, err := current()
	_, errS := planeSize(1, c)
	if err := firstErr(err, errS, checkImages("x", x, c, n0, n1), checkLen("out", out, c)); err != nil || n0 == n1 {
		return err
	}
	im.colSum(addr(x, n0*c), addr(out, 0), n1-n0, c)
	return nil
}
