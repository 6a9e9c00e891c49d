// Package data holds labelled examples in memory, splits them reproducibly,
// reads them from the usual files and hands them out as normalised batches.
//
// A Set is filled by a reader (Open, ReadCanonical) or a generator (Shapes),
// split once, and read-only from then on: any number of loaders may share it.
package data

import "errors"

// Sentinels of this package. Each wrapped error names the file, the field, its
// value and what would be right.
var (
	// ErrFormat: a file is not what its name or its header says, or holds
	// values that cannot be.
	ErrFormat = errors.New("invalid data")
	// ErrTruncated: a file ends before what its header promises.
	ErrTruncated = errors.New("truncated data")
	// ErrTooLarge: a file asks for more than the limit in bytes, or holds more
	// than its header says.
	ErrTooLarge = errors.New("data too large")
	// ErrNoData: nothing readable was found, or a split would be empty.
	ErrNoData = errors.New("no data")
	// ErrOption: an option is out of range.
	ErrOption = errors.New("invalid data option")
)
