package data

import (
	"fmt"
	"math"

	"github.com/espalier-ml/espalier/model"
)

// How hard the built-in shapes are. A small convolutional network should end
// between 90 and 99 % after a few epochs: enough left to lose by pruning.
const (
	shapeSide      = 28
	shapeScaleMin  = 7.5 // half the size, pixels
	shapeScaleMax  = 10.5
	shapeTurn      = 0.16 // tangent of half the largest rotation: about 18 degrees
	shapeSquash    = 0.22 // largest change of the ratio of width to height
	shapeStrokeMin = 0.16 // half the width of lines, of the half size
	shapeStrokeMax = 0.27
	shapeContrast  = 0.45 // least difference between shape and background
	shapeNoise     = 0.06 // largest standard deviation of the noise
	shapeClutter   = 2    // largest number of stray lines
	shapeOccluders = 1    // largest number of bars that hide a part
	shapeGradient  = 0.25 // largest slope of the background across the image
)

// shapeNames are the classes, in the order of shapeDistance's cases.
var shapeNames = []string{"disc", "ring", "square", "frame", "triangle", "plus", "saltire", "star", "bars", "crescent"}

// ShapesOptions says which built-in shapes to generate. The zero value is the
// built-in set `shapes`.
type ShapesOptions struct {
	Seed  uint64 // of the images; 0 means 1
	Train int    // samples to split into train and validation; 0 means 9000
	Test  int    // test samples; 0 means 2000
	Split SplitOptions
}

// Shapes generates images of 28×28×1 in ten classes: anti-aliased shapes at
// random position, size, rotation, proportion, stroke and contrast, over a
// background with gradient and noise, with stray lines, partly hidden. The same
// seed gives the same bytes on every platform, and sample i does not depend on
// how many there are.
func Shapes(o ShapesOptions) (*Set, error) {
	if o.Seed == 0 {
		o.Seed = 1
	}
	if o.Train == 0 {
		o.Train = 9000
	}
	if o.Test == 0 {
		o.Test = 2000
	}
	if _, err := o.Split.withDefaults(); err != nil {
		return nil, err
	}
	const most = 1_000_000
	for name, n := range map[string]int{"train": o.Train, "test": o.Test} {
		if n < len(shapeNames) || n > most {
			return nil, fmt.Errorf("%w: %d %s samples of shapes: want %d to %d", ErrOption, n, name, len(shapeNames), most)
		}
	}
	n := o.Train + o.Test
	s := &Set{
		Name: "shapes", Shape: model.Shape{shapeSide, shapeSide, 1}, Classes: shapeNames, TestFrom: o.Train,
		Images: make([]uint8, n*shapeSide*shapeSide), Labels: make([]int32, n),
	}
	for i := range n {
		r := newRandom(o.Seed, streamShape, uint64(i))
		s.Labels[i] = int32(r.intn(len(shapeNames)))
		drawShape(s.Images[i*shapeSide*shapeSide:(i+1)*shapeSide*shapeSide], int(s.Labels[i]), &r)
	}
	return s, s.Split(o.Split)
}

// canvas is an image in [0, 1] before quantisation. All sums of products in this
// file are rounded in between, by conversions, so that no platform fuses them.
type canvas [shapeSide * shapeSide]float64

func drawShape(dst []uint8, class int, r *random) {
	var c canvas
	ground := r.between(0.15, 0.85)
	gx, gy := r.between(-shapeGradient, shapeGradient)/shapeSide, r.between(-shapeGradient, shapeGradient)/shapeSide
	for i := range c {
		x, y := float64(i%shapeSide)-shapeSide/2, float64(i/shapeSide)-shapeSide/2
		c[i] = ground + float64(gx*x) + float64(gy*y)
	}
	for range r.intn(shapeClutter + 1) {
		c.line(r, r.float(), r.between(0.4, 0.8), r.between(2, 6))
	}
	c.shape(class, tone(ground, r), r)
	for range r.intn(shapeOccluders + 1) {
		c.line(r, ground, r.between(0.8, 1.8), r.between(4, 9))
	}
	noise := r.between(0.02, shapeNoise)
	for i, v := range c {
		v += float64(noise * r.bell())
		dst[i] = uint8(float64(255*min(max(v, 0), 1)) + 0.5)
	}
}

// tone is a brightness that differs enough from the background's.
func tone(ground float64, r *random) float64 {
	up, down := max(1-ground-shapeContrast, 0), max(ground-shapeContrast, 0)
	if v := float64(r.float() * (up + down)); v < up {
		return ground + shapeContrast + v
	} else {
		return v - up
	}
}

