package pareto

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestDominates(t *testing.T) {
	inf := math.Inf(1)
	for _, c := range []struct {
		a, b []float64
		want bool
	}{
		{[]float64{1, 2}, []float64{2, 3}, true},
		{[]float64{1, 2}, []float64{1, 3}, true},
		{[]float64{1, 2}, []float64{1, 2}, false},
		{[]float64{1, 3}, []float64{2, 2}, false},
		{[]float64{2, 3}, []float64{1, 2}, false},
		{[]float64{1, inf}, []float64{2, inf}, true},
		{[]float64{inf, inf}, []float64{inf, inf}, false},
		{[]float64{1, 1, 1}, []float64{1, 1, 2}, true},
	} {
		if got := Dominates(c.a, c.b); got != c.want {
			t.Errorf("%v dominates %v: %v", c.a, c.b, got)
		}
	}
}

// cloud returns n random points. On a coarse grid many are equal or share coordinates.
func cloud(rng *rand.Rand, n, objectives, grid int) [][]float64 {
	points := make([][]float64, n)
	for i := range points {
		points[i] = make([]float64, objectives)
		for j := range points[i] {
			if points[i][j] = rng.Float64(); grid > 0 {
				points[i][j] = float64(rng.IntN(grid))
			}
		}
	}
	return points
}

// peel ranks by definition.
func peel(points [][]float64) []int {
	ranks := make([]int, len(points))
	for i := range ranks {
		ranks[i] = -1
	}
	for rank, left := 0, len(points); left > 0; rank++ {
		var found []int
		for i, p := range points {
			if ranks[i] < 0 && !slices.ContainsFunc(points, func(q []float64) bool { return Dominates(q, p) }) {
				found = append(found, i)
			}
		}
		points = slices.Clone(points)
		for _, i := range found {
			ranks[i] = rank
			left--
			points[i] = slices.Repeat([]float64{math.Inf(1)}, len(points[i]))
		}
	}
	return ranks
}

func TestRanksAgainstDefinition(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for objectives := 1; objectives <= 5; objectives++ {
		for _, grid := range []int{0, 3, 6} {
			for range 40 {
				points := cloud(rng, rng.IntN(60), objectives, grid)
				got, want := Ranks(points), peel(points)
				if !slices.Equal(got, want) {
					t.Fatalf("%d objectives: ranks of %v are %v, want %v", objectives, points, got, want)
				}
				var first []int
				for i, r := range want {
					if r == 0 {
						first = append(first, i)
					}
				}
				for _, count := range []int{0, 1, 10, 100} {
					ranked, limited := 0, slices.Clone(want)
					for rank := range len(points) {
						for i, r := range want {
							switch {
							case r != rank:
							case ranked < count:
								limited[i] = rank
							default:
								limited[i] = -1
							}
						}
						ranked = 0
						for _, r := range want {
							if r <= rank {
								ranked++
							}
						}
					}
					if got := BestRanks(points, count); !slices.Equal(got, limited) {
						t.Fatalf("best %d ranks of %v are %v, want %v", count, points, got, limited)
					}
				}
				if got := NonDominated(points); !slices.Equal(got, first) {
					t.Fatalf("non-dominated of %v are %v, want %v", points, got, first)
				}
			}
		}
	}
}

func TestCrowding(t *testing.T) {
	inf := math.Inf(1)
	for _, c := range []struct {
		name   string
		points [][]float64
		want   []float64
	}{
		{"none", nil, []float64{}},
		{"one", [][]float64{{1, 2}}, []float64{0, 0}[:1]},
		{"line", [][]float64{{0, 4}, {1, 3}, {3, 1}, {4, 0}}, []float64{inf, 3.0/4 + 3.0/4, 3.0/4 + 3.0/4, inf}},
		{"any order", [][]float64{{3, 1}, {0, 4}, {4, 0}, {1, 3}}, []float64{1.5, inf, inf, 1.5}},
		{"equal ends", [][]float64{{0, 1}, {0, 1}, {1, 0}, {1, 0}}, []float64{inf, 1, inf, 1}},
		{"a constant objective", [][]float64{{0, 5}, {1, 5}, {4, 5}}, []float64{inf, 1, inf}},
	} {
		if got := Crowding(c.points); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

func BenchmarkRanks(b *testing.B) {
	for _, objectives := range []int{2, 3, 4} {
		for _, shape := range []string{"cloud", "front"} {
			rng := rand.New(rand.NewPCG(1, 1))
			points := cloud(rng, 10000, objectives, 0)
			if shape == "front" {
				for _, p := range points {
					var sum float64
					for _, v := range p {
						sum += v
					}
					for j := range p {
						p[j] = p[j]/sum + 0.1*rng.Float64()
					}
				}
			}
			b.Run(fmt.Sprintf("%s-%d", shape, objectives), func(b *testing.B) {
				for b.Loop() {
					Ranks(points)
				}
			})
			b.Run(fmt.Sprintf("%s-%d-best-50", shape, objectives), func(b *testing.B) {
				for b.Loop() {
					BestRanks(points, 50)
				}
			})
		}
	}
}
