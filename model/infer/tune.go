package infer

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/espalier-ml/espalier/model/kernel"
)

// Names of what computes a layer with weights, as Layer.Kernel and
// Options.Kernels have them.
const (
	KernelDense     = "dense"
	KernelSparse    = "sparse"     // stores and multiplies only weights that are not zero
	KernelSparse4x1 = "sparse-4x1" // the same for blocks of four neighbouring output channels
	KernelWinograd  = "winograd"   // 3×3 convolution with fewer multiplications; loses about a decimal digit
)

// winogradStep is a 3×3 convolution by Winograd's algorithm.
type winogradStep struct {
	unary
	k    *kernel.Winograd
	u    []float32 // transformed weights
	bias []float32
	act  kernel.Activation
	sum  bool
}

func (c *winogradStep) run(f *frame, n int) error {
	return c.k.Forward(&f.s, f.values[c.in], c.u, f.values[c.out], 0, n, kernel.Epilogue{Bias: c.bias, Activation: c.act, Accumulate: c.sum})
}

// sparseStep is a convolution, or a fully connected layer as a 1×1 convolution
// of one pixel, over the weights that are not zero.
type sparseStep struct {
	unary
	k    *kernel.SparseConv
	bias []float32
	act  kernel.Activation
	sum  bool
}

func (c *sparseStep) run(f *frame, n int) error {
	return c.k.Forward(&f.s, f.values[c.in], f.values[c.out], 0, n, kernel.Epilogue{Bias: c.bias, Activation: c.act, Accumulate: c.sum})
}

// Sparse kernels are tried from this fraction of zeros on, single weights or
// blocks; below, they have never been faster.
const (
	trySparse = 0.4
	try4x1    = 0.25
)

// alternatives gives the steps that could replace s, by kernel. With all false,
// only those that are worth timing.
func alternatives(s step, all bool) (map[string]step, error) {
	if q, ok := s.(*qconvStep); ok {
		return q.alternatives(), nil
	}
	var sh kernel.ConvShape
	var w, bias []float32
	var u unary
	var act kernel.Activation
	var sum bool
	switch s := s.(type) {
	case *convStep:
		sh, w, bias, u, act, sum = s.k.Shape(), s.w, s.bias, s.unary, s.act, s.sum
	case *denseStep:
		sh = kernel.ConvShape{H: 1, W: 1, KH: 1, KW: 1, IC: s.k.In(), OC: s.k.Out()}
		w, bias, u, act, sum = s.w, s.bias, s.unary, s.act, s.sum
	default:
		return nil, nil
	}
	found := map[string]step{}
	if k, err := kernel.NewWinograd(sh); err == nil && sh.H*sh.W > 1 {
		if pays, _, _ := k.Pays(1); pays || all {
			w4 := &winogradStep{u, k, make([]float32, k.TransformedSize()), bias, act, sum}
			if err := k.TransformWeights(nil, w, w4.u); err != nil {
				return nil, err
			}
			found[KernelWinograd] = w4
		}
	}
	for _, c := range []struct {
		name  string
		block int
		least float64
	}{{KernelSparse, 1, trySparse}, {KernelSparse4x1, 4, try4x1}} {
		if !all && zeroBlocks(w, sh.OC, c.block) < c.least {
			continue
		}
		k, err := kernel.NewSparseConv(sh, w, c.block)
		if err != nil {
			return nil, err
		}
		found[c.name] = &sparseStep{u, k, bias, act, sum}
	}
	return found, nil
}

// zeroBlocks is the fraction of blocks of neighbouring outputs without weights.
func zeroBlocks(w []float32, out, block int) float64 {
	zero, total := 0, 0
	for r := 0; r < len(w); r += out {
		for b := 0; b < out; b += block {
			total++
			if !slices.ContainsFunc(w[r+b:r+min(out, b+block)], func(v float32) bool { return v != 0 }) {
				zero++
			}
		}
	}
	return float64(zero) / float64(total)
}

// choose replaces steps by those that Options.Kernels names, or, with
// Options.Tune, by the fastest here.
func (p *Plan) choose(o Options) error {
	for name := range o.Kernels {
		if !slices.ContainsFunc(p.prog.info, func(l Layer) bool { return l.Name == name }) {
			return fmt.Errorf("%w: kernels: no layer %q", ErrOptions, name)
		}
	}
	for i, s := range p.prog.steps {
		info := &p.prog.info[i]
		want, forced := o.Kernels[info.Name]
		choice := info.Kernel == KernelDense || info.Kernel == KernelInt8
		if forced && want == info.Kernel || !choice && !forced || !forced && !o.Tune {
			continue
		}
		alt, err := alternatives(s, forced)
		if err != nil {
			return err
		}
		if !forced {
			if err := p.fastest(i, alt); err != nil {
				return err
			}
			continue
		}
		if alt[want] == nil {
			return fmt.Errorf("%w: kernels: layer %q has no kernel %q: want %s", ErrOptions, info.Name, want, strings.Join(kernelNames(info.Kernel, alt), ", "))
		}
		p.prog.steps[i], info.Kernel = alt[want], want
	}
	return nil
}

// kernelNames lists a layer's kernels, its first choice first.
func kernelNames(first string, alt map[string]step) []string {
	return append([]string{first}, slices.Sorted(maps.Keys(alt))...)
}

// A timing takes the fastest of at least tuneRounds samples, each of about tuneSample.
// Where there is a choice samples are taken over tuneTime, which is longer than most
// of what disturbs a machine.
const (
	tuneRounds = 9
	tuneSample = 30 * time.Microsecond
	tuneTime   = 5 * time.Millisecond
	tuneGain   = 0.97 // another kernel must take at most this part of the first one's time
)

// fastest times step i and what could replace it, taking turns, on the chunk
// that the plan runs.
func (p *Plan) fastest(i int, alt map[string]step) error {
	info := &p.prog.info[i]
	names := kernelNames(info.Kernel, alt)
	steps := []step{p.prog.steps[i]}
	for _, n := range names[1:] {
		steps = append(steps, alt[n])
	}
	f := p.tuneFrame(i)
	best := make([]time.Duration, len(steps))
	repeat := make([]int, len(steps))
	begun := time.Now()
	for round := 0; round < tuneRounds || len(steps) > 1 && time.Since(begun) < tuneTime; round++ {
		for k, s := range steps {
			n := max(1, repeat[k])
			start := time.Now()
			for range n {
				if err := s.run(f, p.chunk); err != nil {
					return err
				}
			}
			d := max(1, time.Since(start)/time.Duration(n))
			if round == 0 { // warms up, and says how many runs make a sample
				repeat[k] = int(tuneSample/d) + 1
				best[k] = math.MaxInt64
				continue
			}
			best[k] = min(best[k], d)
		}
	}
	win, limit := 0, float64(best[0])*tuneGain
	for k := 1; k < len(steps); k++ {
		if d := float64(best[k]); d < limit {
			win, limit = k, d
		}
	}
	p.prog.steps[i], info.Kernel, info.Time = steps[win], names[win], best[win]/time.Duration(p.chunk)
	return nil
}

// tuneFrame gives step i room with random numbers to read.
func (p *Plan) tuneFrame(i int) *frame {
	f := &frame{values: make([][]float32, len(p.prog.sizes))}
	r := rand.New(rand.NewPCG(1, 1))
	s := p.prog.steps[i]
	for _, v := range append(s.inputs(), s.output()) {
		f.values[*v] = make([]float32, p.prog.sizes[*v]*p.chunk)
		for k := range f.values[*v] {
			f.values[*v][k] = float32(r.NormFloat64())
		}
	}
	return f
}
