package data

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/espalier-ml/espalier/model"
)

// idxFolder is a folder of n training and m test images of 3×2 pixels.
func idxFolder(t testing.TB, n, m int, suffix string, wrap func([]byte) []byte) string {
	dir := t.TempDir()
	for part, count := range map[string]int{"train": n, "t10k": m} {
		if count == 0 {
			continue
		}
		pixels, labels := make([]byte, count*6), make([]byte, count)
		for i := range pixels {
			pixels[i] = byte(i * 31)
		}
		for i := range labels {
			labels[i] = byte(i % 4)
		}
		write(t, dir, part+"-images-idx3-ubyte"+suffix, wrap(idxBytes(pixels, count, 3, 2)))
		write(t, dir, part+"-labels-idx1-ubyte"+suffix, wrap(idxBytes(labels, count)))
	}
	return dir
}

func plain(b []byte) []byte { return b }

func TestOpenIDX(t *testing.T) {
	for _, suffix := range []string{"", ".gz"} {
		wrap := plain
		if suffix != "" {
			wrap = gzipped
		}
		dir := idxFolder(t, 80, 20, suffix, wrap)
		write(t, dir, "classes.txt", []byte("shirt\nboot\n\nbag\ncoat\n"))
		s, err := Open(dir, Options{Name: "toy"})
		if err != nil {
			t.Fatal(err)
		}
		if s.Name != "toy" || s.Len() != 100 || s.TestFrom != 80 || !s.Shape.Equal(model.Shape{3, 2, 1}) || !slices.Equal(s.Classes, []string{"shirt", "boot", "bag", "coat"}) {
			t.Errorf("%q %d %d %v %v", s.Name, s.Len(), s.TestFrom, s.Shape, s.Classes)
		}
		if len(s.Test) != 20 || len(s.Validation) != 8 || s.Images[1] != 31 {
			t.Errorf("%d test, %d validation", len(s.Test), len(s.Validation))
		}
	}
	s, err := Open(idxFolder(t, 100, 0, "", plain), Options{})
	if err != nil || len(s.Test) == 0 || len(s.Classes) != 4 {
		t.Errorf("without test files: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	pixels := idxBytes(make([]byte, 600), 100, 3, 2)
	broken := gzipped(pixels)
	broken[len(broken)-6] ^= 1 // in the checksum
	cut := gzipped(pixels)
	cut = cut[:len(cut)-9]
	bomb := gzipped(append(pixels, make([]byte, 1<<20)...))
	for name, test := range map[string]struct {
		file  string
		bytes []byte
		opt   Options
		want  error
		text  string
	}{
		"truncated":         {"train-images-idx3-ubyte", pixels[:500], Options{}, ErrTruncated, "484 bytes of 600"},
		"truncated header":  {"train-images-idx3-ubyte", pixels[:7], Options{}, ErrTruncated, ""},
		"empty":             {"train-images-idx3-ubyte", nil, Options{}, ErrTruncated, ""},
		"trailing":          {"train-images-idx3-ubyte", append(slices.Clone(pixels), 0), Options{}, ErrTooLarge, "more bytes"},
		"magic":             {"train-images-idx3-ubyte", append([]byte{0, 0, 9, 3}, pixels[4:]...), Options{}, ErrFormat, "00000903"},
		"counts differ":     {"train-images-idx3-ubyte", idxBytes(make([]byte, 90*6), 90, 3, 2), Options{}, ErrFormat, "for 90 images"},
		"zero images":       {"train-images-idx3-ubyte", idxBytes(nil, 0, 3, 2), Options{}, ErrFormat, "dimension 0"},
		"absurd count":      {"train-images-idx3-ubyte", idxBytes(nil, 1<<29, 300, 200), Options{}, ErrTooLarge, "at most"},
		"promises too much": {"train-images-idx3-ubyte", idxBytes(nil, 1<<20, 30, 20), Options{}, ErrTruncated, "0 bytes of"},
		"over the limit":    {"train-images-idx3-ubyte", pixels, Options{MaxBytes: 599}, ErrTooLarge, "at most 599"},
		"gzip checksum":     {"train-images-idx3-ubyte.gz", broken, Options{}, ErrFormat, "checksum"},
		"gzip truncated":    {"train-images-idx3-ubyte.gz", cut, Options{}, ErrTruncated, ""},
		"gzip too long":     {"train-images-idx3-ubyte.gz", bomb, Options{}, ErrTooLarge, ""},
		"not gzip":          {"train-images-idx3-ubyte.gz", pixels, Options{}, ErrFormat, "gzip"},
		"test shape":        {"t10k-images-idx3-ubyte", idxBytes(make([]byte, 120), 20, 2, 3), Options{}, ErrFormat, "after images of"},
		"test label":        {"t10k-labels-idx1-ubyte", idxBytes(append(make([]byte, 19), 4), 20), Options{}, ErrFormat, "label 4 of sample 119: want 0 to 3"},
		"label and names":   {"classes.txt", []byte("a\nb\nc\n"), Options{}, ErrFormat, "label 3 of sample 3: want 0 to 2"},
		"split":             {"unused", nil, Options{Split: SplitOptions{Test: 2}}, ErrOption, "test fraction 2"},
		"negative limit":    {"unused", nil, Options{MaxBytes: -1}, ErrOption, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := idxFolder(t, 100, 20, "", plain)
			write(t, dir, test.file, test.bytes)
			if strings.HasSuffix(test.file, ".gz") {
				if err := os.Remove(filepath.Join(dir, strings.TrimSuffix(test.file, ".gz"))); err != nil {
					t.Fatal(err)
				}
			}
			s, err := Open(dir, test.opt)
			if s != nil || !errors.Is(err, test.want) || !strings.Contains(fmt.Sprint(err), test.text) {
				t.Errorf("error %v: want %v with %q", err, test.want, test.text)
			}
		})
	}
}

func TestOpenSaysWhatItLookedFor(t *testing.T) {
	dir := t.TempDir()
	_, err := Open(dir, Options{})
	if !errors.Is(err, ErrNoData) || !strings.Contains(err.Error(), "train-images-idx3-ubyte") || !strings.Contains(err.Error(), "data_batch_") {
		t.Errorf("error %v", err)
	}
	if _, err := Open(filepath.Join(dir, "nowhere"), Options{}); !errors.Is(err, ErrNoData) {
		t.Errorf("error %v", err)
	}
	write(t, dir, "train-images-idx3-ubyte", idxBytes(make([]byte, 6), 1, 3, 2))
	if _, err := Open(dir, Options{}); !errors.Is(err, ErrNoData) || !strings.Contains(err.Error(), "train-labels") {
		t.Errorf("images without labels: error %v", err)
	}
}

// cifarBytes is n records; byte p of plane c of record i is i+p+50c.
func cifarBytes(n int) []byte {
	var b []byte
	for i := range n {
		b = append(b, byte(i%10))
		for c := range 3 {
			for p := range cifarPlane {
				b = append(b, byte(i+p+50*c))
			}
		}
	}
	return b
}

func TestOpenCIFAR(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "data_batch_1.bin", cifarBytes(40))
	write(t, dir, "data_batch_2.bin", cifarBytes(60))
	write(t, dir, "test_batch.bin", cifarBytes(20))
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if s.Len() != 120 || s.TestFrom != 100 || len(s.Classes) != 10 || s.Labels[41] != 1 {
		t.Errorf("%d samples, test from %d, %v", s.Len(), s.TestFrom, s.Classes)
	}
	if got := s.Images[3072*42+3*7 : 3072*42+3*7+3]; !slices.Equal(got, []byte{9, 59, 109}) {
		t.Errorf("pixel 7 of sample 42 is %v: want 9 59 109", got)
	}

	write(t, dir, "batches.meta.txt", []byte("a\nb\nc\n"))
	if _, err := Open(dir, Options{}); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "label 3 of record 3: want 0 to 2") {
		t.Errorf("label out of range: %v", err)
	}
	write(t, dir, "batches.meta.txt", []byte(strings.Repeat("x\n", 10)))
	write(t, dir, "data_batch_2.bin", cifarBytes(60)[:5000])
	if _, err := Open(dir, Options{}); !errors.Is(err, ErrTruncated) || !strings.Contains(err.Error(), "data_batch_2.bin") {
		t.Errorf("truncated: %v", err)
	}
	write(t, dir, "data_batch_2.bin", nil)
	if _, err := Open(dir, Options{}); !errors.Is(err, ErrTruncated) {
		t.Errorf("empty: %v", err)
	}
	if _, err := Open(dir, Options{MaxBytes: 1000}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("limit: %v", err)
	}
}

