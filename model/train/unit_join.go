package train

import (
	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/kernel"
)

// add is the sum of two inputs with an activation.
type add struct {
	a, b port
	masker
}

func (u *add) ports() []*port { return []*port{&u.a, &u.b} }
func (u *add) result() *value { return u.out }

func (u *add) forward(w *worker, c chunk) error {
	return kernel.Add(u.out.x(w, c.n0, c.n1), u.a.x(w, c.n0, c.n1), u.b.x(w, c.n0, c.n1), u.out.act)
}

func (u *add) backward(w *worker, c chunk) error {
	dy, err := u.dy(w, c.n0, c.n1)
	if err != nil {
		return err
	}
	for _, p := range u.ports2() {
		if p.needGrad {
			if err := p.pass(w, dy, c.n0, c.n1); err != nil {
				return err
			}
		}
	}
	return nil
}

// ports2 is ports without an allocation.
func (u *add) ports2() [2]*port { return [2]*port{&u.a, &u.b} }

// normAdd is the way forth of an addition that also normalises its first input,
// and the second where zn is not nil: their results are computed nowhere else in
// a pass.
type normAdd struct {
	*add
	x, z   *port
	xn, zn *norm
}

// normalising gives the addition, or a normAdd for those of its inputs that are
// results of normalisation and may go uncomputed.
func (u *add) normalising(may func(*value) bool) unit {
	norms := [2]*norm{}
	ports := u.ports2()
	for i, p := range ports {
		if n, ok := p.from.(normApply); ok && may(p.value) {
			norms[i] = n.norm
		}
	}
	for i, n := range norms {
		if n == nil || n.out.act != kernel.None {
			continue
		}
		f := &normAdd{add: u, x: &n.in, xn: n, z: ports[1-i], zn: norms[1-i]}
		if f.zn != nil {
			f.z = &f.zn.in
		}
		return f
	}
	return u
}

func (u *normAdd) ports() []*port { return []*port{u.x, u.z} }

func (u *normAdd) forward(w *worker, c chunk) error {
	var scale, shift []float32
	act := kernel.None
	if u.zn != nil {
		scale, shift, act = u.zn.a, u.zn.b, u.zn.out.act
	}
	return kernel.AffineAdd(u.out.x(w, c.n0, c.n1), u.x.x(w, c.n0, c.n1), u.xn.a, u.xn.b, u.z.x(w, c.n0, c.n1), scale, shift, u.xn.c, 0,
		(c.n1-c.n0)*u.xn.rows, u.out.act, act)
}

// concat joins rows of its inputs' channels.
type concat struct {
	in    []*port
	width []int // channels of each input
	rows  int   // per example
	out   *value
}

func (u *concat) ports() []*port  { return u.in }
func (u *concat) result() *value  { return u.out }
func (u *concat) reads() []*value { return nil }

func (u *concat) forward(w *worker, c chunk) error {
	y, total := u.out.x(w, c.n0, c.n1), u.out.size/u.rows
	off := 0
	for k, p := range u.in {
		x, n := p.x(w, c.n0, c.n1), u.width[k]
		for r := range (c.n1 - c.n0) * u.rows {
			copy(y[r*total+off:r*total+off+n], x[r*n:(r+1)*n])
		}
		off += n
	}
	return nil
}

func (u *concat) backward(w *worker, c chunk) error {
	dy, total := u.out.dy(w, c.n0, c.n1), u.out.size/u.rows
	off := 0
	for k, p := range u.in {
		n := u.width[k]
		if p.needGrad {
			dx := p.begin(w, c.n0, c.n1)
			for r := range (c.n1 - c.n0) * u.rows {
				copy(dx[r*n:(r+1)*n], dy[r*total+off:r*total+off+n])
			}
			if err := p.end(w, c.n0, c.n1); err != nil {
				return err
			}
		}
		off += n
	}
	return nil
}

// pad adds zeros around images.
type pad struct {
	op      model.Pad2D
	in      port
	out     *value
	h, w, c int // of the input
}

func (u *pad) ports() []*port  { return []*port{&u.in} }
func (u *pad) result() *value  { return u.out }
func (u *pad) reads() []*value { return nil }

func (u *pad) forward(w *worker, c chunk) error {
	clear(u.out.x(w, c.n0, c.n1))
	u.rows(u.out.x(w, c.n0, c.n1), u.in.x(w, c.n0, c.n1), c.n1-c.n0, true)
	return nil
}

func (u *pad) backward(w *worker, c chunk) error {
	if !u.in.needGrad {
		return nil
	}
	dx := u.in.begin(w, c.n0, c.n1)
	u.rows(u.out.dy(w, c.n0, c.n1), dx, c.n1-c.n0, false)
	return u.in.end(w, c.n0, c.n1)
}

// rows copies the input's rows into the padded images, or back out of them.
func (u *pad) rows(padded, plain []float32, n int, in bool) {
	line := u.w * u.c
	wide := line + (u.op.Left+u.op.Right)*u.c
	for i := range n {
		for r := range u.h {
			p := i*u.out.size + (u.op.Top+r)*wide + u.op.Left*u.c
			q := i*u.in.size + r*line
			if in {
				copy(padded[p:p+line], plain[q:q+line])
			} else {
				copy(plain[q:q+line], padded[p:p+line])
			}
		}
	}
}
