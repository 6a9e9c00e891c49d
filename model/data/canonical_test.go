package data

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/espalier-ml/espalier/model"
)

func canonical(t testing.TB, s *Set) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := WriteCanonical(&b, s); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// sealed replaces the header of a canonical file and its checksum.
func sealed(b []byte, replace, with string) []byte {
	n := binary.LittleEndian.Uint32(b[8:])
	header := strings.Replace(string(b[12:12+n]), replace, with, 1)
	out := binary.LittleEndian.AppendUint32([]byte(canonicalMagic), uint32(len(header)))
	out = append(append(out, header...), b[12+n:len(b)-32]...)
	sum := sha256.Sum256(out)
	return append(out, sum[:]...)
}

func TestCanonicalRoundTrip(t *testing.T) {
	images := toy(t, 120, 3, 4)
	images.TestFrom = 100
	grouped := toy(t, 90, 1, 3)
	for i := range grouped.Labels {
		grouped.Groups = append(grouped.Groups, int32(i/5))
	}
	features := &Set{Name: "f", Shape: model.Shape{2}, Classes: []string{"a<b", "ü"}, TestFrom: 50}
	for i := range 50 {
		features.Features = append(features.Features, float32(i), -float32(i)/3)
		features.Labels = append(features.Labels, int32(i%2))
	}
	for _, s := range []*Set{images, grouped, features} {
		b := canonical(t, s)
		o := SplitOptions{Seed: 9, Validation: 0.2}
		mustSplit(t, s, o)
		got, err := ReadCanonical(bytes.NewReader(b), Options{Split: o})
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, s) {
			t.Errorf("%s: came back different", s.Name)
		}
		if !bytes.Equal(canonical(t, got), b) {
			t.Errorf("%s: writing again gave other bytes", s.Name)
		}
	}
}

func TestCanonicalBytesAreFixed(t *testing.T) {
	const golden = "42eddf031913ff50f5f994a02733502f3dd1c51e0feb8eaedd0f9680f87f6907" // a change breaks every stored hash
	if got := fmt.Sprintf("%x", sha256.Sum256(canonical(t, toy(t, 50, 1, 4)))); got != golden {
		t.Errorf("hash %s: want %s", got, golden)
	}
	s := &Set{Name: "nan", Shape: model.Shape{1}, Classes: numbered(2), Labels: []int32{0, 1}, TestFrom: 2}
	s.Features = []float32{math.Float32frombits(0x7fc00001), 1}
	a := canonical(t, s)
	s.Features[0] = math.Float32frombits(0xffc00000)
	if !bytes.Equal(a, canonical(t, s)) {
		t.Error("two kinds of NaN gave different bytes")
	}
}

func TestReadCanonicalRefuses(t *testing.T) {
	good := canonical(t, toy(t, 60, 1, 3))
	flipped := slices.Clone(good)
	flipped[300] ^= 1
	for name, test := range map[string]struct {
		b    []byte
		opt  Options
		want error
		text string
	}{
		"empty":          {nil, Options{}, ErrTruncated, "header"},
		"magic":          {append([]byte("ESPDATA9"), good[8:]...), Options{}, ErrFormat, "ESPDATA9"},
		"long header":    {append(slices.Clone(good[:8]), 255, 255, 255, 255), Options{}, ErrTooLarge, "header"},
		"one bit":        {flipped, Options{}, ErrFormat, "checksum"},
		"trailing":       {append(slices.Clone(good), 1), Options{}, ErrTooLarge, ""},
		"limit":          {good, Options{MaxBytes: 1000}, ErrTooLarge, "1200 bytes"},
		"version":        {sealed(good, `"version":1`, `"version":2`), Options{}, ErrFormat, "version 2"},
		"kind":           {sealed(good, `uint8`, `int8`), Options{}, ErrFormat, `"int8"`},
		"unknown field":  {sealed(good, `"name"`, `"nome"`), Options{}, ErrFormat, "nome"},
		"samples":        {sealed(good, `"samples":60`, `"samples":61`), Options{}, ErrTruncated, ""},
		"absurd samples": {sealed(good, `"samples":60`, `"samples":2000000000`), Options{MaxBytes: 1 << 60}, ErrTruncated, "samples"},
		"no samples":     {sealed(good, `"samples":60`, `"samples":-1`), Options{}, ErrFormat, "-1 samples"},
		"shape":          {sealed(good, `"shape":[4,5,1]`, `"shape":[4,-5,1]`), Options{}, ErrFormat, "-5"},
		"flat shape":     {sealed(good, `"shape":[4,5,1]`, `"shape":[4,5]`), Options{}, ErrFormat, "[4 5]"},
		"classes":        {sealed(good, `["0","1","2"]`, `["0","1"]`), Options{}, ErrFormat, "label 2"},
		"test from":      {sealed(good, `"test_from":60`, `"test_from":61`), Options{}, ErrFormat, "61"},
		"split":          {good, Options{Split: SplitOptions{Test: 7}}, ErrOption, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := ReadCanonical(bytes.NewReader(test.b), test.opt); !errors.Is(err, test.want) || !strings.Contains(fmt.Sprint(err), test.text) {
				t.Errorf("error %v: want %v with %q", err, test.want, test.text)
			}
		})
	}
	for n := range len(good) {
		if _, err := ReadCanonical(bytes.NewReader(good[:n]), Options{}); !errors.Is(err, ErrTruncated) {
			t.Fatalf("cut to %d bytes: error %v: want %v", n, err, ErrTruncated)
		}
	}
}

// fullDisk fails after n bytes.
type fullDisk struct{ n int }

var errFull = errors.New("no space left")

func (d *fullDisk) Write(b []byte) (int, error) {
	if d.n -= len(b); d.n < 0 {
		return 0, errFull
	}
	return len(b), nil
}

func TestWriteCanonicalReportsAFullDisk(t *testing.T) {
	s := toy(t, 60, 1, 3)
	size := len(canonical(t, s))
	for _, n := range []int{0, 100, size - 33, size - 1} {
		if err := WriteCanonical(&fullDisk{n}, s); !errors.Is(err, errFull) {
			t.Errorf("disk of %d bytes: error %v", n, err)
		}
	}
	if err := WriteCanonical(&fullDisk{size}, s); err != nil {
		t.Error(err)
	}
	s.Labels[0] = 99
	if err := WriteCanonical(io.Discard, s); !errors.Is(err, ErrFormat) {
		t.Errorf("wrote an invalid set: %v", err)
	}
}

func FuzzCanonical(f *testing.F) {
	good := canonical(f, toy(f, 30, 1, 3))
	f.Add(good)
	f.Add(sealed(good, `"samples":30`, `"samples":2000000000`))
	f.Add(sealed(good, `"grouped":false`, `"grouped":true`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ReadCanonical(bytes.NewReader(b), Options{MaxBytes: 1 << 20})
		if err == nil && s.Validate() != nil {
			t.Error("read an invalid set")
		}
		if err != nil && !errors.Is(err, ErrFormat) && !errors.Is(err, ErrTruncated) && !errors.Is(err, ErrTooLarge) && !errors.Is(err, ErrNoData) {
			t.Errorf("error of no known kind: %v", err)
		}
	})
}