func TestRealFashionMNIST(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED, NOT TESTED: unpacking Fashion-MNIST takes seconds")
	}
	s, err := Open(realData(t, "fashion-mnist"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if s.Len() != 70000 || s.TestFrom != 60000 || len(s.Validation) != 6000 || len(s.Classes) != 10 {
		t.Errorf("%d samples, test from %d, %d for validation", s.Len(), s.TestFrom, len(s.Validation))
	}
	if m, d := s.Mean[0], s.Std[0]; m < 0.285 || m > 0.287 || d < 0.352 || d > 0.354 {
		t.Errorf("mean %v, std %v: want about 0.2860, 0.3530", m, d)
	}
}

func TestRealCIFAR10(t *testing.T) {
	from := realData(t, "cifar-10")
	if _, err := exec.LookPath("xz"); err != nil {
		t.Skipf("SKIPPED, NOT TESTED: CIFAR-10 is packed with xz: %v", err)
	}
	if testing.Short() {
		t.Skip("SKIPPED, NOT TESTED: unpacking CIFAR-10 takes seconds")
	}
	dir := t.TempDir()
	for _, name := range []string{"data_batch_1.bin", "test_batch.bin"} {
		b, err := exec.Command("xz", "-dc", filepath.Join(from, name+".xz")).Output()
		if err != nil {
			t.Fatal(err)
		}
		write(t, dir, name, b)
	}
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if s.Len() != 20000 || s.TestFrom != 10000 {
		t.Errorf("%d samples, test from %d", s.Len(), s.TestFrom)
	}
	for c, want := range []float32{0.4914, 0.4822, 0.4465} {
		if d := s.Mean[c] - want; d > 0.01 || d < -0.01 {
			t.Errorf("channel %d has mean %v: want about %v", c, s.Mean[c], want)
		}
	}
}

func FuzzIDX(f *testing.F) {
	f.Add(idxBytes(make([]byte, 12), 2, 3, 2))
	f.Add(idxBytes(nil, 1<<29, 2, 2))
	f.Fuzz(func(t *testing.T, b []byte) {
		dims, values, err := readIDX(strings.NewReader(string(b)), 1<<20)
		if err == nil && len(values) != model.Shape(dims).Elements() {
			t.Errorf("%d values for %v", len(values), dims)
		}
	})
}

func FuzzCIFAR(f *testing.F) {
	f.Add(cifarBytes(2))
	f.Add(cifarBytes(1)[:100])
	f.Fuzz(func(t *testing.T, b []byte) {
		s := &Set{}
		if err := s.readCIFAR(strings.NewReader(string(b)), 10, 1<<20); err == nil && len(s.Labels)*cifarRecord != len(b) {
			t.Errorf("%d records of %d bytes", len(s.Labels), len(b))
		}
	})
}
