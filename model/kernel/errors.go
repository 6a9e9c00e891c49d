package kernel

import (
	"errors"
	"fmt"
	"math"
)

// What can go wrong. Every error of this package wraps one of these.
var (
	// ErrShape: a size, stride, padding or number of groups is not valid, or a buffer it implies is too large.
	ErrShape = errors.New("invalid shape")
	// ErrLength: a slice is shorter than its shape needs.
	ErrLength = errors.New("slice too short")
	// ErrRange: a range [n0, n1) is negative or reversed.
	ErrRange = errors.New("invalid range")
	// ErrParam: a scalar parameter (a rate, a decay) is outside its domain.
	ErrParam = errors.New("invalid parameter")
	// ErrVariant: the kernel variant asked for is unknown, not built in, or not supported by this processor.
	ErrVariant = errors.New("kernel variant unavailable")
)

// maxElems bounds every buffer, so that byte offsets fit in an int32-sized index computation on every platform that has
// 64-bit pointers, and in an int on those with 32.
const maxElems = math.MaxInt32 / 4

// mul multiplies sizes; ok is false when one is negative or the product exceeds maxElems.
func mul(sizes ...int) (p int, ok bool) {
	p = 1
	for _, s := range sizes {
		if s < 0 {
			return 0, false
		}
		if s > 0 && p > maxElems/s {
			return 0, false
		}
		p *= s
	}
	return p, true
}

// checkLen returns an error unless s holds at least n elements.
func checkLen[T any](name string, s []T, n int) error {
	if len(s) < n {
		return fmt.Errorf("%s has length %d, want at least %d: %w", name, len(s), n, ErrLength)
	}
	return nil
}

// checkImages checks the range [n0, n1) and that s holds n1 images of size elements.
func checkImages[T any](name string, s []T, size, n0, n1 int) error {
	if n0 < 0 || n1 < n0 {
		return fmt.Errorf("images [%d, %d): want 0 <= n0 <= n1: %w", n0, n1, ErrRange)
	}
	if n1 == 0 || size == 0 {
		return nil
	}
	if n1 > len(s)/size {
		return fmt.Errorf("%s has length %d, want at least %d images of %d: %w", name, len(s), n1, size, ErrLength)
	}
	return nil
}

// firstErr returns the first error that is not nil.
func firstErr(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
