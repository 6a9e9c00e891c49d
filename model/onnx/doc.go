// Package onnx reads and writes networks as ONNX files.
//
// ONNX is channels first and has the batch as a dimension; package model is
// channels last without it. The translation happens here, once: weights are
// reordered, rows of a fully connected layer that reads a flattened image are
// permuted, and no transposition remains in the network.
package onnx

import "errors"

// Sentinels of this package. Each wrapped error names the node, the attribute or
// the field, its value and what would be right.
var (
	// ErrFormat: the bytes are not a valid ONNX file.
	ErrFormat = errors.New("invalid onnx file")
	// ErrUnsupported: the file is valid, but the network uses what package model
	// does not have.
	ErrUnsupported = errors.New("unsupported in onnx file")
	// ErrTooLarge: the file or its parameters exceed the limits.
	ErrTooLarge = errors.New("onnx file too large")
)
