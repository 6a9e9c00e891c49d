package train

import (
	"iter"

	"github.com/espalier-ml/espalier/model/data"
)

// Source hands out training batches; *data.Loader is one. Batches may differ in
// size (the last one of an epoch usually does): the first of a size costs a few
// milliseconds and the memory of its activations, later ones nothing.
type Source interface {
	// Steps is the number of batches in an epoch.
	Steps() int
	// Epoch iterates over the batches of an epoch. A batch is read until the
	// next one is asked for.
	Epoch(epoch int) iter.Seq[*data.Batch]
}

var _ Source = (*data.Loader)(nil)
