//go:build race

package kernel

// raceDetector says that tests run under the race detector, which makes reference computations an order slower.
const raceDetector = true
