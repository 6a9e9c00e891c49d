// Package infer is the native runtime: it compiles a model.Graph to a Plan for
// one batch size and runs it with the operators of package kernel.
//
// Compiling folds batch normalisation and padding into the convolution or fully
// connected layer next to them, fuses biases, ReLUs and residual sums into what
// computes their input, drops what does nothing at run time, and gives every
// intermediate result its place in one piece of memory, shared between results
// that are never alive together. Running allocates nothing. A batch is worked
// through in chunks of a few examples that stay in the cache; examples are
// independent, so neither the batch size nor the number of threads changes the
// bits of a result.
package infer

import "errors"

// What can go wrong. Every error of this package wraps one of these, or one of
// package model, or is that of a context or a function that the caller gave.
var (
	// ErrOptions: an option is out of range.
	ErrOptions = errors.New("invalid runtime options")
	// ErrGraph: the graph has an operator that this runtime does not know.
	ErrGraph = errors.New("graph cannot be run")
	// ErrLength: an input or output has the wrong number of values.
	ErrLength = errors.New("wrong number of values")
	// ErrOutput: the output is not one that the question can be asked of.
	ErrOutput = errors.New("unsuitable output")
)
