// Package kernel is the numerical engine below training and inference: convolution, matrix products, pooling,
// normalisation and optimizer steps on float32 slices, with one hand-tuned set of primitives per instruction set.
//
// Activations are channels last ([N][H][W][C]) and convolution weights are [KH][KW][IC/Groups][OC]. Shapes are checked
// once, when a Conv, Pool or Dense is made; every call checks the lengths of its slices and returns an error. No
// exported function panics on bad sizes.
//
// All variants (see Variant) compute the same sums in the same order; they differ in how multiplication and addition are
// rounded (fused or not) and, in reductions over rows, in nothing. For one variant the result does not depend on how a
// range of images is divided between goroutines, as long as the division rules in DESIGN.md are kept.
package kernel
