package data

import "fmt"

// Augment describes random changes to training images. They depend on (seed,
// epoch, sample index) alone. The zero value changes nothing.
type Augment struct {
	Shift int     // pixels: each image moves by up to this much in both directions; black comes in
	Flip  bool    // mirrors left and right, every second time
	Crop  float64 // each image keeps a random window of at least 1-Crop of each side, scaled back up
}

// IsZero reports whether nothing is changed.
func (a Augment) IsZero() bool { return a == Augment{} }

func (a Augment) validate(s *Set) error {
	if a.IsZero() {
		return nil
	}
	if s.Images == nil || len(s.Shape) != 3 {
		return fmt.Errorf("%w: augmentation of shape %v: want images of bytes", ErrOption, []int(s.Shape))
	}
	if max(s.Shape[0], s.Shape[1]) > maxAugmented {
		return fmt.Errorf("%w: augmentation of shape %v: want sides of at most %d", ErrOption, []int(s.Shape), maxAugmented)
	}
	if a.Shift < 0 || a.Shift >= min(s.Shape[0], s.Shape[1]) {
		return fmt.Errorf("%w: shift %d: want 0 to %d", ErrOption, a.Shift, min(s.Shape[0], s.Shape[1])-1)
	}
	if !(a.Crop >= 0 && a.Crop <= 0.9) {
		return fmt.Errorf("%w: crop %v: want 0 to 0.9", ErrOption, a.Crop)
	}
	return nil
}

// fixed is the scale of the fixed-point coordinates: 16 bits of fraction.
const fixed = 1 << 16

// maxAugmented keeps fixed-point coordinates within 32 bits.
const maxAugmented = 1 << 13

// apply writes the changed image src of shape {h, w, c} to dst.
func (a Augment) apply(dst, src []uint8, h, w, c int, r random) {
	dy, dx, stepY, stepX := 0, 0, fixed, fixed
	if a.Crop > 0 {
		stepY = fixed - int(fixed*a.Crop*r.float())
		stepX = stepY
		dy = r.intn((h-1)*(fixed-stepY) + 1)
		dx = r.intn((w-1)*(fixed-stepX) + 1)
	}
	if a.Shift > 0 {
		dy += (r.intn(2*a.Shift+1) - a.Shift) * fixed
		dx += (r.intn(2*a.Shift+1) - a.Shift) * fixed
	}
	if a.Flip && r.next()>>63 == 1 {
		dx += (w - 1) * stepX
		stepX = -stepX
	}
	if stepY == fixed {
		copyShifted(dst, src, h, w, c, dy/fixed, dx, stepX)
		return
	}
	for y := range h {
		for x := range w {
			bilinear(dst[(y*w+x)*c:][:c], src, h, w, c, dy+y*stepY, dx+x*stepX)
		}
	}
}

// copyShifted moves whole pixels.
func copyShifted(dst, src []uint8, h, w, c, dy, dx, stepX int) {
	for y := range h {
		for x := range w {
			out := dst[(y*w+x)*c:][:c]
			sy, sx := y+dy, (dx+x*stepX)/fixed
			if sy < 0 || sy >= h || dx+x*stepX < 0 || sx >= w {
				clear(out)
				continue
			}
			copy(out, src[(sy*w+sx)*c:][:c])
		}
	}
}

// bilinear samples src at the fixed-point position (y, x); outside is black.
func bilinear(out, src []uint8, h, w, c, y, x int) {
	y0, x0 := y>>16, x>>16
	fy, fx := int64(y&(fixed-1)), int64(x&(fixed-1))
	at := func(yy, xx, k int) int64 {
		if yy < 0 || yy >= h || xx < 0 || xx >= w {
			return 0
		}
		return int64(src[(yy*w+xx)*c+k])
	}
	for k := range out {
		top := at(y0, x0, k)*(fixed-fx) + at(y0, x0+1, k)*fx
		low := at(y0+1, x0, k)*(fixed-fx) + at(y0+1, x0+1, k)*fx
		out[k] = uint8((top*(fixed-fy) + low*fy + 1<<31) >> 32)
	}
}
