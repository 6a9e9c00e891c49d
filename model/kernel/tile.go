package kernel

import "unsafe"

// grid is an m by n arrangement of output pixels, all with the same taps: pixel (i, j) reads from a + i*am + j*an and
// writes to c + i*cm + j*cn (in bytes).
type grid struct {
	m, n   int
	a      ptr
	am, an int
	c      ptr
	cm, cn int
}

// run covers the grid with tiles of the micro-kernel for cols columns of the result. The order of the tiles does not
// matter for the result: every output element belongs to one tile.
func (g grid) run(im *tiler, t *tileArgs, cols int) {
	if g.n == 1 || g.m > 1 && tileReach(g.m, g.n, im) < tileReach(g.n, g.m, im) {
		g.m, g.n, g.am, g.an, g.cm, g.cn = g.n, g.m, g.an, g.am, g.cn, g.cm
	}
	t.as, t.cs = g.an, g.cn
	if g.n <= im.half && 2*g.n <= im.mr {
		for i := 0; i < g.m; i += 2 {
			t.a0, t.c0 = unsafe.Add(g.a, i*g.am), unsafe.Add(g.c, i*g.cm)
			h1 := 0
			if i+1 < g.m {
				h1 = g.n
			}
			t.second(g.am, g.cm, h1)
			im.tile(t, g.n, h1, cols)
		}
		return
	}
	step := evenStep(g.n, im.mr)
	for i := range g.m {
		ai, ci := unsafe.Add(g.a, i*g.am), unsafe.Add(g.c, i*g.cm)
		for j := 0; j < g.n; j += step {
			h0, h1 := halves(min(step, g.n-j))
			t.a0, t.c0 = unsafe.Add(ai, j*g.an), unsafe.Add(ci, j*g.cn)
			t.second(h0*g.an, h0*g.cn, h1)
			im.tile(t, h0, h1, cols)
		}
	}
}

// second sets the bases of the second half, a and c bytes after the first. With no rows in it they stay in place: a
// pointer past the end of its slice must never exist, because the garbage collector may look at it.
func (t *tileArgs) second(a, c, rows int) {
	t.a1, t.c1 = t.a0, t.c0
	if rows > 0 {
		t.a1, t.c1 = unsafe.Add(t.a0, a), unsafe.Add(t.c0, c)
	}
}

// tileReach is how many pixels a tile covers on n lines of m pixels; more is faster.
func tileReach(n, m int, im *tiler) int {
	if 2*m <= im.mr && m <= im.half && n > 1 {
		return 2 * m
	}
	return evenStep(m, im.mr)
}

// evenStep returns the step of at most limit that covers n in the fewest, most even parts.
func evenStep(n, limit int) int {
	parts := (n + limit - 1) / limit
	return (n + parts - 1) / parts
}

// halves splits m rows for the two base pointers of a tile.
func halves(m int) (h0, h1 int) { return (m + 1) / 2, m / 2 }

// matrix is a product c[m×n] = a[m×k] · b[k×n] with element (i, p) of a at a + i*as + p*ak, rows of b ldb and rows of c
// ldc apart (in elements).
type matrix struct {
	m, n, k int
	a       ptr
	as, ak  int
	b       ptr
	ldb     int
	c       ptr
	ldc     int
}

// aliases reports whether rows this many elements apart compete for the same few lines of a first-level cache.
func aliases(stride int) bool { return stride > 0 && stride%512 == 0 }

func (x matrix) run(im *impl, s *Scratch, bias ptr, flags uint64) {
	if x.k == 0 {
		x.runEmpty(im, s, bias, flags)
		return
	}
	t := &s.tile
	*t = tileArgs{k: x.k, k2: 1, k3: 1, as: 4 * x.as, ak: 4 * x.ak, cs: 4 * x.ldc, flags: flags}
	if x.ak == 1 && aliases(x.as) && x.m > 4 && x.n > 8 {
		x.spreadA(s)
		t.as = 4 * x.as
	}
	step := evenStep(x.m, im.mr)
	for j := 0; j < x.n; {
		n := im.width(step, x.n-j)
		t.b, t.bk, t.bias = at(x.b, j), 4*x.ldb, atOrNil(bias, j)
		if x.scattered(n) && x.m >= 2*im.mr && x.n > n {
			x.packB(s, t, j, n)
		}
		for i := 0; i < x.m; i += step {
			h0, h1 := halves(min(step, x.m-i))
			t.a0, t.c0 = at(x.a, i*x.as), at(x.c, i*x.ldc+j)
			t.second(4*h0*x.as, 4*h0*x.ldc, h1)
			im.tile(t, h0, h1, n)
		}
		j += n
	}
}

// scattered reports whether a panel of n columns of b makes poor use of the first-level cache where it lies: its rows
// compete for lines, or are single lines far apart and many.
func (x *matrix) scattered(n int) bool {
	return aliases(x.ldb) || n <= 16 && x.ldb >= 64 && x.k >= 256
}

// spreadA copies the rows of a to where they do not compete for cache lines.
func (x *matrix) spreadA(s *Scratch) {
	ld := x.k + 16
	s.spread = grow(s.spread, x.m*ld)
	for i := range x.m {
		copy(s.spread[i*ld:i*ld+x.k], floats(at(x.a, i*x.as), x.k))
	}
	x.a, x.as = addr(s.spread, 0), ld
}

// packB copies columns [j, j+n) of b next to each other.
func (x *matrix) packB(s *Scratch, t *tileArgs, j, n int) {
	s.panel = grow(s.panel, x.k*n)
	t.b, t.bk = addr(s.panel, 0), 4*n
	if n%16 == 0 { // without a call per row
		for p := range x.k {
			for q := 0; q < n; q += 16 {
				*(*[16]float32)(at(t.b, p*n+q)) = *(*[16]float32)(at(x.b, p*x.ldb+j+q))
			}
		}
		return
	}
	for p := range x.k {
		copy(s.panel[p*n:(p+1)*n], floats(at(x.b, p*x.ldb+j), n))
	}
}

// runEmpty is a product over no terms: a zero row of b stands in.
func (x matrix) runEmpty(im *impl, s *Scratch, bias ptr, flags uint64) {
	s.pack = grow(s.pack, max(len(s.pack), x.n+1))
	clear(s.pack[:x.n+1])
	x.k, x.a, x.as, x.b = 1, addr(s.pack, 0), 0, addr(s.pack, 1)
	x.run(im, s, bias, flags)
}
