package data

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"testing"
)

func TestShapesAreTheSameEverywhere(t *testing.T) {
	s, err := Shapes(ShapesOptions{Train: 500, Test: 100})
	if err != nil {
		t.Fatal(err)
	}
	const golden = "d152bf2a7becf75c48d4d902f383302d7da1aff658a4c777c805d9f5a50ccf12"
	if got := fmt.Sprintf("%x", sha256.Sum256(s.Images)); got != golden {
		t.Errorf("hash %s: want %s", got, golden)
	}
	more, err := Shapes(ShapesOptions{Seed: 1, Train: 600, Test: 100})
	if err != nil {
		t.Fatal(err)
	}
	if n := 500 * shapeSide * shapeSide; !slices.Equal(more.Images[:n], s.Images[:n]) {
		t.Error("more samples changed the first ones")
	}
	other, err := Shapes(ShapesOptions{Seed: 2, Train: 500, Test: 100})
	if err != nil {
		t.Fatal(err)
	}
	if slices.Equal(other.Images, s.Images) {
		t.Error("another seed gave the same images")
	}
}

func TestShapesAreBalancedAndVaried(t *testing.T) {
	s, err := Shapes(ShapesOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Train) != 8100 || len(s.Validation) != 900 || len(s.Test) != 2000 {
		t.Errorf("%d, %d, %d samples", len(s.Train), len(s.Validation), len(s.Test))
	}
	count := make([]int, 10)
	for _, l := range s.Labels {
		count[l]++
	}
	if slices.Min(count) < 1000 || slices.Max(count) > 1200 {
		t.Errorf("classes of %v samples", count)
	}
	if s.Mean[0] < 0.4 || s.Mean[0] > 0.6 || s.Std[0] < 0.15 || s.Std[0] > 0.35 {
		t.Errorf("mean %v, std %v", s.Mean[0], s.Std[0])
	}
	n := shapeSide * shapeSide
	seen := map[string]bool{}
	for i := range s.Len() {
		seen[string(s.Images[i*n:(i+1)*n])] = true
	}
	if len(seen) != s.Len() {
		t.Errorf("%d different images of %d", len(seen), s.Len())
	}
}

func TestShapesRefuse(t *testing.T) {
	for _, o := range []ShapesOptions{{Train: 5}, {Test: -1}, {Train: 1 << 30}, {Split: SplitOptions{Validation: 1}}} {
		if _, err := Shapes(o); !errors.Is(err, ErrOption) {
			t.Errorf("%+v: error %v", o, err)
		}
	}
}

// Every class differs from every other where its shape is drawn cleanly.
func TestShapeDistancesDiffer(t *testing.T) {
	const steps = 40
	inside := func(class int) []bool {
		var b []bool
		for y := range steps {
			for x := range steps {
				b = append(b, shapeDistance(class, float64(2*x+1)/steps-1, float64(2*y+1)/steps-1, 0.2) < 0)
			}
		}
		return b
	}
	for i := range shapeNames {
		for j := range i {
			a, b := inside(i), inside(j)
			differ, filled := 0, 0
			for k := range a {
				if a[k] != b[k] {
					differ++
				}
				if a[k] {
					filled++
				}
			}
			if differ < steps*steps/20 || filled < steps*steps/8 {
				t.Errorf("%s and %s differ in %d of %d points, %s fills %d", shapeNames[i], shapeNames[j], differ, len(a), shapeNames[i], filled)
			}
		}
	}
}

func BenchmarkShapes(b *testing.B) {
	for b.Loop() {
		if _, err := Shapes(ShapesOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

func TestBuiltin(t *testing.T) {
	for _, name := range Builtins() {
		s, err := Builtin(name, Options{Split: SplitOptions{Seed: 4}})
		if err != nil || s.Name != name || len(s.Train) == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Builtin("squares", Options{}); !errors.Is(err, ErrOption) {
		t.Errorf("error %v", err)
	}
	if _, err := Builtin("shapes", Options{Label: "a"}); !errors.Is(err, ErrOption) {
		t.Errorf("error %v", err)
	}
}
