// Package local runs a whole search in one process over one results folder: the
// coordinator, a worker and a client, joined by the same claims, reports and
// files that a cluster uses.
//
// It is a room of its own so that `run`, `demo` and tests share it, and the
// command line stays wiring.
package local

import "errors"

// Sentinels of this package.
var (
	// ErrInUse: another process holds the results folder.
	ErrInUse = errors.New("results folder is in use")
	// ErrOtherJob: the results folder belongs to another job.
	ErrOtherJob = errors.New("results folder belongs to another job")
	// ErrNotResults: the folder is not empty and no results folder.
	ErrNotResults = errors.New("not a results folder")
	// ErrNoFront: the results folder has no front yet.
	ErrNoFront = errors.New("no front yet")
	// ErrJobFailed: the search ended without a result.
	ErrJobFailed = errors.New("job failed")
)
