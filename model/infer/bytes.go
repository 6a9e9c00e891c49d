package infer

import (
	"unsafe"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/kernel"
)

// Names of what computes a layer on bytes. Both give the same bytes.
const (
	KernelInt8         = "int8"
	KernelInt8Winograd = "int8-winograd" // 3×3 convolution with fewer multiplications, in whole numbers
)

// asBytes views the memory of a value as bytes.
func asBytes(x []float32) []uint8 {
	if len(x) == 0 {
		return nil
	}
	return unsafe.Slice((*uint8)(unsafe.Pointer(&x[0])), 4*len(x))
}

// int8Weights are weights as bytes, with the scale of each output channel.
type int8Weights struct {
	w     []int8
	scale []float32
}

// qconvStep is a convolution or fully connected layer on bytes.
type qconvStep struct {
	unary
	k *kernel.QConv
}

func (c *qconvStep) run(f *frame, n int) error {
	return c.k.Forward(&f.s, asBytes(f.values[c.in]), asBytes(f.values[c.out]), 0, n)
}

// alternatives gives the steps that could replace c, by kernel.
func (c *qconvStep) alternatives() map[string]step {
	k, err := kernel.NewQWinograd(c.k)
	if err != nil {
		return nil
	}
	return map[string]step{KernelInt8Winograd: &qwinogradStep{c.unary, k}}
}

type qwinogradStep struct {
	unary
	k *kernel.QWinograd
}

func (c *qwinogradStep) run(f *frame, n int) error {
	return c.k.Forward(&f.s, asBytes(f.values[c.in]), asBytes(f.values[c.out]), 0, n)
}

type maxBytesStep struct {
	unary
	k *kernel.Pool
}

func (p *maxBytesStep) run(f *frame, n int) error {
	return p.k.MaxBytes(&f.s, asBytes(f.values[p.in]), asBytes(f.values[p.out]), 0, n)
}

type quantizeStep struct {
	unary
	size int
	a    model.Affine
}

func (s *quantizeStep) run(f *frame, n int) error {
	return kernel.Quantize(&f.s, asBytes(f.values[s.out])[:n*s.size], f.values[s.in], s.a.Scale, s.a.Zero)
}

type dequantizeStep struct {
	unary
	size int
	a    model.Affine
}

func (s *dequantizeStep) run(f *frame, n int) error {
	return kernel.Dequantize(&f.s, f.values[s.out][:n*s.size], asBytes(f.values[s.in]), s.a.Scale, s.a.Zero)
}

// quantizing rewrites the program of an int8 network to compute on bytes where the
// network says so and the kernels can; other steps stay in float32, with conversions
// between.
type quantizing struct {
	old    *program
	out    program
	affine map[int]model.Affine // of old values that bytes can hold
	bytes  map[int]int          // old value to the new one in bytes
	floats map[int]int          // old value to the new one in float32
}

// toBytes rewrites p. Alias gives values other names.
func toBytes(p *program, s *model.Quant, alias map[string]int) *program {
	q := &quantizing{old: p, affine: map[int]model.Affine{}, bytes: map[int]int{}, floats: map[int]int{inputValue: inputValue}}
	q.out.sizes = []int{p.sizes[inputValue]}
	for name, v := range alias {
		q.know(v, s.Layers[name])
	}
	q.know(inputValue, s.Input)
	for i, st := range p.steps {
		q.know(*st.output(), s.Layers[p.info[i].last()])
	}
	for i, st := range p.steps {
		info := p.info[i]
		if b := q.byteStep(st); b != nil {
			if info.Kernel != "plain" {
				info.Kernel = KernelInt8
			}
			q.add(b, info)
			continue
		}
		for _, in := range st.inputs() {
			*in = q.float(*in)
		}
		v := *st.output()
		*st.output() = q.value(p.sizes[v])
		q.floats[v] = *st.output()
		q.add(st, info)
	}
	q.out.out = q.float(p.out)
	return &q.out
}

func (q *quantizing) know(v int, a model.Affine) {
	if a.Scale > 0 {
		q.affine[v] = a
	}
}

func (q *quantizing) add(s step, info Layer) {
	q.out.steps, q.out.info = append(q.out.steps, s), append(q.out.info, info)
}

func (q *quantizing) value(size int) int {
	q.out.sizes = append(q.out.sizes, size)
	return len(q.out.sizes) - 1
}

// byteValue makes the value in bytes of an old value.
func (q *quantizing) byteValue(v int) int {
	q.bytes[v] = q.value((q.old.sizes[v] + 3) / 4)
	return q.bytes[v]
}

// float gives an old value in float32, converting it if need be.
func (q *quantizing) float(v int) int {
	if n, ok := q.floats[v]; ok {
		return n
	}
	size := q.old.sizes[v]
	n := q.value(size)
	q.add(&dequantizeStep{unary{q.bytes[v], n}, size, q.affine[v]}, Layer{Name: "dequantize", Kind: "dequantize", Kernel: "plain"})
	q.floats[v] = n
	return n
}

// quantized gives an old value in bytes, converting it if need be.
func (q *quantizing) quantized(v int) int {
	if n, ok := q.bytes[v]; ok {
		return n
	}
	in, size := q.floats[v], q.old.sizes[v]
	n := q.byteValue(v)
	q.add(&quantizeStep{unary{in, n}, size, q.affine[v]}, Layer{Name: "quantize", Kind: "quantize", Kernel: "plain"})
	return n
}

// byteStep gives the step on bytes for an old step, or nil.
func (q *quantizing) byteStep(s step) step {
	switch s := s.(type) {
	case *maxPoolStep:
		if _, ok := q.bytes[s.in]; !ok {
			return nil
		}
		q.affine[s.out] = q.affine[s.in]
		in := q.bytes[s.in]
		return &maxBytesStep{unary{in, q.byteValue(s.out)}, s.k}
	case *convStep:
		return q.layer(s.unary, s.k.Shape(), s.bytes, s.bias, s.act)
	case *denseStep:
		return q.layer(s.unary, kernel.ConvShape{H: 1, W: 1, KH: 1, KW: 1, IC: s.k.In(), OC: s.k.Out()}, s.bytes, s.bias, s.act)
	}
	return nil
}

// layer gives the step on bytes of a layer with weights, or nil where it is to be, or
// has to be, computed in float32.
func (q *quantizing) layer(u unary, sh kernel.ConvShape, w *int8Weights, bias []float32, act kernel.Activation) step {
	x, okX := q.affine[u.in]
	y, okY := q.affine[u.out]
	if w == nil || !okX || !okY {
		return nil
	}
	r := kernel.Requant{InZero: x.Zero, OutZero: y.Zero, Scale: make([]float32, sh.OC), Bias: make([]int32, sh.OC)}
	for i, ws := range w.scale {
		r.Scale[i] = float32(float64(x.Scale) * float64(ws) / float64(y.Scale))
		if bias != nil {
			b, ok := model.BiasUnits(bias[i], model.BiasUnit(x.Scale, ws))
			if !ok {
				return nil
			}
			r.Bias[i] = b
		}
	}
	if act != kernel.None {
		r.Lo = y.Zero
	}
	if act == kernel.ReLU6 {
		r.Hi = max(1, y.Quantize(6))
	}
	k, err := kernel.NewQConv(sh, w.w, r)
	if err != nil {
		return nil
	}
	return &qconvStep{unary{q.quantized(u.in), q.byteValue(u.out)}, k}
}
