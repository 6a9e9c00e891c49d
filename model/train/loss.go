package train

import (
	"fmt"
	"math"
)

// loss is the mean loss of a batch of n rows of c outputs, with its gradient.
type loss struct {
	n, c   int
	kind   Loss
	smooth float64

	labels []int32
	target []float32 // n*c values to approach, for MeanSquares

	teacher     []float32 // logits, when distilling
	weight      float64   // of the teacher
	temperature float64

	grad     []float32
	soft     []float32 // one row: softened softmax of the teacher, then of the student
	softened []float32
}

func newLoss(n, c int, o *Options) *loss {
	l := &loss{n: n, c: c, kind: o.Loss, smooth: o.LabelSmoothing, grad: make([]float32, n*c), labels: make([]int32, n)}
	if o.Loss == MeanSquares {
		return l
	}
	if o.Teacher != nil {
		l.teacher, l.weight, l.temperature = make([]float32, n*c), o.TeacherWeight, o.Temperature
		l.soft, l.softened = make([]float32, c), make([]float32, c)
	}
	return l
}

// compute returns the mean loss and leaves its gradient in grad.
func (l *loss) compute(z []float32) (float64, error) {
	if l.kind == MeanSquares {
		return l.meanSquares(z), nil
	}
	var sum float64
	for i := range l.n {
		row, g := z[i*l.c:(i+1)*l.c], l.grad[i*l.c:(i+1)*l.c]
		y := l.labels[i]
		if y < 0 || int(y) >= l.c {
			return 0, fmt.Errorf("%w: label %d: want 0 to %d", ErrData, y, l.c-1)
		}
		hard := l.crossEntropy(row, g, int(y))
		if l.teacher == nil {
			sum += hard
			continue
		}
		sum += (1-l.weight)*hard + l.weight*l.distil(row, l.teacher[i*l.c:(i+1)*l.c], g)
	}
	return sum / float64(l.n), nil
}

// crossEntropy is that of softmax(z) against label y, smoothed: the label has
// probability 1 - smooth + smooth/c and the others smooth/c.
func (l *loss) crossEntropy(z, g []float32, y int) float64 {
	logSum := softmaxRow(z, g, 1)
	share := 1 / float64(l.n)
	if l.teacher != nil {
		share *= 1 - l.weight
	}
	even := l.smooth / float64(l.c)
	sum := (1 - l.smooth) * (logSum - float64(z[y]))
	for j := range g {
		q := even
		if l.smooth > 0 {
			sum += even * (logSum - float64(z[j]))
		}
		if j == y {
			q += 1 - l.smooth
		}
		g[j] = float32(share * (float64(g[j]) - q))
	}
	return sum
}

// distil is T² times the divergence of the student's softened outputs from the
// teacher's (Hinton, Vinyals and Dean, 2015); it adds its gradient to g.
func (l *loss) distil(z, teacher, g []float32) float64 {
	t := l.temperature
	logT := softmaxRow(teacher, l.soft, t)
	logS := softmaxRow(z, l.softened, t)
	share := l.weight * t / float64(l.n)
	var sum float64
	for j, p := range l.soft {
		sum += float64(p) * ((float64(teacher[j])/t - logT) - (float64(z[j])/t - logS))
		g[j] += float32(share * (float64(l.softened[j]) - float64(p)))
	}
	return t * t * sum
}

// meanSquares is the mean over all outputs of the squared difference from the
// target.
func (l *loss) meanSquares(z []float32) float64 {
	share := 2 / float64(len(z))
	var sum float64
	for i, v := range z {
		d := float64(v) - float64(l.target[i])
		sum += d * d
		l.grad[i] = float32(share * d)
	}
	return sum / float64(len(z))
}

// finite reports whether a loss can be trained on.
func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
