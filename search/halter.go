package search

// Progress is what one trial has reached at a rung.
type Progress struct {
	// Number is the trial's.
	Number int `json:"trial"`
	// Objectives so far, lower is better, the error first.
	Objectives []float64 `json:"objectives"`
}

// Halter ends trials early that do not promise enough. It is of the stopping kind: a trial runs until it is told to halt
// at a rung, and is never taken up again.
//
// Both methods are pure, like Sampler.Suggest.
type Halter interface {
	// Rungs returns the numbers of epochs, ascending and below the given total, after which a trial of that many
	// epochs asks whether to go on.
	Rungs(epochs int) []int
	// Halt reports whether the trial that reached now should end, given what others reached at the same rung
	// before, in the order in which they did.
	Halt(earlier []Progress, now Progress) bool
}
