package leader

import (
	"fmt"
	"time"

	"github.com/espalier-ml/espalier/coordinator/clock"
	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/search"
	"github.com/espalier-ml/espalier/search/pareto"
)

// stallGain is how much more hypervolume, as a fraction, counts as progress.
const stallGain = 0.001

// elapsed returns how long the job has searched, pauses left out.
func elapsed(job *v1.Job, now time.Time) time.Duration {
	if job.GetStartedMs() == 0 {
		return 0
	}
	end := clock.Milli(now)
	if at := job.GetPausedAtMs(); at > 0 {
		end = at
	}
	return time.Duration(max(end-job.GetStartedMs()-job.GetPausedMs(), 0)) * time.Millisecond
}

// stopReason returns which stop rule holds for the job, or "". stalls answers whether so many trials brought nothing.
func stopReason(job *v1.Job, now time.Time, stalls func(n int) bool) string {
	stop := job.GetSpec().GetStop()
	if n := stop.GetTrials(); n > 0 && job.GetCompleted()+job.GetFailed() >= n {
		return fmt.Sprintf("trials: %d of %d done", job.GetCompleted()+job.GetFailed(), n)
	}
	if limit := time.Duration(stop.GetTimeMs()) * time.Millisecond; limit > 0 && elapsed(job, now) >= limit {
		return fmt.Sprintf("time: %v have passed", limit)
	}
	if n := int(stop.GetStall()); n > 0 && stalls(n) {
		return fmt.Sprintf("stall: less than 0.1 %% more hypervolume in %d trials", n)
	}
	return ""
}

// stalled reports whether the last n trials added less than stallGain to the hypervolume.
func stalled(history []search.Trial, reference []float64, n int) bool {
	if len(history) <= n {
		return false
	}
	before := hypervolume(history[:len(history)-n], reference)
	return before > 0 && hypervolume(history, reference) < before*(1+stallGain)
}

func hypervolume(history []search.Trial, reference []float64) float64 {
	points := make([][]float64, 0, len(history))
	for i := range history {
		if history[i].Usable() {
			points = append(points, history[i].Objectives)
		}
	}
	return pareto.Hypervolume(points, reference)
}
