//go:build !linux

package train

// hugeFloats allocates n elements.
func hugeFloats(n int) []float32 { return make([]float32, n) }
