package data

import (
	"math"
	"testing"

	"github.com/espalier-ml/espalier/model"
)

func TestBatchNormalisesOverTrain(t *testing.T) {
	for _, c := range []int{1, 2, 3, 9} {
		s := mustSplit(t, toy(t, 200, c, 4), SplitOptions{})
		n := s.Shape.Elements()
		x, labels := make([]float32, n*len(s.Train)), make([]int32, len(s.Train))
		s.Batch(x, labels, s.Train)
		for k := range c {
			var sum, squares float64
			for p := k; p < len(x); p += c {
				sum += float64(x[p])
				squares += float64(x[p]) * float64(x[p])
			}
			count := float64(len(x) / c)
			if mean, v := sum/count, squares/count; math.Abs(mean) > 1e-5 || math.Abs(v-1) > 1e-5 {
				t.Errorf("channel %d of %d: mean %g, variance %g: want 0 and 1", k, c, mean, v)
			}
		}
		for j, i := range s.Train {
			if labels[j] != s.Labels[i] {
				t.Fatalf("label of sample %d is %d: want %d", i, labels[j], s.Labels[i])
			}
			for p, v := range s.Images[int(i)*n : int(i+1)*n] {
				want := float32((float64(v)/255 - float64(s.Mean[p%c])) / float64(s.Std[p%c]))
				if x[j*n+p] != want {
					t.Fatalf("sample %d value %d is %v: want %v", i, p, x[j*n+p], want)
				}
			}
		}
	}
}

func TestBatchOfFeatures(t *testing.T) {
	nan := float32(math.NaN())
	s := &Set{Shape: model.Shape{3}, Classes: numbered(2)}
	for i := range 40 {
		v := nan
		if i%4 != 0 {
			v = float32(i)
		}
		s.Features = append(s.Features, float32(i), 5, v) // the second is constant, the third has gaps
		s.Labels = append(s.Labels, int32(i%2))
	}
	s.TestFrom = len(s.Labels)
	mustSplit(t, s, SplitOptions{})
	x, labels := make([]float32, 3*40), make([]int32, 40)
	s.Batch(x, labels, sequence(0, 40))
	for i := range 40 {
		if want := (float32(i) - s.Mean[0]) / s.Std[0]; x[3*i] != want {
			t.Fatalf("sample %d: %v: want %v", i, x[3*i], want)
		}
		if x[3*i+1] != 0 {
			t.Fatalf("a constant feature became %v: want 0", x[3*i+1])
		}
		if i%4 == 0 && x[3*i+2] != 0 {
			t.Fatalf("a missing feature became %v: want 0", x[3*i+2])
		}
	}
}

func TestBatchAllocatesNothing(t *testing.T) {
	s := mustSplit(t, toy(t, 100, 3, 4), SplitOptions{})
	x, labels := make([]float32, 8*s.Shape.Elements()), make([]int32, 8)
	if n := testing.AllocsPerRun(10, func() { s.Batch(x, labels, s.Train[:8]) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkBatch(b *testing.B) {
	for name, c := range map[string]int{"grey": 1, "rgb": 3} {
		s := &Set{Shape: model.Shape{32, 32, c}, Classes: numbered(2), Images: make([]byte, 1000*1024*c), Labels: make([]int32, 1000), TestFrom: 1000}
		for i := range s.Labels {
			s.Labels[i] = int32(i % 2)
		}
		mustSplit(b, s, SplitOptions{})
		x, labels := make([]float32, 64*1024*c), make([]int32, 64)
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(64 * 1024 * c))
			for b.Loop() {
				s.Batch(x, labels, s.Train[:64])
			}
		})
	}
}
