// Package train trains a model.Graph on Gorgonia, with the operators of
// package kernel as Gorgonia operators.
//
// The graph is cut into blocks: a convolution or fully connected layer with
// what follows it (normalisation, activation, pooling), or a whole region
// between two points where only one tensor is alive, such as a residual block.
// A block is one Gorgonia operator that owns its output; its gradient is a
// second one that also writes the gradients of the block's parameters. Inside,
// a block works through the batch in chunks of a few examples, so that what one
// layer writes is still in the cache when the next reads it.
//
// Everything that depends on chance comes from Options.Seed. The weights after
// training are the same bits for the same seed, data and kernel variant,
// whatever the number of threads: the batch is always divided into the same
// lanes, every output has one writer, and what the lanes sum is added in the
// order of the lanes.
package train
