// Package model holds a neural network as a value: a Graph of typed operators
// with their parameters, its shapes, its validation and its cost.
//
// Everything is channels last. The shape of an activation is given for one
// example, without the batch: {H, W, C} for images, {N} for vectors. Weights of
// a convolution are [KH][KW][IC/Groups][OC], of a fully connected layer
// [IN][OUT]. File formats with another layout translate at their edge.
package model
