package kernel

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
)

// Variant names a set of primitives for one instruction set.
type Variant string

// The variants, fastest first.
const (
	AVX512  Variant = "avx512"   // amd64 with AVX-512 F, DQ, BW, VL
	AVX2    Variant = "avx2"     // amd64 with AVX2 and FMA
	NEONDot Variant = "neon-dot" // arm64 with the dot product extension; differs from neon in 8 bits only
	NEON    Variant = "neon"     // arm64
	Generic Variant = "generic"  // portable Go
)

// EnvVariant is the environment variable that forces a variant. It is read once, at start.
const EnvVariant = "ESPALIER_KERNEL"

// choice is what every call starts from: the primitives, or why there are none.
type choice struct {
	im  *impl
	err error
}

var (
	active   atomic.Pointer[choice]
	forcing  sync.Mutex // held between Force and its restore
	builtIn  []*impl    // in order of preference, generic last
	cpuBrand string     // filled by the platform's detection
)

func init() {
	builtIn = append(platformImpls(), &genericImpl)
	active.Store(choose(os.Getenv(EnvVariant)))
}

func choose(env string) *choice {
	if env == "" {
		return &choice{im: builtIn[0]}
	}
	im, err := find(Variant(env))
	if err != nil {
		err = fmt.Errorf("environment %s=%q: %w", EnvVariant, env, err)
	}
	return &choice{im: im, err: err}
}

func find(v Variant) (*impl, error) {
	for _, im := range builtIn {
		if im.variant == v {
			return im, nil
		}
	}
	return nil, fmt.Errorf("variant %q: this program on this processor has %v: %w", v, Available(), ErrVariant)
}

// current returns the active primitives, or the error that Check reports.
func current() (*impl, error) {
	c := active.Load()
	return c.im, c.err
}

// Active returns the variant in use, or "" when the environment forces one that is unavailable (see Check).
func Active() Variant {
	if c := active.Load(); c.im != nil {
		return c.im.variant
	}
	return ""
}

// Available returns the variants that this program can run on this processor, fastest first. Generic is always there.
func Available() []Variant {
	var vs []Variant
	for _, im := range builtIn {
		vs = append(vs, im.variant)
	}
	return vs
}

// Check returns nil, or an error that wraps ErrVariant when the environment forces a variant that is unavailable. In
// that state every operation of this package returns the same error: there is no silent fall back.
func Check() error { return active.Load().err }

// Force makes v the active variant of the process until restore is called, for tests and comparisons. Only one Force
// is in effect at a time: a second call waits for the restore of the first. Operations already running finish with the
// variant they began with. The error wraps ErrVariant.
func Force(v Variant) (restore func(), err error) {
	im, err := find(v)
	if err != nil {
		return nil, err
	}
	forcing.Lock()
	old := active.Swap(&choice{im: im})
	return sync.OnceFunc(func() {
		active.Store(old)
		forcing.Unlock()
	}), nil
}

// CPU describes the processor and the active variant in one line, as a part of a device's fingerprint.
func CPU() string {
	brand := cpuBrand
	if brand == "" {
		brand = "unknown processor"
	}
	return fmt.Sprintf("%s; kernel %s", brand, Active())
}

// Supports reports whether v is among Available.
func Supports(v Variant) bool { return slices.Contains(Available(), v) }
