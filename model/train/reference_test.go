package train

import (
	"fmt"
	"math"
	"slices"

	"github.com/espalier-ml/espalier/model"
)

// reference is a plain float64 evaluation of a graph in training: batch
// statistics, dropout. It shares only dropout's choice with the real thing.
type reference struct {
	g      *model.Graph
	shapes []model.Shape
	out    int
	n      int
	params map[string][]float64 // "layer/name"
	drop   func(layer, example int, y []float64)

	batchMean, batchVar map[int][]float64
}

func newReference(g *model.Graph, out, n int) *reference {
	r := &reference{g: g, out: out, n: n, params: map[string][]float64{}, batchMean: map[int][]float64{}, batchVar: map[int][]float64{}}
	r.shapes, _ = g.Shapes()
	for i := range g.Layers {
		for name, t := range g.Layers[i].Params {
			r.params[key(i, name)] = wide(t.Data)
		}
	}
	return r
}

func key(layer int, name string) string { return fmt.Sprint(layer, "/", name) }

func wide(x []float32) []float64 {
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = float64(v)
	}
	return y
}

// logits evaluates the batch x and returns the output, example by example.
func (r *reference) logits(x []float64) []float64 {
	values := map[int][]float64{model.Input: x}
	for i := 0; i <= r.out; i++ {
		l := &r.g.Layers[i]
		is := r.g.InputShapes(i, r.shapes)
		in := make([][]float64, len(l.Inputs))
		for k, j := range l.Inputs {
			in[k] = values[j]
		}
		size := r.shapes[i].Elements()
		y := make([]float64, r.n*size)
		if o, ok := l.Op.(model.BatchNorm); ok {
			r.norm(i, o, in[0], y)
		} else {
			for n := range r.n {
				one := make([][]float64, len(in))
				for k := range in {
					one[k] = in[k][n*is[k].Elements() : (n+1)*is[k].Elements()]
				}
				r.layer(i, n, is, one, y[n*size:(n+1)*size])
			}
		}
		values[i] = y
	}
	return values[r.out]
}

func (r *reference) norm(i int, o model.BatchNorm, x, y []float64) {
	scale, shift := r.params[key(i, model.Scale)], r.params[key(i, model.Shift)]
	c := len(scale)
	mean, variance := make([]float64, c), make([]float64, c)
	rows := float64(len(x) / c)
	for k, v := range x {
		mean[k%c] += v / rows
	}
	for k, v := range x {
		variance[k%c] += (v - mean[k%c]) * (v - mean[k%c]) / rows
	}
	for k, v := range x {
		y[k] = scale[k%c]*(v-mean[k%c])/math.Sqrt(variance[k%c]+float64(o.Epsilon)) + shift[k%c]
	}
	r.batchMean[i], r.batchVar[i] = mean, variance
}

func (r *reference) layer(i, n int, is []model.Shape, in [][]float64, y []float64) {
	x, s, os := in[0], is[0], r.shapes[i]
	w, b := r.params[key(i, model.Weight)], r.params[key(i, model.Bias)]
	switch o := r.g.Layers[i].Op.(type) {
	case model.Conv:
		copyBias(y, b)
		icg, ocg := s[2]/o.Groups, o.Out/o.Groups
		window(s, os, o.Kernel, o.Stride, o.Dilation, o.Pad, func(p, q, kh, kw int) {
			for oc := range o.Out {
				for ic := range icg {
					y[q*o.Out+oc] += x[p*s[2]+oc/ocg*icg+ic] * w[((kh*o.Kernel[1]+kw)*icg+ic)*o.Out+oc]
				}
			}
		})
	case model.Dense:
		copyBias(y, b)
		for k, v := range x {
			for j := range y {
				y[j] += v * w[k*len(y)+j]
			}
		}
	case model.MaxPool:
		for k := range y {
			y[k] = math.Inf(-1)
		}
		window(s, os, o.Kernel, o.Stride, [2]int{1, 1}, o.Pad, func(p, q, _, _ int) {
			for c := range s[2] {
				y[q*s[2]+c] = math.Max(y[q*s[2]+c], x[p*s[2]+c])
			}
		})
	case model.AvgPool:
		count := make([]float64, len(y))
		window(s, os, o.Kernel, o.Stride, [2]int{1, 1}, o.Pad, func(p, q, _, _ int) {
			for c := range s[2] {
				y[q*s[2]+c] += x[p*s[2]+c]
				count[q*s[2]+c]++
			}
		})
		for k := range y {
			if o.CountPad {
				count[k] = float64(o.Kernel[0] * o.Kernel[1])
			}
			y[k] /= count[k]
		}
	case model.GlobalAvgPool:
		for k, v := range x {
			y[k%s[2]] += v / float64(s[0]*s[1])
		}
	case model.Activation:
		for k, v := range x {
			y[k] = refActivate(o, v)
		}
	case model.Softmax:
		c := s[len(s)-1]
		for k := 0; k < len(x); k += c {
			refSoftmax(x[k:k+c], y[k:k+c], 1)
		}
	case model.Add:
		for k := range y {
			y[k] = x[k] + in[1][k]
		}
	case model.Concat:
		total, off := os[len(os)-1], 0
		for k, v := range in {
			c := is[k][len(is[k])-1]
			for p := range v {
				y[p/c*total+off+p%c] = v[p]
			}
			off += c
		}
	case model.Pad:
		for p, v := range x {
			row, col, c := p/(s[1]*s[2]), p/s[2]%s[1], p%s[2]
			y[((row+o.Pad.Top)*os[1]+col+o.Pad.Left)*s[2]+c] = v
		}
	case model.Flatten, model.Reshape:
		copy(y, x)
	case model.Dropout:
		copy(y, x)
		if o.Rate > 0 {
			r.drop(i, n, y)
		}
	default:
		panic(o.Kind())
	}
}