// bell is roughly normal: the sum of four uniform numbers, of variance 1.
func (r *random) bell() float64 {
	v := r.next()
	sum := int64(v&0xffff) + int64(v>>16&0xffff) + int64(v>>32&0xffff) + int64(v>>48)
	return float64(sum-2*0xffff) * (1.7320508 / 0xffff)
}

// blend paints one pixel by how much of it a boundary at distance d covers.
func (c *canvas) blend(i int, d, value float64) {
	cover := min(max(0.5-d, 0), 1)
	c[i] += float64(cover * (value - c[i]))
}

// line draws a segment through a random point, of the given half width and half
// length.
func (c *canvas) line(r *random, value, width, length float64) {
	cx, cy := r.between(3, shapeSide-3), r.between(3, shapeSide-3)
	cos, sin := turn(r.between(-1, 1))
	for i := range c {
		x, y := float64(i%shapeSide)+0.5-cx, float64(i/shapeSide)+0.5-cy
		u, v := float64(cos*x)+float64(sin*y), float64(cos*y)-float64(sin*x)
		c.blend(i, max(math.Abs(u)-length, math.Abs(v)-width), value)
	}
}

// turn gives cosine and sine of the angle whose half has tangent t.
func turn(t float64) (cos, sin float64) {
	square := float64(t * t)
	return (1 - square) / (1 + square), float64(2*t) / (1 + square)
}

// shape draws the class at a random place, size, rotation, proportion and stroke.
func (c *canvas) shape(class int, value float64, r *random) {
	size := r.between(shapeScaleMin, shapeScaleMax)
	room := shapeSide/2 - float64(size*0.9)
	cx, cy := shapeSide/2+r.between(-room, room), shapeSide/2+r.between(-room, room)
	cos, sin := turn(r.between(-shapeTurn, shapeTurn))
	squash := r.between(1-shapeSquash, 1+shapeSquash)
	stroke := r.between(shapeStrokeMin, shapeStrokeMax)
	for i := range c {
		x, y := (float64(i%shapeSide)+0.5-cx)/size, (float64(i/shapeSide)+0.5-cy)/size
		u, v := float64(cos*x)+float64(sin*y), float64(cos*y)-float64(sin*x)
		c.blend(i, float64(shapeDistance(class, float64(u*squash), v, stroke)*size), value)
	}
}

// shapeDistance is about the distance of (u, v) from the boundary of a shape
// within [-1, 1]², negative inside.
func shapeDistance(class int, u, v, stroke float64) float64 {
	au, av := math.Abs(u), math.Abs(v)
	switch class {
	case 0: // disc
		return length(u, v) - 0.9
	case 1: // ring
		return math.Abs(length(u, v)-0.78) - stroke
	case 2: // square
		return max(au, av) - 0.8
	case 3: // frame
		return math.Abs(max(au, av)-0.7) - stroke
	case 4: // triangle
		return max(v-0.6, float64(0.8660254*au)-float64(0.5*v)-0.5)
	case 5: // plus
		return min(max(au-0.95, av-stroke), max(au-stroke, av-0.95))
	case 6: // saltire
		p, q := float64(math.Abs(u+v)*(math.Sqrt2/2)), float64(math.Abs(u-v)*(math.Sqrt2/2))
		return min(max(p-0.95, q-stroke), max(p-stroke, q-0.95))
	case 7: // star
		return starDistance(u, v)
	case 8: // bars
		return max(au-0.9, math.Abs(av-0.55)-stroke)
	default: // crescent
		return max(length(u, v)-0.95, 0.75-length(u-0.45, v))
	}
}

// length is the Euclidean norm.
func length(u, v float64) float64 { return math.Sqrt(float64(u*u) + float64(v*v)) }

// starDistance is that of a pentagram: the points inside at least four of the
// five half-planes that its lines bound.
func starDistance(u, v float64) float64 {
	first, second := math.Inf(-1), math.Inf(-1)
	for _, n := range [5][2]float64{{0, 1}, {0.95105652, 0.30901699}, {0.58778525, -0.80901699}, {-0.58778525, -0.80901699}, {-0.95105652, 0.30901699}} {
		d := float64(n[0]*u) + float64(n[1]*v) - 0.34
		if d > first {
			first, second = d, first
		} else if d > second {
			second = d
		}
	}
	return second
}
