package data

import "math/bits"

// random is the splitmix64 generator (Steele, Lea, Flood 2014). It is written
// out here because splits, epochs and generated samples must stay the same for a
// seed on every platform and with every version of the standard library.
type random struct{ state uint64 }

// newRandom derives a generator from a seed and what it is for.
func newRandom(seed uint64, stream ...uint64) random {
	r := random{seed}
	for _, v := range stream {
		r.state = r.next() ^ (v * 0xd1342543de82ef95)
	}
	r.next()
	return r
}

func (r *random) next() uint64 {
	r.state += 0x9e3779b97f4a7c15
	z := r.state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// intn is uniform over [0, n) up to a bias of n/2^64, which nobody can measure.
func (r *random) intn(n int) int {
	hi, _ := bits.Mul64(r.next(), uint64(n))
	return int(hi)
}

// float is uniform over [0, 1), with 53 bits.
func (r *random) float() float64 { return float64(r.next()>>11) * (1.0 / (1 << 53)) }

// between is uniform over [lo, hi).
func (r *random) between(lo, hi float64) float64 { return lo + float64((hi-lo)*r.float()) }

// shuffle permutes v (Fisher-Yates).
func (r *random) shuffle(v []int32) {
	for i := len(v) - 1; i > 0; i-- {
		j := r.intn(i + 1)
		v[i], v[j] = v[j], v[i]
	}
}