func copyBias(y, b []float64) {
	for k := range y {
		if b != nil {
			y[k] = b[k%len(b)]
		}
	}
}

// window calls f for every input pixel p under tap (kh, kw) of output pixel q.
func window(s, os model.Shape, kernel, stride, dilation [2]int, pad model.Pad2D, f func(p, q, kh, kw int)) {
	for oy := range os[0] {
		for ox := range os[1] {
			for kh := range kernel[0] {
				for kw := range kernel[1] {
					y, x := oy*stride[0]-pad.Top+kh*dilation[0], ox*stride[1]-pad.Left+kw*dilation[1]
					if y >= 0 && y < s[0] && x >= 0 && x < s[1] {
						f(y*s[1]+x, oy*os[1]+ox, kh, kw)
					}
				}
			}
		}
	}
}

func refActivate(a model.Activation, v float64) float64 {
	switch a.Func {
	case model.ReLU:
		return math.Max(v, 0)
	case model.ReLU6:
		return math.Min(math.Max(v, 0), 6)
	case model.LeakyReLU:
		if v < 0 {
			return float64(a.Alpha) * v
		}
		return v
	case model.Sigmoid:
		return 1 / (1 + math.Exp(-v))
	case model.Tanh:
		return math.Tanh(v)
	case model.HardSwish:
		return v * math.Min(math.Max(v+3, 0), 6) / 6
	}
	panic(a.Func)
}

func refSoftmax(x, y []float64, t float64) (logSum float64) {
	top, sum := slices.Max(x), 0.0
	for k, v := range x {
		y[k] = math.Exp((v - top) / t)
		sum += y[k]
	}
	for k := range y {
		y[k] /= sum
	}
	return math.Log(sum) + top/t
}

// refLoss is the mean loss of logits z.
func refLoss(o *Options, z, target []float64, labels []int32, teacher []float64, n int) float64 {
	c, sum := len(z)/n, 0.0
	if o.Loss == MeanSquares {
		for k, v := range z {
			sum += (v - target[k]) * (v - target[k]) / float64(len(z))
		}
		return sum
	}
	p := make([]float64, c)
	for i := range n {
		row := z[i*c : (i+1)*c]
		logSum := refSoftmax(row, p, 1)
		hard := 0.0
		for j, v := range row {
			q := o.LabelSmoothing / float64(c)
			if j == int(labels[i]) {
				q += 1 - o.LabelSmoothing
			}
			hard -= q * (v - logSum)
		}
		if teacher == nil {
			sum += hard
			continue
		}
		t, pt := o.Temperature, make([]float64, c)
		logT := refSoftmax(teacher[i*c:(i+1)*c], pt, t)
		logS := refSoftmax(row, p, t)
		soft := 0.0
		for j, v := range row {
			soft += pt[j] * (teacher[i*c+j]/t - logT - v/t + logS)
		}
		sum += (1-o.TeacherWeight)*hard + o.TeacherWeight*t*t*soft
	}
	return sum / float64(n)
}
