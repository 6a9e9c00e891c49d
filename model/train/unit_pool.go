package train

import "github.com/espalier-ml/espalier/model/kernel"

// maxPool passes the gradient to the maximum of each window, and, where it is
// the only reader of a ReLU's output, through that ReLU too.
type maxPool struct {
	k    *kernel.Pool
	in   port
	out  *value
	mask kernel.ReLUMask
}

func (u *maxPool) ports() []*port  { return []*port{&u.in} }
func (u *maxPool) result() *value  { return u.out }
func (u *maxPool) reads() []*value { return []*value{u.in.value, u.out} }

func (u *maxPool) forward(w *worker, c chunk) error {
	return u.k.Max(&w.s, u.in.x(w, c.n0, c.n1), u.out.x(w, c.n0, c.n1), 0, c.n1-c.n0)
}

func (u *maxPool) backward(w *worker, c chunk) error {
	if !u.in.needGrad {
		return nil
	}
	dx := u.in.begin(w, c.n0, c.n1)
	if err := u.k.MaxGrad(&w.s, u.in.x(w, c.n0, c.n1), u.out.x(w, c.n0, c.n1), u.out.dy(w, c.n0, c.n1), dx, 0, c.n1-c.n0, u.mask); err != nil {
		return err
	}
	return u.in.end(w, c.n0, c.n1)
}

type avgPool struct {
	k   *kernel.Pool
	in  port
	out *value
}

func (u *avgPool) ports() []*port  { return []*port{&u.in} }
func (u *avgPool) result() *value  { return u.out }
func (u *avgPool) reads() []*value { return nil }

func (u *avgPool) forward(w *worker, c chunk) error {
	return u.k.Avg(&w.s, u.in.x(w, c.n0, c.n1), u.out.x(w, c.n0, c.n1), 0, c.n1-c.n0)
}

func (u *avgPool) backward(w *worker, c chunk) error {
	if !u.in.needGrad {
		return nil
	}
	dx := u.in.begin(w, c.n0, c.n1)
	if err := u.k.AvgGrad(&w.s, u.out.dy(w, c.n0, c.n1), dx, 0, c.n1-c.n0); err != nil {
		return err
	}
	return u.in.end(w, c.n0, c.n1)
}

type globalAvg struct {
	pixels int
	in     port
	out    *value
}

func (u *globalAvg) ports() []*port  { return []*port{&u.in} }
func (u *globalAvg) result() *value  { return u.out }
func (u *globalAvg) reads() []*value { return nil }

func (u *globalAvg) forward(w *worker, c chunk) error {
	return kernel.GlobalAvg(u.in.x(w, c.n0, c.n1), u.out.x(w, c.n0, c.n1), u.pixels, u.out.size, 0, c.n1-c.n0)
}

func (u *globalAvg) backward(w *worker, c chunk) error {
	if !u.in.needGrad {
		return nil
	}
	dx := u.in.begin(w, c.n0, c.n1)
	if err := kernel.GlobalAvgGrad(u.out.dy(w, c.n0, c.n1), dx, u.pixels, u.out.size, 0, c.n1-c.n0); err != nil {
		return err
	}
	return u.in.end(w, c.n0, c.n1)
}
