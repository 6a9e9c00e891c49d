package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
)

// misuse makes arguments of all kinds: right, wrong and absurd.
type misuse struct{ *rand.Rand }

// any makes a value of a type.
func (r misuse) any(t reflect.Type) reflect.Value {
	v := reflect.New(t).Elem()
	switch t.Kind() {
	case reflect.Int:
		v.SetInt(int64([]int{math.MinInt, -7, -1, 0, 0, 1, 1, 2, 3, 4, 5, 8, 16, 33, 100, 1 << 30, math.MaxInt}[r.IntN(17)]))
		if r.IntN(4) > 0 {
			v.SetInt(int64(r.IntN(9)))
		}
	case reflect.Float32, reflect.Float64:
		v.SetFloat([]float64{0, 1, -1, 0.5, 1e-3, 1e30, math.Inf(1), math.NaN()}[r.IntN(8)])
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Uint8, reflect.Uint64, reflect.Uint:
		v.SetUint(uint64(r.IntN(256)))
	case reflect.Int8, reflect.Int32, reflect.Int64:
		v.SetInt(int64(r.IntN(256) - 128))
	case reflect.Slice:
		n := []int{0, 0, 1, 2, 3, 9, 16, 64, 100, 777, 5000, 20000}[r.IntN(12)]
		if r.IntN(6) == 0 {
			return v // nil
		}
		v.Set(reflect.MakeSlice(t, n, n))
		if n > 0 {
			v.Index(r.IntN(n)).Set(r.any(t.Elem()))
		}
	case reflect.Struct:
		for i := range t.NumField() {
			if v.Field(i).CanSet() {
				v.Field(i).Set(r.any(t.Field(i).Type))
			}
		}
	case reflect.Pointer:
		if t == reflect.TypeFor[*Scratch]() && r.IntN(2) == 0 {
			v.Set(reflect.ValueOf(new(Scratch)))
		}
	}
	return v
}

// shape is a convolution's that is mostly small and often possible.
func (r misuse) shape() ConvShape {
	if r.IntN(4) == 0 {
		return r.any(reflect.TypeFor[ConvShape]()).Interface().(ConvShape)
	}
	n := func(most int) int { return 1 + r.IntN(most) }
	g := n(3)
	return ConvShape{H: n(8), W: n(8), IC: g * n(17), OC: g * n(17), KH: n(3), KW: n(3), StrideH: r.IntN(3), StrideW: r.IntN(3), DilationH: r.IntN(3),
		PadTop: r.IntN(3), PadLeft: r.IntN(3), PadBottom: r.IntN(3), PadRight: r.IntN(3), Groups: g}
}

// objects are what can be made of a shape.
func (r misuse) objects() (out []any) {
	sh := r.shape()
	add := func(v any, err error) {
		if err == nil {
			out = append(out, v)
		}
	}
	c, err := NewConv(sh)
	add(c, err)
	if err == nil && c.wSize < 1<<20 {
		w, b := make([]float32, c.wSize), make([]int8, c.wSize)
		q, errQ := NewQConv(sh, b, Requant{Scale: make([]float32, sh.OC), InZero: 3})
		add(q, errQ)
		if errQ == nil {
			v, err := NewQWinograd(q)
			add(v, err)
		}
		s, errS := NewSparseConv(sh, w, []int{1, 4, 3}[r.IntN(3)])
		add(s, errS)
	}
	w, err := NewWinograd(sh)
	add(w, err)
	d, err := NewDense(r.IntN(40)-1, r.IntN(40)-1)
	add(d, err)
	p, err := NewPool(PoolShape{H: sh.H, W: sh.W, C: sh.IC, KH: sh.KH, KW: sh.KW, StrideH: sh.StrideH, StrideW: sh.StrideW, PadTop: sh.PadTop, PadLeft: sh.PadLeft})
	add(p, err)
	return out
}

// functions are those of the package that take slices and may be misused.
var functions = []any{
	Gemm, Add, AddScaled, Scale, Activate, ActivateGrad, ColumnSums, ChannelSums, ChannelSquares, ChannelDots, Affine, AffineAdd, Combine, SGD, Adam,
	GlobalAvg, GlobalAvgGrad, Quantize, Dequantize, NewConv, NewDense, NewPool, NewQConv, NewSparseConv, NewWinograd,
}

// TestMisuseNeverPanics calls everything that a user can call with arguments of all kinds: there may be errors, never a
// panic.
func TestMisuseNeverPanics(t *testing.T) {
	rounds := uint64(3000)
	if testing.Short() {
		rounds = 300
	}
	eachVariant(t, func(t *testing.T) {
		calls, errors := 0, 0
		for seed := range rounds {
			r := misuse{rand.New(rand.NewPCG(seed, 9))}
			call := func(name string, f reflect.Value) {
				in := make([]reflect.Value, f.Type().NumIn())
				for i := range in {
					in[i] = r.any(f.Type().In(i))
				}
				defer func() {
					if p := recover(); p != nil {
						t.Fatalf("seed %d: %s%s panics: %v", seed, name, describe(in), p)
					}
				}()
				out := f.Call(in)
				calls++
				if n := len(out); n > 0 {
					if err, ok := out[n-1].Interface().(error); ok && err != nil {
						errors++
					}
				}
			}
			for i, f := range functions {
				call(fmt.Sprint("function ", i), reflect.ValueOf(f))
			}
			for _, o := range r.objects() {
				v := reflect.ValueOf(o)
				for m := range v.NumMethod() {
					call(fmt.Sprintf("%T.%s", o, v.Type().Method(m).Name), v.Method(m))
				}
			}
		}
		t.Logf("%d calls, %d errors", calls, errors)
		if errors*10 > calls*9 || errors*10 < calls {
			t.Errorf("%d of %d calls gave errors: the test tries too little", errors, calls)
		}
	})
}

// describe shows arguments, slices by their length.
func describe(in []reflect.Value) string {
	s := "("
	for i, v := range in {
		if i > 0 {
			s += ", "
		}
		if v.Kind() == reflect.Slice {
			s += fmt.Sprintf("%d %s", v.Len(), v.Type().Elem())
		} else {
			s += fmt.Sprintf("%+v", v.Interface())
		}
	}
	return s + ")"
}
