package data

import (
	"archive/zip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/espalier-ml/espalier/model"
)

// array is the content of one NPY file: bytes, floats or integers.
type array struct {
	dims   []int
	bytes  []byte
	floats []float32
	ints   []int64
}

var (
	npyDescr   = regexp.MustCompile(`'descr'\s*:\s*'([^']*)'`)
	npyFortran = regexp.MustCompile(`'fortran_order'\s*:\s*(True|False)`)
	npyShape   = regexp.MustCompile(`'shape'\s*:\s*\(([0-9,\sL]*)\)`)
)

// readNPY reads NumPy's NPY format, versions 1 to 3, of unsigned bytes, floats of
// 32 or 64 bits, or integers of 16, 32 or 64 bits, little-endian and in C order.
func readNPY(r io.Reader, limit int64) (*array, error) {
	descr, dims, err := readNPYHeader(r)
	if err != nil {
		return nil, err
	}
	n := int64(1)
	for _, d := range dims {
		if d < 0 || d > 0 && n > math.MaxInt32/int64(d) {
			return nil, fmt.Errorf("%w: shape %v", ErrTooLarge, dims)
		}
		n *= int64(d)
	}
	width, ok := map[string]int64{"|u1": 1, "|b1": 1, "<u2": 2, "<i2": 2, "<f4": 4, "<i4": 4, "<f8": 8, "<i8": 8}[descr]
	if !ok {
		return nil, fmt.Errorf("%w: type %q: want |u1, <f4, <f8, <i2, <u2, <i4 or <i8", ErrFormat, descr)
	}
	if err := withinLimit(n*width, limit); err != nil {
		return nil, err
	}
	a := &array{dims: dims}
	if err := a.fill(r, descr, n); err != nil {
		return nil, err
	}
	return a, atEnd(r)
}

// fill reads n values of the type.
func (a *array) fill(r io.Reader, descr string, n int64) (err error) {
	switch descr {
	case "|u1", "|b1":
		a.bytes, err = readBytes(r, n)
	case "<f4":
		a.floats, err = readWords(r, n, math.Float32frombits)
	case "<i4":
		a.ints, err = readWords(r, n, func(v uint32) int64 { return int64(int32(v)) })
	case "<f8", "<i8":
		var raw []byte
		if raw, err = readBytes(r, 8*n); err != nil {
			return err
		}
		for ; len(raw) > 0; raw = raw[8:] {
			if v := binary.LittleEndian.Uint64(raw); descr == "<i8" {
				a.ints = append(a.ints, int64(v))
			} else {
				a.floats = append(a.floats, float32(math.Float64frombits(v)))
			}
		}
	default: // "<u2", "<i2"
		var raw []byte
		if raw, err = readBytes(r, 2*n); err != nil {
			return err
		}
		for ; len(raw) > 0; raw = raw[2:] {
			v := binary.LittleEndian.Uint16(raw)
			if descr == "<i2" {
				a.ints = append(a.ints, int64(int16(v)))
			} else {
				a.ints = append(a.ints, int64(v))
			}
		}
	}
	return err
}

func readNPYHeader(r io.Reader) (descr string, dims []int, err error) {
	head, err := readBytes(r, 8)
	if err != nil {
		return "", nil, err
	}
	if string(head[:6]) != "\x93NUMPY" || head[6] < 1 || head[6] > 3 {
		return "", nil, fmt.Errorf("%w: magic %q: want NPY of version 1 to 3", ErrFormat, head)
	}
	size := int64(0)
	if head[6] == 1 {
		raw, err := readBytes(r, 2)
		if err != nil {
			return "", nil, err
		}
		size = int64(binary.LittleEndian.Uint16(raw))
	} else {
		raw, err := readBytes(r, 4)
		if err != nil {
			return "", nil, err
		}
		size = int64(binary.LittleEndian.Uint32(raw))
	}
	if size > 1<<16 {
		return "", nil, fmt.Errorf("%w: header of %d bytes", ErrTooLarge, size)
	}
	text, err := readBytes(r, size)
	if err != nil {
		return "", nil, err
	}
	d, f, s := npyDescr.FindSubmatch(text), npyFortran.FindSubmatch(text), npyShape.FindSubmatch(text)
	if d == nil || f == nil || s == nil {
		return "", nil, fmt.Errorf("%w: header %.200q: want descr, fortran_order and shape", ErrFormat, text)
	}
	if string(f[1]) == "True" {
		return "", nil, fmt.Errorf("%w: fortran_order: want an array in C order", ErrFormat)
	}
	for part := range strings.SplitSeq(string(s[1]), ",") {
		if part = strings.TrimSuffix(strings.TrimSpace(part), "L"); part == "" {
			continue
		}
		v, err := strconv.Atoi(part)
		if err != nil || v > math.MaxInt32 {
			return "", nil, fmt.Errorf("%w: shape (%s)", ErrFormat, s[1])
		}
		dims = append(dims, v)
	}
	return string(d[1]), dims, nil
}

