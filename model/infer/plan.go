package infer

import (
	"fmt"
	"sync"
	"time"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/kernel"
)

// Options says what a plan is for.
type Options struct {
	Batch   int // the most examples of one Run; 0 means 1
	Threads int // goroutines that share a Run of several examples; 0 means 1

	// Tune chooses, for every layer with weights, the fastest kernel on this
	// machine by timing: dense, Winograd's, or sparse where enough weights are
	// zero; on bytes the direct one or Winograd's. The last bits of float32
	// results depend on the choice; without Tune all are dense, and the bits
	// always the same. Bytes are always the same.
	Tune bool
	// Kernels fixes the kernel of layers by name (KernelDense, KernelWinograd,
	// KernelSparse, KernelSparse4x1, KernelInt8, KernelInt8Winograd): a choice
	// that Plan.Layers once told.
	Kernels map[string]string

	apart bool // keep every value to the end, none fused into another
}

// maxBatch bounds Options.Batch, and with it memory.
const maxBatch = 1 << 16

// Layer describes one step of a plan.
type Layer struct {
	Name   string        // of the graph's layer
	Kind   string        // of the operator
	Fused  []string      // layers that are computed with it
	Kernel string        // what computes it: KernelDense and so on for layers with weights, else "plain"
	Time   time.Duration // of one example, where kernels were compared by timing; else 0
	Output model.Shape
}

// Plan is a compiled graph. It is for one goroutine at a time.
type Plan struct {
	prog   *program
	batch  int
	chunk  int
	frames []*frame
	wg     sync.WaitGroup
	errs   []error
}

// chunkFloats is what the working set of a chunk should fit: about half of a
// core's second-level cache.
const chunkFloats = 512 << 10 / 4

// Compile validates g and compiles it. The plan has its own copy of the
// parameters.
func Compile(g *model.Graph, o Options) (*Plan, error) {
	if o.Batch == 0 {
		o.Batch = 1
	}
	if o.Threads == 0 {
		o.Threads = 1
	}
	if o.Batch < 1 || o.Batch > maxBatch {
		return nil, fmt.Errorf("%w: batch %d: want 1 to %d", ErrOptions, o.Batch, maxBatch)
	}
	if o.Threads < 1 || o.Threads > 1024 {
		return nil, fmt.Errorf("%w: threads %d: want 1 to 1024", ErrOptions, o.Threads)
	}
	if err := g.Validate(); err != nil {
		return nil, err
	}
	if err := kernel.Check(); err != nil {
		return nil, err
	}
	l, err := lower(g)
	if err != nil {
		return nil, err
	}
	prog := &program{steps: l.steps, info: l.info, sizes: l.sizes, out: l.value[len(g.Layers)-1]}
	if g.Quant != nil {
		prog = toBytes(prog, g.Quant, l.alias)
	}
	if !o.apart {
		prog.fuseSums()
		prog.inPlace()
	}
	prog.place()
	p := &Plan{prog: prog, batch: o.Batch}
	p.chunk = max(1, min(o.Batch, chunkFloats/max(1, prog.total)))
	threads := min(o.Threads, (o.Batch+p.chunk-1)/p.chunk)
	if o.Threads > threads && o.Batch > 1 { // smaller chunks for more threads
		threads = min(o.Threads, o.Batch)
		p.chunk = (o.Batch + threads - 1) / threads
	}
	if err := p.choose(o); err != nil {
		return nil, err
	}
	p.errs = make([]error, threads)
	for range threads {
		p.frames = append(p.frames, p.newFrame())
	}
	return p, nil
}

// newFrame gives a goroutine its memory.
func (p *Plan) newFrame() *frame {
	f := &frame{values: make([][]float32, len(p.prog.sizes))}
	arena := make([]float32, p.prog.total*p.chunk)
	for v, at := range p.prog.origin {
		if at >= 0 {
			n := p.prog.sizes[v] * p.chunk
			f.values[v] = arena[at*p.chunk : at*p.chunk+n : at*p.chunk+n]
		}
	}
	return f
}

// Batch is the most examples of one Run.
func (p *Plan) Batch() int { return p.batch }

// InputSize is the number of values of one example.
func (p *Plan) InputSize() int { return p.prog.sizes[inputValue] }

// OutputSize is the number of values of one result.
func (p *Plan) OutputSize() int { return p.prog.sizes[p.prog.out] }

// Layers describes the steps in order.
func (p *Plan) Layers() []Layer { return append([]Layer(nil), p.prog.info...) }

// MemoryBytes is what the plan keeps for intermediate results.
func (p *Plan) MemoryBytes() int64 {
	return 4 * int64(p.prog.total) * int64(p.chunk) * int64(len(p.frames))
}

// Run evaluates the examples in x, channels last and one after the other, and
// writes their results to y. There may be fewer of them than Batch. It does not
// keep x or y, and changes nothing but y. The error wraps ErrLength, or is a
// defect of this program.
func (p *Plan) Run(x, y []float32) error {
	in, out := p.InputSize(), p.OutputSize()
	n := len(x) / in
	if n*in != len(x) || n > p.batch || len(y) != n*out {
		return fmt.Errorf("%w: %d in and %d out: want %d and %d for each of at most %d examples", ErrLength, len(x), len(y), in, out, p.batch)
	}
	if len(p.frames) == 1 || n <= p.chunk {
		return p.examples(p.frames[0], x, y, 0, n)
	}
	threads := min(len(p.frames), (n+p.chunk-1)/p.chunk)
	share := (n + threads - 1) / threads
	for i := 1; i < threads; i++ {
		p.wg.Add(1)
		go func() {
			defer p.wg.Done()
			p.errs[i] = p.examples(p.frames[i], x, y, min(n, i*share), min(n, (i+1)*share))
		}()
	}
	p.errs[0] = p.examples(p.frames[0], x, y, 0, share)
	p.wg.Wait()
	for _, err := range p.errs[:threads] {
		if err != nil {
			return err
		}
	}
	return nil
}

// examples evaluates examples [n0, n1) chunk by chunk.
func (p *Plan) examples(f *frame, x, y []float32, n0, n1 int) error {
	in, out := p.InputSize(), p.OutputSize()
	for ; n0 < n1; n0 += p.chunk {
		n := min(p.chunk, n1-n0)
		f.values[inputValue] = x[n0*in : (n0+n)*in]
		f.values[p.prog.out] = y[n0*out : (n0+n)*out]
		for i, s := range p.prog.steps {
			if err := s.run(f, n); err != nil {
				return fmt.Errorf("layer %q: %w", p.prog.info[i].Name, err)
			}
		}
	}
	return nil
}
