// Package trainer trains checkpoints. The interface leaves open where: Native
// trains in this process, on model/train; a trainer in a process of its own fits
// behind the same interface.
package trainer

import (
	"context"
	"errors"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/data"
	"github.com/espalier-ml/espalier/model/prune"
)

// Errors of this package.
var (
	// ErrSpec says that a Spec cannot be trained; trying again will not help.
	ErrSpec = errors.New("training specification")
	// ErrDiverged says that the loss became NaN or infinite. Training is the same
	// every time, so trying again will not help.
	ErrDiverged = errors.New("training diverged")
)

// Spec is what to train and how. Equal specs give equal weights on the same
// kernel variant, whatever Threads is.
type Spec struct {
	// Checkpoint is where training starts; it is not changed.
	Checkpoint *model.Graph
	// Masks are held at zero; nil for none.
	Masks *prune.Masks
	// Data is split; Train of it is trained on.
	Data *data.Set
	// Batch is the number of examples of a step, at least 1.
	Batch int
	// Epochs is the length; a fraction ends within an epoch. At least one step is
	// made.
	Epochs float64
	// Optimizer is "sgd", "adam" or "adamw"; empty means "adam".
	Optimizer string
	// Rate is the learning rate at the start, or after warm-up.
	Rate float64
	// Schedule is how the rate changes: "constant"; "step", to a tenth at the half
	// and again at three quarters; "cosine", along half of one, or "polynomial",
	// evenly, both to a hundredth. Empty means "cosine".
	Schedule string
	// WarmUp is the part of the training in which the rate rises from 0.
	WarmUp float64
	// Hold keeps the rate whatever Schedule and WarmUp say, for a training that
	// goes on after this one.
	Hold bool
	// WeightDecay is the optimizer's; 0 for none.
	WeightDecay float64
	// Momentum is that of "sgd".
	Momentum float64
	// L1 is added to the gradient of weights, with their sign.
	L1 float64
	// Clip is the largest norm of the gradient; 0 for no limit.
	Clip float64
	// LabelSmoothing is in [0, 1).
	LabelSmoothing float64
	// Augment changes the images of Data.
	Augment data.Augment
	// Seed fixes the order of the examples, and dropout.
	Seed uint64
	// Threads is how many may compute; it does not change the result.
	Threads int
}

// Watch is how a training is followed and interrupted. All fields may be nil.
type Watch struct {
	// Progress is told of every step. It must not block.
	Progress func(Progress)
	// Gate is called before every step and may block to make room for a
	// measurement; its error ends the training.
	Gate func(context.Context) error
	// Halted is closed when the training shall end at its next step, as if it were
	// done.
	Halted <-chan struct{}
}

// Progress is where a training stands.
type Progress struct {
	Step, Steps int     // done, in all
	Loss        float64 // mean of the epoch so far
}

// Result is a finished training.
type Result struct {
	// Checkpoint is what became of Spec.Checkpoint; it belongs to the caller.
	Checkpoint *model.Graph
	Steps      int
	Loss       float64 // mean of the last epoch
	// Halted is set when Watch.Halted ended it.
	Halted bool
}

// Trainer trains. It is safe for concurrent use.
type Trainer interface {
	// Train runs a training to its end. Errors wrap ErrSpec, ErrDiverged, or the
	// error of ctx or of Watch.Gate.
	Train(ctx context.Context, spec Spec, w Watch) (Result, error)
	// Variant names what computes, so that equal variants give equal bits.
	Variant() string
}