// npyNames are the names of arrays, without .npy: samples and labels of a part.
var npyNames = map[string][2][]string{
	"train": {{"x_train", "X_train", "train_images", "x", "X"}, {"y_train", "Y_train", "train_labels", "y", "Y"}},
	"test":  {{"x_test", "X_test", "test_images"}, {"y_test", "Y_test", "test_labels"}},
}

// arrays finds the first array of the given names.
type arrays func(names []string, limit int64) (*array, error)

var errNoArray = errors.New("no such array")

// openArrays assembles a set from arrays of samples and labels.
func openArrays(find arrays, limit int64) (*Set, error) {
	s := &Set{}
	for _, part := range []string{"train", "test"} {
		names := npyNames[part]
		x, err := find(names[0], limit-s.SizeBytes())
		if errors.Is(err, errNoArray) && part == "test" {
			break
		}
		var y *array
		if err == nil {
			y, err = find(names[1], limit)
		}
		if errors.Is(err, errNoArray) {
			return nil, fmt.Errorf("%w: %s arrays: want one of %v and one of %v", ErrNoData, part, names[0], names[1])
		}
		if err != nil {
			return nil, err
		}
		if err := s.appendArrays(x, y); err != nil {
			return nil, fmt.Errorf("%s arrays: %w", part, err)
		}
		if part == "train" {
			s.TestFrom = s.Len()
		}
	}
	return s, nil
}

func (s *Set) appendArrays(x, y *array) error {
	if len(x.dims) < 2 || len(x.dims) > 4 || slices.Min(x.dims) < 1 {
		return fmt.Errorf("%w: samples of shape %v: want {N, features}, {N, H, W} or {N, H, W, C}", ErrFormat, x.dims)
	}
	shape := model.Shape(slices.Clone(x.dims[1:]))
	if len(shape) == 2 {
		shape = append(shape, 1)
	}
	if s.Shape == nil {
		s.Shape = shape
	}
	if !shape.Equal(s.Shape) {
		return fmt.Errorf("%w: samples of %v after samples of %v", ErrFormat, []int(shape), []int(s.Shape))
	}
	for _, v := range x.ints {
		x.floats = append(x.floats, float32(v))
	}
	if s.Len() > 0 && (s.Images == nil) != (x.bytes == nil) {
		return fmt.Errorf("%w: bytes and numbers mixed", ErrFormat)
	}
	n := x.dims[0]
	if len(y.dims) == 0 || y.dims[0] != n || len(y.ints)+len(y.bytes) != n {
		return fmt.Errorf("%w: labels of shape %v for %d samples: want one whole number for each", ErrFormat, y.dims, n)
	}
	s.Images, s.Features = append(s.Images, x.bytes...), append(s.Features, x.floats...)
	for _, v := range y.bytes {
		s.Labels = append(s.Labels, int32(v))
	}
	for i, v := range y.ints {
		if v < 0 || v >= MaxClasses {
			return fmt.Errorf("%w: label %d of sample %d: want 0 to %d", ErrFormat, v, i, MaxClasses-1)
		}
		s.Labels = append(s.Labels, int32(v))
	}
	return nil
}

func withSuffix(names []string, suffix string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = n + suffix
	}
	return out
}

func hasNPY(dir string) bool { return findAny(dir, withSuffix(npyNames["train"][0], ".npy")) != "" }

// openNPY reads a folder with one file per array.
func openNPY(dir string, o Options) (*Set, error) {
	return openArrays(func(names []string, limit int64) (a *array, err error) {
		path := findAny(dir, withSuffix(names, ".npy"))
		if path == "" {
			return nil, errNoArray
		}
		err = withFile(path, func(r io.Reader) error { a, err = readNPY(r, limit); return err })
		return a, err
	}, o.MaxBytes)
}

// npzFile finds the only archive in dir.
func npzFile(dir string) (found string) {
	entries, _ := os.ReadDir(dir) // a folder that cannot be read holds none
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".npz") {
			if found != "" {
				return ""
			}
			found = filepath.Join(dir, e.Name())
		}
	}
	return found
}

func hasNPZ(dir string) bool { return npzFile(dir) != "" }

func openNPZFolder(dir string, o Options) (*Set, error) { return openNPZ(npzFile(dir), o) }

// openNPZ reads an archive of arrays, as NumPy's savez makes it.
func openNPZ(path string, o Options) (*Set, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	s, err := readNPZ(f, st.Size(), o.MaxBytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

func readNPZ(r io.ReaderAt, size, limit int64) (*Set, error) {
	z, err := zip.NewReader(r, size)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return openArrays(func(names []string, limit int64) (*array, error) {
		for _, name := range withSuffix(names, ".npy") {
			for _, entry := range z.File {
				if entry.Name != name {
					continue
				}
				r, err := entry.Open()
				if err != nil {
					return nil, fmt.Errorf("%s: %w", name, corrupt(err))
				}
				defer r.Close()
				a, err := readNPY(r, limit)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", name, err)
				}
				return a, nil
			}
		}
		return nil, errNoArray
	}, limit)
}
