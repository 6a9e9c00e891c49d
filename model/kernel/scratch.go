package kernel

// Scratch holds what one goroutine needs while it runs operations: argument blocks, transposed weights, packed rows.
// The zero value is ready; buffers grow to what the largest operation needs and are then reused, so that a steady state
// allocates nothing. A Scratch must not be used by two goroutines at a time. Where a method takes a *Scratch, nil means
// a fresh one for this call.
type Scratch struct {
	tile      tileArgs
	depth     depthArgs
	plane     planeArgs
	rows      rowsArgs
	pool      poolArgs
	spars     sparseArgs
	quant     quantArgs
	wino      winoArgs
	quantWino quantWinoArgs
	params    quantParams
	drop      [4]uint32
	quad      [4]float32
	sgd       [6]float32
	adam      [11]float32
	wt        []float32 // transposed weights
	pack      []float32 // zeros, a bias spread over blocks, depthwise weights
	spread    []float32 // rows of a matrix, spread over the cache
	panel     []float32 // columns of a matrix, packed
	block     []float32 // per-channel block sums
	wide      []float32 // per-channel vectors for several rows at once
	planes    []float32 // activations as channel planes
	outs      []float32 // results as channel planes
	image     []float32 // one image of results, to be added
	winoA     []float32 // transformed inputs
	winoB     []float32 // transformed outputs or their gradients
	winoU     []float32 // transformed weights or their gradients
	zeros     []float32 // rows outside an image; never written
	bytes     []uint8   // padded quantized input
	words     []int16   // the same, widened; transformed bytes
	sums      []int32   // transformed sums of bytes
	edge      []float32 // pixels past the last full block of a transposition
}

// orNew returns s, or a new Scratch when s is nil.
func (s *Scratch) orNew() *Scratch {
	if s == nil {
		return new(Scratch)
	}
	return s
}

// grow returns a slice of n elements, reusing b where it is large enough.
func grow[T any](b []T, n int) []T {
	if cap(b) < n {
		return make([]T, n)
	}
	return b[:n]
}
