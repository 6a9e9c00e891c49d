package data

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/espalier-ml/espalier/model"
)

// csvText is n rows of two features, a user and a label.
func csvText(n int, label func(int) string) string {
	var b strings.Builder
	b.WriteString("a, b ,user,class\n")
	for i := range n {
		fmt.Fprintf(&b, "%d,%g,u%d,%s\n", i, float64(i)/4, i%7, label(i))
	}
	return b.String()
}

func TestOpenCSV(t *testing.T) {
	dir := t.TempDir()
	color := func(i int) string { return []string{"red", "green", "blue"}[i%3] }
	write(t, dir, "train.csv.gz", gzipped([]byte(csvText(90, color))))
	write(t, dir, "test.csv", []byte(csvText(12, color)))
	s, err := Open(dir, Options{Drop: []string{"user"}})
	if err != nil {
		t.Fatal(err)
	}
	if s.Len() != 102 || s.TestFrom != 90 || !s.Shape.Equal(model.Shape{2}) || !slices.Equal(s.Classes, []string{"blue", "green", "red"}) {
		t.Errorf("%d samples, test from %d, %v, %v", s.Len(), s.TestFrom, s.Shape, s.Classes)
	}
	if !slices.Equal(s.Features[6:8], []float32{3, 0.75}) || s.Labels[3] != 2 {
		t.Errorf("row 3 is %v, label %d", s.Features[6:8], s.Labels[3])
	}

	path := filepath.Join(dir, "one.csv")
	write(t, dir, "one.csv", []byte("\ufeffy,f,user\n10,?,1\n2,NaN,1\n10,3,2\n2,,2\n10,5,3\n2,7,3\n"))
	s, err = Open(path, Options{Group: "user"})
	if err != nil {
		t.Fatal(err)
	}
	if s.Name != "one" || !slices.Equal(s.Classes, []string{"2", "10"}) || !slices.Equal(s.Groups, []int32{0, 0, 1, 1, 2, 2}) || !math.IsNaN(float64(s.Features[0])) || s.Features[2] != 3 {
		t.Errorf("%q %v %v %v", s.Name, s.Classes, s.Groups, s.Features)
	}
}

func TestOpenCSVRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		opt  Options
		want error
		msg  string
	}{
		"empty":           {"", Options{}, ErrTruncated, "names the columns"},
		"no rows":         {"a,label\n", Options{}, ErrNoData, "no rows"},
		"no label":        {"a,b\n1,2\n", Options{}, ErrFormat, "no label column"},
		"label option":    {"a,b\n1,2\n", Options{Label: "c"}, ErrOption, `label column "c"`},
		"group option":    {"a,label\n1,2\n", Options{Group: "c"}, ErrOption, `group column "c"`},
		"drop option":     {"a,label\n1,2\n", Options{Drop: []string{"c"}}, ErrOption, `dropped column "c"`},
		"no feature":      {"a,label\n1,2\n", Options{Drop: []string{"a"}}, ErrFormat, "want a feature"},
		"text":            {"a,label\n1,x\nzwei,y\n", Options{}, ErrFormat, `line 3, column "a": "zwei"`},
		"infinite":        {"a,label\n1e99,x\n", Options{}, ErrFormat, "1e99"},
		"columns":         {"a,label\n1,x\n1,2,3\n", Options{}, ErrFormat, "wrong number of fields"},
		"quote":           {"a,label\n\"1,x\n", Options{}, ErrFormat, "quote"},
		"empty label":     {"a,label\n1,x\n1, \n", Options{}, ErrFormat, "line 3: empty label"},
		"one class":       {"a,label\n1,x\n2,x\n", Options{}, ErrFormat, "1 classes"},
		"limit":           {"a,label\n1,x\n2,x\n", Options{MaxBytes: 7}, ErrTooLarge, "at most 7"},
		"very long field": {"a,label\n" + strings.Repeat("1", maxLine+1), Options{}, ErrTooLarge, "line of more"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x.csv")
			if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if s, err := Open(path, test.opt); s != nil || !errors.Is(err, test.want) || !strings.Contains(fmt.Sprint(err), test.msg) {
				t.Errorf("error %v: want %v with %q", err, test.want, test.msg)
			}
		})
	}
	dir := t.TempDir()
	write(t, dir, "train.csv", []byte("a,label\n1,x\n2,y\n"))
	write(t, dir, "test.csv", []byte("a,label\n1,z\n"))
	if _, err := Open(dir, Options{}); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), `"z", which no training row has`) {
		t.Errorf("unseen label: %v", err)
	}
	write(t, dir, "test.csv", []byte("b,label\n1,x\n"))
	if _, err := Open(dir, Options{}); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "those of the training file") {
		t.Errorf("other columns: %v", err)
	}
	if _, err := Open(idxFolder(t, 80, 0, "", plain), Options{Group: "user"}); !errors.Is(err, ErrOption) {
		t.Errorf("group of IDX: %v", err)
	}
}

