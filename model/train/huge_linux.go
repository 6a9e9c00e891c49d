package train

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// hugeFloats allocates n elements. Many of them start at a huge page, and the
// system is asked for such pages: with small ones the addresses of a network's
// activations do not fit the processor's tables. It is a request only; without
// it everything works, more slowly.
func hugeFloats(n int) []float32 {
	if n < hugePage {
		return make([]float32, n)
	}
	b := make([]float32, n+hugePage)
	off := (-uintptr(unsafe.Pointer(&b[0])) / 4) % hugePage
	b = b[off : int(off)+n : int(off)+n]
	whole := unsafe.Slice((*byte)(unsafe.Pointer(&b[0])), n*4/(4*hugePage)*(4*hugePage))
	_ = unix.Madvise(whole, unix.MADV_HUGEPAGE)
	return b
}
