package data

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/espalier-ml/espalier/model"
)

// toy is a set of n byte images of 4×5×c in k classes, from a seed.
func toy(t testing.TB, n, c, k int) *Set {
	t.Helper()
	r := newRandom(7)
	s := &Set{Name: "toy", Shape: model.Shape{4, 5, c}, Classes: numbered(k), TestFrom: n}
	for i := range n {
		s.Labels = append(s.Labels, int32(i%k))
		for range 20 * c {
			s.Images = append(s.Images, uint8(r.intn(256)))
		}
	}
	return s
}

func mustSplit(t testing.TB, s *Set, o SplitOptions) *Set {
	t.Helper()
	if err := s.Split(o); err != nil {
		t.Fatal(err)
	}
	return s
}

// realData is the folder of real data sets, or skips the test.
func realData(t testing.TB, elem ...string) string {
	t.Helper()
	root := os.Getenv("ESPALIER_TEST_DATA")
	if root == "" {
		root = "../../../shared/data"
	}
	path := filepath.Join(append([]string{root}, elem...)...)
	if _, err := os.Stat(path); err != nil {
		t.Skipf("SKIPPED, NOT TESTED: real data is absent (set ESPALIER_TEST_DATA): %v", err)
	}
	return path
}

func idxBytes(values []byte, dims ...int) []byte {
	b := []byte{0, 0, 8, byte(len(dims))}
	for _, d := range dims {
		b = binary.BigEndian.AppendUint32(b, uint32(d))
	}
	return append(b, values...)
}

func gzipped(b []byte) []byte {
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	_, _ = z.Write(b) // a bytes.Buffer does not fail
	z.Close()
	return buf.Bytes()
}

func write(t testing.TB, dir, name string, b []byte) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}
