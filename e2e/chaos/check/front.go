package check

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// point is a measured trial as fronts compare it; lower is better.
type point struct {
	trial      int32
	err        float64
	bytes, p50 int64
}

func (p point) keepsOff(q point) bool {
	if p.err > q.err || p.bytes > q.bytes || p.p50 > q.p50 {
		return false
	}
	return p.err < q.err || p.bytes < q.bytes || p.p50 < q.p50
}

// Fronts compares each front with brute force over all results.
func Fronts(s *State) (bad []string) {
	for _, js := range s.Jobs {
		j := js.GetJob()
		for _, device := range j.GetDevices() {
			var points []point
			for _, t := range s.Trials[j.GetId()] {
				if m := t.GetMeasurements()[device]; m != nil && t.GetResult() != nil {
					points = append(points, point{t.GetNumber(), 1 - t.GetResult().GetAccuracy(), m.GetSizeBytes(), m.GetP50Ns()})
				}
			}
			var want, got []int32
			for _, p := range points {
				if !slices.ContainsFunc(points, func(q point) bool { return q.keepsOff(p) }) {
					want = append(want, p.trial)
				}
			}
			for _, m := range s.Fronts[j.GetId()][device].GetMembers() {
				got = append(got, m.GetTrial())
			}
			slices.Sort(want)
			slices.Sort(got)
			if !slices.Equal(got, want) {
				bad = append(bad, fmt.Sprintf("job %s on %s: the front is %v, brute force over %d measurements gives %v", j.GetId(), device, got, len(points), want))
			}
		}
	}
	return bad
}

// Read is a linearizable read of a front: the most accurate member, or that there was none.
type Read struct {
	Job, Device string
	Begun       time.Time
	Replica     string
	// None: there was no member yet.
	None     bool
	Trial    int32
	Accuracy float64
}

// Fresh holds that a linearizable read sees every measurement that was acknowledged before the read began, and nothing that
// is not recorded.
func Fresh(s *State, reads []Read, acks []Ack) (bad []string) {
	type key struct{ job, device string }
	measured := map[key][]Ack{}
	for _, a := range acks {
		job, number, device := taskID(a.Task)
		if a.Outcome == Measurement && !a.Stale && number > 0 {
			measured[key{job, device}] = append(measured[key{job, device}], a)
		}
	}
	for _, r := range reads {
		if !r.None {
			t := s.Trial(r.Job, r.Trial)
			if t.GetMeasurements()[r.Device] == nil || t.GetResult().GetAccuracy() != r.Accuracy {
				bad = append(bad, fmt.Sprintf("%s read trial %d of job %s with accuracy %v, which is not what is recorded", r.Replica, r.Trial, r.Job, r.Accuracy))
			}
		}
		for _, a := range measured[key{r.Job, r.Device}] {
			_, number, _ := taskID(a.Task)
			accuracy := s.Trial(r.Job, number).GetResult().GetAccuracy()
			if a.At.Before(r.Begun) && (r.None || accuracy > r.Accuracy) {
				bad = append(bad, fmt.Sprintf("stale read through %s of job %s at %s: %s was acknowledged at %s", r.Replica, r.Job,
					r.Begun.Format(time.StampMilli), a.Task, a.At.Format(time.StampMilli)))
				break
			}
		}
	}
	return bad
}

// Digests compares the records of replicas where they have applied the same entries. It returns at how many indices at
// least two could be compared.
func Digests(seen map[string]map[uint64]string) (compared int, bad []string) {
	first := map[uint64]string{}
	of := map[uint64]string{}
	counted := map[uint64]bool{}
	for _, replica := range slices.Sorted(maps.Keys(seen)) {
		for index, digest := range seen[replica] {
			other, known := first[index]
			if !known {
				first[index], of[index] = digest, replica
				continue
			}
			if !counted[index] {
				counted[index] = true
				compared++
			}
			if other != digest {
				bad = append(bad, fmt.Sprintf("replicas %s and %s differ after entry %d", of[index], replica, index))
			}
		}
	}
	return compared, bad
}
