package kernel

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestChoose(t *testing.T) {
	if c := choose(""); c.err != nil || c.im.variant != Available()[0] {
		t.Errorf("without the environment: %v, %v, want the best variant", c.im.variant, c.err)
	}
	for _, v := range Available() {
		if c := choose(string(v)); c.err != nil || c.im.variant != v {
			t.Errorf("%q: got %v, %v", v, c.im.variant, c.err)
		}
	}
	for _, v := range []string{"sse", "AVX512", "altivec"} {
		c := choose(v)
		if !errors.Is(c.err, ErrVariant) || c.im != nil || !strings.Contains(c.err.Error(), v) {
			t.Errorf("%q: error is %v, want ErrVariant that names it", v, c.err)
		}
	}
}

// TestUnavailable checks that nothing falls back silently.
func TestUnavailable(t *testing.T) {
	old := active.Swap(choose("altivec"))
	defer active.Store(old)
	if err := Check(); !errors.Is(err, ErrVariant) {
		t.Errorf("Check: %v", err)
	}
	if Active() != "" {
		t.Errorf("Active is %q, want none", Active())
	}
	x := make([]float32, 4)
	for name, err := range map[string]error{
		"add": Add(x, x, x, None), "scale": Scale(x, 2), "sums": ColumnSums(x, x, 2, 0, 1), "sgd": SGD(nil, x, x, x, SGDStep{Rate: 1}),
		"adam": Adam(nil, x, x, x, x, AdamStep{Rate: 1, Step: 1}), "gemm": Gemm(nil, MatrixShape{M: 1, N: 1, K: 1, LDB: 1, LDC: 1}, x, x, x, Epilogue{}),
	} {
		if !errors.Is(err, ErrVariant) {
			t.Errorf("%s: error is %v, want ErrVariant", name, err)
		}
	}
}

func TestForce(t *testing.T) {
	before := Active()
	restore, err := Force(Generic)
	must(t, err)
	if Active() != Generic || !strings.HasSuffix(CPU(), "kernel generic") {
		t.Errorf("active is %q, CPU %q", Active(), CPU())
	}
	restore()
	restore()
	if Active() != before {
		t.Errorf("active is %q after restore, want %q", Active(), before)
	}
	if _, err := Force("none"); !errors.Is(err, ErrVariant) {
		t.Errorf("error is %v", err)
	}
	if !slices.Contains(Available(), Generic) || Supports("none") || !Supports(Generic) {
		t.Errorf("available are %v", Available())
	}
}

func TestPeak(t *testing.T) {
	eachVariant(t, func(t *testing.T) {
		p, err := PeakFLOPS(time.Millisecond)
		must(t, err)
		if vector := Active() == AVX512 || Active() == AVX2; vector != (p > 1e8) {
			t.Errorf("peak is %g", p)
		}
		t.Logf("%.0f GFLOP/s", p/1e9)
	})
}
