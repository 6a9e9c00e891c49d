package task

import (
	"crypto/sha256"
	"encoding/binary"
)

// Purposes of random streams within one trial.
const (
	seedWeights = iota + 1 // initial weights
	seedTrain              // order of examples; plus the step of the schedule
	seedPrune              // strategies that draw
)

// deriveSeed gives the seed of one purpose from the job's seed and the trial's
// number alone; 0 is the baseline. It is never 0, which some rooms take for unset.
func deriveSeed(job uint64, trial int32, purpose, step int) uint64 {
	b := []byte("espalier seed 1")
	for _, v := range []uint64{job, uint64(trial), uint64(purpose), uint64(step)} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	sum := sha256.Sum256(b)
	return max(binary.LittleEndian.Uint64(sum[:]), 1)
}
