package kernel

import "time"

// PeakFLOPS measures how many float32 operations per second one thread reaches on multiplications and additions in
// registers alone, with the active variant: what convolutions can at best come near to (Winograd counts fewer
// operations than it stands for, and can exceed it). It runs for about the given time and takes the best of many short
// runs. Without a vector variant it returns 0.
func PeakFLOPS(d time.Duration) (float64, error) {
	im, err := current()
	if err != nil || im.peak == nil {
		return 0, err
	}
	const rounds = 20000
	best := time.Duration(1<<63 - 1)
	for start := time.Now(); ; {
		t := time.Now()
		im.peak(rounds)
		best = min(best, time.Since(t))
		if time.Since(start) >= d {
			break
		}
	}
	return float64(rounds) * 12 * 2 * float64(im.lanes) / max(best, 1).Seconds(), nil
}
