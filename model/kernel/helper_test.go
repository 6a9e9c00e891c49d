package kernel

import (
	"math"
	"math/rand/v2"
	"testing"
)

// eachVariant runs f as a subtest under every variant of this machine.
func eachVariant(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	for _, v := range Available() {
		t.Run(string(v), func(t *testing.T) {
			restore, err := Force(v)
			if err != nil {
				t.Fatal(err)
			}
			defer restore()
			f(t)
		})
	}
}

const guard = 37 // elements before and after a guarded buffer

// guarded is a buffer whose surroundings must not change. Its start is misaligned by skew elements.
type guarded struct {
	all []float32
	s   []float32
}

func guardValue(i int) float32 { return float32(-1e30) - float32(i) }

func newGuarded(n, skew int) *guarded {
	g := &guarded{all: make([]float32, n+2*guard+skew)}
	for i := range g.all {
		g.all[i] = guardValue(i % 7)
	}
	g.s = g.all[guard+skew : guard+skew+n : guard+skew+n]
	clear(g.s)
	return g
}

// random fills a guarded buffer with values in [-1, 1).
func random(r *rand.Rand, n, skew int) *guarded {
	g := newGuarded(n, skew)
	for i := range g.s {
		g.s[i] = r.Float32()*2 - 1
	}
	return g
}

func (g *guarded) check(t *testing.T, name string) {
	t.Helper()
	first := len(g.all) - cap(g.s) - guard
	for i, v := range g.all {
		if (i < first || i >= first+len(g.s)) && v != guardValue(i%7) {
			t.Fatalf("%s: guard word at %d (buffer is [%d, %d)) was overwritten with %g", name, i, first, first+len(g.s), v)
		}
	}
}

// near compares with a reference: same NaNs, same infinities, and otherwise within tol of max(1, |want|).
func near(t *testing.T, name string, got []float32, want []float64, tol float64) {
	t.Helper()
	for i, w := range want {
		g := float64(got[i])
		switch {
		case math.IsNaN(w) != math.IsNaN(g), math.IsInf(w, 0) && g != w:
			t.Fatalf("%s[%d] = %g, want %g", name, i, g, w)
		case math.IsNaN(w) || math.IsInf(w, 0):
		case math.Abs(g-w) > tol*max(1, math.Abs(w)):
			t.Fatalf("%s[%d] = %g, want %g (difference %g)", name, i, g, w, g-w)
		}
	}
}

func sameBits(t *testing.T, name string, got, want []float32) {
	t.Helper()
	for i := range want {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
			t.Fatalf("%s[%d] = %g, want the same bits as %g", name, i, got[i], want[i])
		}
	}
}

func rng(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// skipSlow leaves large shapes out under the race detector.
func skipSlow(t *testing.T, sh ConvShape) {
	t.Helper()
	if c, err := NewConv(sh); raceDetector && err == nil && c.MACs() > 300_000 {
		t.Skip("SKIPPED: too slow under the race detector; smaller shapes take the same paths")
	}
}
