package train

import "errors"

func isDiverged(err error) bool { return errors.Is(err, ErrDiverged) }

// What can go wrong. Every error of this package wraps one of these, or is the
// error of a context, a Source or a function that the caller gave.
var (
	// ErrOptions: an option, or the combination of two, is invalid.
	ErrOptions = errors.New("invalid training options")
	// ErrDiverged: the loss or a gradient became NaN or infinite.
	ErrDiverged = errors.New("training diverged")
	// ErrData: the source does not fit the graph: no examples, labels outside
	// the classes, wrong number of values.
	ErrData = errors.New("invalid training data")
	// ErrGraph: the graph cannot be trained as it is.
	ErrGraph = errors.New("graph cannot be trained")
	// ErrOperator: an operator failed or panicked; a defect of this program.
	ErrOperator = errors.New("operator failed")
)
