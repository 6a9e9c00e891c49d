// Package task runs tasks: each kind is a short list of stages over the rooms of
// model. It knows nothing of leases, heartbeats and reports.
package task

import (
	"errors"

	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/worker/cache"
)

// ErrPermanent says that a task would fail again anywhere.
var ErrPermanent = errors.New("permanent failure")

// Control is what a task sees of the worker that runs it.
type Control interface {
	// Progress says where the task stands.
	Progress(*espalierv1.Progress)
	// Halted is closed when the task shall end early and return what there is.
	Halted() <-chan struct{}
}

// Outcome is what a task made: one of the results, and the files that it names,
// which are in use until Release.
type Outcome struct {
	Baseline    *espalierv1.Baseline
	Trial       *espalierv1.TrialResult
	Measurement *espalierv1.Measurement
	Files       []*cache.File
}

// Release ends the use of the files.
func (o *Outcome) Release() {
	for _, f := range o.Files {
		f.Release()
	}
}
