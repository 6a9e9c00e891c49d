package store

import (
	"encoding/binary"
	"fmt"
	"math"
	"sort"

	v1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// point is what dominance compares: lower is better in each.
type point struct {
	trial int32
	err   float64
	bytes int64
	p50   int64
}

func pointOf(trial *v1.Trial, m *v1.Measurement) point {
	return point{trial: trial.Number, err: 1 - trial.Result.GetAccuracy(), bytes: m.SizeBytes, p50: m.P50Ns}
}

// beats tells whether p keeps q off the front: p is nowhere worse and somewhere
// better. Equal points are both members.
func (p point) beats(q point) bool {
	if p.err > q.err || p.bytes > q.bytes || p.p50 > q.p50 {
		return false
	}
	return p.err < q.err || p.bytes < q.bytes || p.p50 < q.p50
}

const pointBytes = 4 + 8 + 8 + 8

func decodeFront(b []byte) []point {
	if len(b)%pointBytes != 0 {
		panic(fault{fmt.Errorf("%w: front of %d bytes", ErrCorrupt, len(b))})
	}
	out := make([]point, 0, len(b)/pointBytes+1)
	for ; len(b) > 0; b = b[pointBytes:] {
		out = append(out, point{
			trial: int32(binary.BigEndian.Uint32(b)),
			err:   math.Float64frombits(binary.BigEndian.Uint64(b[4:])),
			bytes: int64(binary.BigEndian.Uint64(b[12:])),
			p50:   int64(binary.BigEndian.Uint64(b[20:])),
		})
	}
	return out
}

func encodeFront(points []point) []byte {
	b := make([]byte, 0, len(points)*pointBytes)
	for _, p := range points {
		b = binary.BigEndian.AppendUint32(b, uint32(p.trial))
		b = binary.BigEndian.AppendUint64(b, math.Float64bits(p.err))
		b = binary.BigEndian.AppendUint64(b, uint64(p.bytes))
		b = binary.BigEndian.AppendUint64(b, uint64(p.p50))
	}
	return b
}

func (t *txn) front(job, device string) []point {
	return decodeFront(t.bucket(bucketFronts).Get(frontKey(job, device)))
}

// joinFront adds a measured trial to its device's front, unless a member beats it,
// and removes the members that it beats. By comparisons only, so that all replicas
// and all orders of arrival agree.
func (a *applier) joinFront(job, device string, p point) {
	members := a.front(job, device)
	kept := members[:0]
	for _, q := range members {
		if q.beats(p) {
			return
		}
		if !p.beats(q) {
			kept = append(kept, q)
		}
	}
	at := sort.Search(len(kept), func(i int) bool { return kept[i].trial > p.trial })
	kept = append(kept, point{})
	copy(kept[at+1:], kept[at:])
	kept[at] = p
	a.putBytes(bucketFronts, frontKey(job, device), encodeFront(kept))
}