func npyBytes(version byte, descr, order, shape string, body []byte) []byte {
	header := fmt.Sprintf("{'descr': '%s', 'fortran_order': %s, 'shape': (%s), }\n", descr, order, shape)
	b := append([]byte("\x93NUMPY"), version, 0)
	if version == 1 {
		b = binary.LittleEndian.AppendUint16(b, uint16(len(header)))
	} else {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(header)))
	}
	return append(append(b, header...), body...)
}

// little encodes values as little-endian words.
func little[T any](values ...T) []byte {
	var b bytes.Buffer
	if err := binary.Write(&b, binary.LittleEndian, values); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func zipped(files map[string][]byte) []byte {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, content := range files {
		w, err := z.Create(name)
		if err == nil {
			_, err = w.Write(content)
		}
		if err != nil {
			panic(err)
		}
	}
	if err := z.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func TestReadNPYTypes(t *testing.T) {
	for _, test := range []struct {
		descr string
		body  []byte
		want  string
	}{
		{"|u1", []byte{1, 2, 250, 4}, "[1 2 250 4] [] []"},
		{"<f4", little[float32](1, -2, 0.5, 4), "[] [1 -2 0.5 4] []"},
		{"<f8", little[float64](1, -2, 0.5, 4), "[] [1 -2 0.5 4] []"},
		{"<i2", little[int16](1, -2, 3, 4), "[] [] [1 -2 3 4]"},
		{"<u2", little[uint16](1, 65535, 3, 4), "[] [] [1 65535 3 4]"},
		{"<i4", little[int32](1, -2, 3, 4), "[] [] [1 -2 3 4]"},
		{"<i8", little[int64](1, -2, 3, 4), "[] [] [1 -2 3 4]"},
	} {
		for version := byte(1); version <= 3; version++ {
			a, err := readNPY(bytes.NewReader(npyBytes(version, test.descr, "False", "2, 2", test.body)), 100)
			if err != nil {
				t.Fatalf("%s: %v", test.descr, err)
			}
			//nolint:staticcheck // the bytes are numbers here, not text
			if got := fmt.Sprint(a.bytes, a.floats, a.ints); got != test.want || !slices.Equal(a.dims, []int{2, 2}) {
				t.Errorf("%s: %s of %v: want %s", test.descr, got, a.dims, test.want)
			}
		}
	}
	for name, test := range map[string]struct {
		b    []byte
		want error
	}{
		"magic":      {[]byte("NUMPY!!!!!!!!!!!"), ErrFormat},
		"version":    {npyBytes(4, "|u1", "False", "1,", []byte{1}), ErrFormat},
		"type":       {npyBytes(1, ">f4", "False", "1,", []byte{1, 2, 3, 4}), ErrFormat},
		"order":      {npyBytes(1, "|u1", "True", "1,", []byte{1}), ErrFormat},
		"shape":      {npyBytes(1, "|u1", "False", "1, x", []byte{1}), ErrFormat},
		"overflow":   {npyBytes(1, "|u1", "False", "99999, 99999", nil), ErrTooLarge},
		"limit":      {npyBytes(1, "|u1", "False", "101,", make([]byte, 101)), ErrTooLarge},
		"truncated":  {npyBytes(1, "<f4", "False", "2,", make([]byte, 7)), ErrTruncated},
		"trailing":   {npyBytes(1, "|u1", "False", "2,", make([]byte, 3)), ErrTooLarge},
		"header cut": {npyBytes(1, "|u1", "False", "2,", nil)[:30], ErrTruncated},
		"long":       {append([]byte("\x93NUMPY\x02\x00"), 255, 255, 255, 255), ErrTooLarge},
	} {
		if _, err := readNPY(bytes.NewReader(test.b), 100); !errors.Is(err, test.want) {
			t.Errorf("%s: error %v: want %v", name, err, test.want)
		}
	}
}

func TestOpenNPYAndNPZ(t *testing.T) {
	pixels, labels := make([]byte, 60*6), make([]int64, 60)
	for i := range labels {
		labels[i] = int64(i % 3)
		pixels[6*i] = byte(i)
	}
	files := map[string][]byte{
		"x_train.npy": npyBytes(1, "|u1", "False", "60, 2, 3", pixels),
		"y_train.npy": npyBytes(1, "<i8", "False", "60, 1", little(labels...)),
		"x_test.npy":  npyBytes(1, "|u1", "False", "10, 2, 3", pixels[:60]),
		"y_test.npy":  npyBytes(1, "|u1", "False", "10,", make([]byte, 10)),
	}
	dir, zdir := t.TempDir(), t.TempDir()
	for name, b := range files {
		write(t, dir, name, b)
	}
	write(t, zdir, "set.npz", zipped(files))
	for _, path := range []string{dir, zdir, filepath.Join(zdir, "set.npz")} {
		s, err := Open(path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if s.Len() != 70 || s.TestFrom != 60 || !s.Shape.Equal(model.Shape{2, 3, 1}) || s.Images[6*59] != 59 || s.Labels[59] != 2 || len(s.Classes) != 3 {
			t.Errorf("%s: %d samples, test from %d, %v", path, s.Len(), s.TestFrom, s.Shape)
		}
	}

	one := t.TempDir()
	write(t, one, "x.npy", npyBytes(1, "<f4", "False", "60, 2", make([]byte, 480)))
	if _, err := Open(one, Options{}); !errors.Is(err, ErrNoData) {
		t.Errorf("samples without labels: %v", err)
	}
	write(t, one, "y.npy", npyBytes(1, "<f4", "False", "60,", make([]byte, 240)))
	if _, err := Open(one, Options{}); !errors.Is(err, ErrFormat) {
		t.Errorf("labels that are floats: %v", err)
	}
	write(t, one, "y.npy", npyBytes(1, "<i8", "False", "60,", little(slices.Repeat([]int64{0, -1}, 30)...)))
	if _, err := Open(one, Options{}); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "label -1 of sample 1") {
		t.Errorf("negative label: %v", err)
	}
	write(t, zdir, "set.npz", zipped(files)[:200])
	if _, err := Open(zdir, Options{}); !errors.Is(err, ErrFormat) {
		t.Errorf("broken archive: %v", err)
	}
}

func TestOpenPictures(t *testing.T) {
	dir := t.TempDir()
	draw := func(i int, grey bool) image.Image {
		if grey {
			m := image.NewGray(image.Rect(0, 0, 3, 2))
			m.SetGray(1, 0, color.Gray{uint8(i)})
			return m
		}
		m := image.NewNRGBA(image.Rect(0, 0, 3, 2))
		m.SetNRGBA(1, 0, color.NRGBA{uint8(i), 20, 30, 255})
		return m
	}
	encode := func(m image.Image) []byte {
		var b bytes.Buffer
		if err := png.Encode(&b, m); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	for i := range 20 {
		for _, class := range []string{"10", "9"} {
			write(t, dir, fmt.Sprintf("train/%s/%02d.png", class, i), encode(draw(i, true)))
		}
	}
	write(t, dir, "test/9/a.png", encode(draw(200, true)))
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if s.Len() != 41 || s.TestFrom != 40 || !s.Shape.Equal(model.Shape{2, 3, 1}) || !slices.Equal(s.Classes, []string{"9", "10"}) || s.Images[40*6+1] != 200 || s.Labels[40] != 0 {
		t.Errorf("%d samples, test from %d, %v, %v", s.Len(), s.TestFrom, s.Shape, s.Classes)
	}
	write(t, dir, "train/9/color.png", encode(draw(7, false)))
	if s, err = Open(dir, Options{}); err != nil || s.Channels() != 3 || !slices.Equal(s.Images[40*18+3:40*18+6], []byte{7, 20, 30}) {
		t.Errorf("with a colour image: %v", err)
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, draw(7, false), nil); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "train/9/photo.JPG", b.Bytes())
	if s, err = Open(dir, Options{}); err != nil || s.Len() != 43 {
		t.Errorf("with a JPEG: %v", err)
	}
	for name, test := range map[string]struct {
		file string
		b    []byte
		want error
	}{
		"other size": {"train/9/z.png", encode(image.NewGray(image.Rect(0, 0, 4, 4))), ErrFormat},
		"not png":    {"train/9/z.png", []byte("hello"), ErrFormat},
		"truncated":  {"train/9/z.png", encode(draw(1, true))[:50], ErrFormat},
		"new class":  {"test/8/z.png", encode(draw(1, true)), ErrFormat},
	} {
		write(t, dir, test.file, test.b)
		if _, err := Open(dir, Options{}); !errors.Is(err, test.want) || !strings.Contains(fmt.Sprint(err), "z.png") {
			t.Errorf("%s: error %v: want %v with the file", name, err, test.want)
		}
		if err := os.Remove(filepath.Join(dir, test.file)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(dir, Options{MaxBytes: 700}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("limit: %v", err)
	}
}

func TestOpenCanonicalFile(t *testing.T) {
	dir := t.TempDir()
	want := toy(t, 60, 1, 3)
	write(t, dir, "somewhere.espdata", canonical(t, want))
	path := filepath.Join(dir, "somewhere.espdata")
	s, err := Open(path, Options{})
	if err != nil || s.Name != "toy" {
		t.Fatalf("name %q, error %v", s.Name, err)
	}
	if s, err = Open(path, Options{Name: "other"}); err != nil || s.Name != "other" {
		t.Errorf("name %q, error %v", s.Name, err)
	}
	write(t, dir, "somewhere.espdata", []byte("something else"))
	if _, err := Open(path, Options{}); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "canonical form was looked for") {
		t.Errorf("error %v", err)
	}
}

func FuzzCSV(f *testing.F) {
	f.Add("a,label,user\n1,x,2\n?,y,3\n")
	f.Add("label\n\"x\ny\"\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, o := range []Options{{MaxBytes: 1 << 20}, {MaxBytes: 1 << 20, Group: "user"}} {
			c := &csvReader{opt: o}
			err := c.read(strings.NewReader(text))
			if err != nil {
				continue
			}
			if s, err := c.set(len(c.labels)); err == nil && len(s.Features) != s.Len()*s.Shape.Elements() {
				t.Errorf("%d values for %d rows of %v", len(s.Features), s.Len(), s.Shape)
			}
		}
	})
}

func FuzzNPY(f *testing.F) {
	f.Add(npyBytes(1, "<f4", "False", "2, 2", make([]byte, 16)))
	f.Add(npyBytes(2, "|u1", "False", "1999999999,", nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := readNPY(bytes.NewReader(b), 1<<20)
		if err == nil && len(a.bytes)+len(a.floats)+len(a.ints) != model.Shape(a.dims).Elements() {
			t.Errorf("values do not fill %v", a.dims)
		}
	})
}

func FuzzNPZ(f *testing.F) {
	f.Add(zipped(map[string][]byte{
		"x.npy": npyBytes(1, "<f4", "False", "2, 2", make([]byte, 16)),
		"y.npy": npyBytes(1, "|u1", "False", "2,", []byte{0, 1}),
	}))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := readNPZ(bytes.NewReader(b), int64(len(b)), 1<<20)
		if err == nil && len(s.Labels) == 0 {
			t.Error("read an empty set")
		}
	})
}
