package pareto

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestHypervolume(t *testing.T) {
	for _, c := range []struct {
		name      string
		points    [][]float64
		reference []float64
		want      float64
	}{
		{"none", nil, []float64{1, 1}, 0},
		{"one objective", [][]float64{{3}, {1}, {2}}, []float64{4}, 3},
		{"one point", [][]float64{{1, 2}}, []float64{3, 5}, 6},
		{"on the reference", [][]float64{{1, 5}}, []float64{3, 5}, 0},
		{"outside", [][]float64{{1, 6}, {1, 1}}, []float64{3, 5}, 8},
		{"equal and dominated", [][]float64{{1, 1}, {1, 1}, {2, 2}, {1, 2}}, []float64{3, 3}, 4},
		{"two corners", [][]float64{{1, 0, 1}, {0, 1, 0}}, []float64{2, 2, 2}, 5},
		{"four objectives", [][]float64{{1, 0, 1, 0}, {0, 1, 0, 0}}, []float64{2, 2, 2, 2}, 10},
		{"a cube of five", [][]float64{{1, 1, 1, 1, 1}, {0, 2, 1, 1, 1}}, []float64{3, 3, 3, 3, 3}, 32 + 8},
	} {
		if got := Hypervolume(c.points, c.reference); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

// TestHypervolumeOfATriangle compares with a closed form: the points (x, y, n−1−x−y) leave a tetrahedron of unit cubes.
func TestHypervolumeOfATriangle(t *testing.T) {
	for _, n := range []int{1, 2, 3, 10, 40} {
		var points [][]float64
		for x := range n {
			for y := range n - x {
				points = append(points, []float64{float64(x), float64(y), float64(n - 1 - x - y)})
			}
		}
		r := float64(n)
		want := r*r*r - (r-1)*r*(r+1)/6
		if got := Hypervolume(points, []float64{r, r, r}); got != want {
			t.Errorf("n = %d: got %v, want %v", n, got, want)
		}
		for _, p := range points {
			p[0], p[1], p[2] = p[2], p[0], p[1]
		}
		if got := Hypervolume(points, []float64{r, r, r}); got != want {
			t.Errorf("n = %d, turned: got %v, want %v", n, got, want)
		}
	}
}

// TestHypervolumeOfAGrid compares with a count of the unit cells that a grid's points dominate.
func TestHypervolumeOfAGrid(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	for objectives := 1; objectives <= 6; objectives++ {
		grid := []int{0, 9, 9, 7, 5, 4, 3}[objectives]
		reference := slices.Repeat([]float64{float64(grid)}, objectives)
		for range 60 {
			points := cloud(rng, rng.IntN(25), objectives, grid+1)
			want := 0
			cell := make([]float64, objectives)
			for i := 0; i < int(math.Pow(float64(grid), float64(objectives))); i++ {
				for j, rest := 0, i; j < objectives; j++ {
					cell[j], rest = float64(rest%grid), rest/grid
				}
				if slices.ContainsFunc(points, func(p []float64) bool { return covers(p, cell) }) {
					want++
				}
			}
			before := fmt.Sprint(points)
			if got := Hypervolume(points, reference); got != float64(want) {
				t.Fatalf("hypervolume of %v within %v is %v, want %d", points, reference, got, want)
			}
			if fmt.Sprint(points) != before {
				t.Fatal("the points were changed")
			}
		}
	}
}

func TestContributionsAndSubset(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	for objectives := 1; objectives <= 5; objectives++ {
		reference := slices.Repeat([]float64{0.9}, objectives)
		for range 30 {
			points := cloud(rng, 1+rng.IntN(14), objectives, 0)
			points = append(points, points[0])
			total := Hypervolume(points, reference)
			for i, c := range Contributions(points, reference) {
				rest := slices.Delete(slices.Clone(points), i, i+1)
				if want := total - Hypervolume(rest, reference); math.Abs(c-want) > 1e-12 {
					t.Fatalf("contribution %d of %v is %v, want %v", i, points, c, want)
				}
			}
			var chosen [][]float64
			for _, i := range Subset(points, reference, 4) {
				if slices.ContainsFunc(points, func(p []float64) bool {
					return Hypervolume(append(slices.Clone(chosen), p), reference) > Hypervolume(append(slices.Clone(chosen), points[i]), reference)+1e-12
				}) {
					t.Fatalf("after %v something adds more than %v", chosen, points[i])
				}
				chosen = append(chosen, points[i])
			}
		}
	}
	if got := Subset([][]float64{{1, 1}, {0, 0}, {5, 5}}, []float64{2, 2}, 9); !slices.Equal(got, []int{1, 0, 2}) {
		t.Errorf("a subset of everything is %v", got)
	}
}

func BenchmarkHypervolume(b *testing.B) {
	for _, c := range []struct{ objectives, n int }{{2, 1000}, {3, 1000}, {3, 10000}, {4, 200}, {5, 50}} {
		points := cloud(rand.New(rand.NewPCG(1, 1)), c.n, c.objectives, 0)
		for _, p := range points {
			var norm float64
			for _, v := range p {
				norm += v * v
			}
			for j := range p {
				p[j] /= math.Sqrt(norm)
			}
		}
		reference := slices.Repeat([]float64{1.1}, c.objectives)
		b.Run(fmt.Sprintf("%d-objectives-%d-points", c.objectives, c.n), func(b *testing.B) {
			for b.Loop() {
				Hypervolume(points, reference)
			}
		})
	}
}
