package files

import "sort"

// Checkpoint is a candidate for garbage collection.
type Checkpoint struct {
	Hash      string
	SizeBytes int64
	Trial     int32
	// Pinned: of the baseline, of a member of a front, or of the parent of an
	// unfinished task. Never dropped.
	Pinned bool
	// Distance from the front; the farthest goes first.
	Distance float64
}

// Drop chooses which checkpoints of a job go, so that those that are not pinned take
// no more than limit bytes: the farthest from the front first, among equally far ones
// the older trial. A file that several trials share is kept if any of them pins it, and
// counts once, with its least distance. The answer is in the order of dropping.
func Drop(checkpoints []Checkpoint, limit int64) []string {
	byHash := map[string]Checkpoint{}
	for _, c := range checkpoints {
		old, ok := byHash[c.Hash]
		if ok {
			c.Pinned = c.Pinned || old.Pinned
			if nearer(old, c) {
				c.Distance, c.Trial = old.Distance, old.Trial
			}
		}
		byHash[c.Hash] = c
	}
	var total int64
	loose := make([]Checkpoint, 0, len(byHash))
	for _, c := range byHash {
		if !c.Pinned {
			loose = append(loose, c)
			total += c.SizeBytes
		}
	}
	sort.Slice(loose, func(i, j int) bool { return nearer(loose[j], loose[i]) })
	var out []string
	for _, c := range loose {
		if total <= limit {
			break
		}
		out = append(out, c.Hash)
		total -= c.SizeBytes
	}
	return out
}

// nearer orders by distance, then younger trials, then hashes. NaN is far.
func nearer(a, b Checkpoint) bool {
	an, bn := a.Distance != a.Distance, b.Distance != b.Distance
	switch {
	case an != bn:
		return bn
	case !an && a.Distance != b.Distance:
		return a.Distance < b.Distance
	case a.Trial != b.Trial:
		return a.Trial > b.Trial
	}
	return a.Hash < b.Hash
}
