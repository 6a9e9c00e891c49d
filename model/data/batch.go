package data

import (
	"fmt"
	"math"
)

// maxTables is the largest number of channels for which the normalised value of
// every byte is tabulated.
const maxTables = 8

// normalise computes Mean, Std and the tables from Train. Sums over bytes are
// exact integers; sums over floats run in float64 in the order of Train, rounded
// after each operation, so that every platform gets the same bits.
func (s *Set) normalise() {
	c := s.Channels()
	s.Mean, s.Std = make([]float32, c), make([]float32, c)
	if s.Images != nil {
		s.byteMoments()
	} else {
		s.floatMoments()
	}
	s.tabulate()
}

// tabulate makes the tables from Mean and Std.
func (s *Set) tabulate() {
	c := s.Channels()
	s.table = nil
	if s.Images == nil || c > maxTables {
		return
	}
	s.table = make([][256]float32, c)
	for k := range s.table {
		for v := range s.table[k] {
			s.table[k][v] = normal(uint8(v), s.Mean[k], s.Std[k])
		}
	}
}

// normal is (x/255 − mean) / std, rounded once.
func normal(x uint8, mean, std float32) float32 {
	return float32((float64(x)/255 - float64(mean)) / float64(std))
}

func (s *Set) byteMoments() {
	c, n := s.Channels(), s.Shape.Elements()
	sum, squares := make([]uint64, c), make([]uint64, c)
	for _, i := range s.Train {
		x := s.Images[int(i)*n : int(i+1)*n]
		for p := 0; p < n; p += c {
			for k, v := range x[p : p+c] {
				sum[k] += uint64(v)
				squares[k] += uint64(v) * uint64(v)
			}
		}
	}
	count := float64(len(s.Train)) * float64(n/c)
	for k := range sum {
		mean := float64(sum[k]) / count
		variance := float64(squares[k])/count - float64(mean*mean)
		s.setMoments(k, mean/255, variance/(255*255))
	}
}

func (s *Set) floatMoments() {
	c, n := s.Channels(), s.Shape.Elements()
	mean, squares, count := make([]float64, c), make([]float64, c), make([]float64, c)
	for _, i := range s.Train { // Welford's method
		x := s.Features[int(i)*n : int(i+1)*n]
		for p, v := range x {
			k := p % c
			if v != v {
				continue
			}
			count[k]++
			d := float64(v) - mean[k]
			mean[k] += d / count[k]
			squares[k] += float64(d * (float64(v) - mean[k]))
		}
	}
	for k := range mean {
		s.setMoments(k, mean[k], squares[k]/max(count[k], 1))
	}
}

func (s *Set) setMoments(k int, mean, variance float64) {
	s.Mean[k] = float32(mean)
	s.Std[k] = float32(math.Sqrt(max(variance, 0)))
	if !(float64(s.Std[k]) > 1e-6*max(1, math.Abs(mean))) {
		s.Std[k] = 1
	}
}

// Batch writes the normalised samples and their labels into the caller's
// buffers: len(indices) × Shape values, channels last, and len(indices) labels.
// It allocates nothing. Missing features become 0, the mean. It panics if a
// buffer is too short or an index out of range, like a slice would.
func (s *Set) Batch(dst []float32, labels []int32, indices []int32) {
	n := s.Shape.Elements()
	if len(dst) < n*len(indices) || len(labels) < len(indices) {
		panic(fmt.Sprintf("data: batch of %d samples of %d values into buffers of %d values and %d labels", len(indices), n, len(dst), len(labels)))
	}
	for k, i := range indices {
		labels[k] = s.Labels[i]
		out := dst[k*n : (k+1)*n]
		if s.Images != nil {
			s.bytesInto(out, s.Images[int(i)*n:int(i+1)*n])
		} else {
			s.floatsInto(out, s.Features[int(i)*n:int(i+1)*n])
		}
	}
}

func (s *Set) bytesInto(dst []float32, src []uint8) {
	c := len(s.Mean)
	dst = dst[:len(src)]
	switch {
	case len(s.table) == 1:
		t := &s.table[0]
		for i, v := range src {
			dst[i] = t[v]
		}
	case len(s.table) == 3:
		r, g, b := &s.table[0], &s.table[1], &s.table[2]
		for len(src) >= 3 && len(dst) >= 3 {
			dst[0], dst[1], dst[2] = r[src[0]], g[src[1]], b[src[2]]
			src, dst = src[3:], dst[3:]
		}
	case s.table != nil:
		for i, v := range src {
			dst[i] = s.table[i%c][v]
		}
	default:
		for i, v := range src {
			dst[i] = normal(v, s.Mean[i%c], s.Std[i%c])
		}
	}
}

func (s *Set) floatsInto(dst, src []float32) {
	c := len(s.Mean)
	for p := 0; p < len(src); p += c {
		x, y := src[p:p+c], dst[p:p+c]
		for k, v := range x {
			y[k] = (v - s.Mean[k]) / s.Std[k]
			if v != v {
				y[k] = 0
			}
		}
	}
}
