package data

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/espalier-ml/espalier/model"
)

// The canonical form of a set is one file, all numbers little-endian:
//
//	8 bytes   "ESPDATA1"
//	4 bytes   length of the header
//	          header: canonicalHeader as JSON
//	          samples: bytes, or float32
//	4·N bytes labels, int32
//	4·N bytes group numbers, int32, if the header says grouped
//	32 bytes  SHA-256 of all before
//
// Equal sets give equal bytes, so that the SHA-256 of the file names the data.
// Splits are not in it: with TestFrom and the groups, a seed and the fractions
// give them again (Set.Split).
const canonicalMagic = "ESPDATA1"

// maxCanonicalHeader bounds the header's length.
const maxCanonicalHeader = 16 << 20

type canonicalHeader struct {
	Version  int      `json:"version"`
	Name     string   `json:"name"`
	Kind     string   `json:"kind"` // "uint8" or "float32"
	Shape    []int    `json:"shape"`
	Classes  []string `json:"classes"`
	Samples  int      `json:"samples"`
	TestFrom int      `json:"test_from"`
	Grouped  bool     `json:"grouped"`
}

const (
	kindBytes  = "uint8"
	kindFloats = "float32"
)

// WriteCanonical writes the canonical form of a valid set.
func WriteCanonical(w io.Writer, s *Set) error {
	if err := s.Validate(); err != nil {
		return err
	}
	h := canonicalHeader{
		Version: 1, Name: s.Name, Kind: kindBytes, Shape: s.Shape, Classes: s.Classes,
		Samples: s.Len(), TestFrom: s.TestFrom, Grouped: s.Groups != nil,
	}
	if s.Features != nil {
		h.Kind = kindFloats
	}
	header, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("write canonical form: %w", err)
	}
	if len(header) > maxCanonicalHeader {
		return fmt.Errorf("%w: header of %d bytes: want at most %d", ErrTooLarge, len(header), maxCanonicalHeader)
	}
	sum := sha256.New()
	out := bufio.NewWriterSize(io.MultiWriter(w, sum), 1<<16)
	// A bufio.Writer keeps its first error, which Flush reports.
	out.WriteString(canonicalMagic)
	out.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(header))))
	out.Write(header)
	out.Write(s.Images)
	var word [4]byte
	for _, v := range s.Features {
		binary.LittleEndian.PutUint32(word[:], canonicalBits(v))
		out.Write(word[:])
	}
	for _, list := range [][]int32{s.Labels, s.Groups} {
		for _, v := range list {
			binary.LittleEndian.PutUint32(word[:], uint32(v))
			out.Write(word[:])
		}
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write canonical form: %w", err)
	}
	if _, err := w.Write(sum.Sum(nil)); err != nil {
		return fmt.Errorf("write canonical form: %w", err)
	}
	return nil
}

// canonicalBits is the bit pattern of v, the same for every NaN.
func canonicalBits(v float32) uint32 {
	if v != v {
		return 0x7fc00000
	}
	return math.Float32bits(v)
}

// ReadCanonical reads the canonical form to its end, verifies it and splits it
// by o.Split. Memory stays within the set's own size, which o.MaxBytes bounds,
// and within twice of what was really read; from an *os.File the samples are
// allocated once. The set has the name it was written
// with, or o.Name.
func ReadCanonical(r io.Reader, o Options) (*Set, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	sum := sha256.New()
	held := sizeOf(r)
	src := bufio.NewReaderSize(r, 1<<18)
	hashed := io.TeeReader(src, sum)
	h, err := readCanonicalHeader(hashed)
	if err != nil {
		return nil, fmt.Errorf("canonical header: %w", err)
	}
	s := &Set{Name: h.Name, Shape: h.Shape, Classes: h.Classes, TestFrom: h.TestFrom}
	if o.Name != "" {
		s.Name = o.Name
	}
	if err := s.readCanonicalBody(hashed, h, o.MaxBytes, held); err != nil {
		return nil, err
	}
	want := sum.Sum(nil)
	got, err := readBytes(src, int64(len(want)))
	if err != nil {
		return nil, fmt.Errorf("checksum: %w", err)
	}
	if !bytes.Equal(got, want) {
		return nil, fmt.Errorf("%w: checksum %x: want %x", ErrFormat, got, want)
	}
	if err := atEnd(src); err != nil {
		return nil, err
	}
	if err := s.Split(o.Split); err != nil {
		return nil, err
	}
	return s, nil
}

func readCanonicalHeader(r io.Reader) (h canonicalHeader, err error) {
	head, err := readBytes(r, int64(len(canonicalMagic))+4)
	if err != nil {
		return h, err
	}
	if string(head[:len(canonicalMagic)]) != canonicalMagic {
		return h, fmt.Errorf("%w: magic %q: want %q", ErrFormat, head[:len(canonicalMagic)], canonicalMagic)
	}
	n := binary.LittleEndian.Uint32(head[len(canonicalMagic):])
	if n > maxCanonicalHeader {
		return h, fmt.Errorf("%w: header of %d bytes: want at most %d", ErrTooLarge, n, maxCanonicalHeader)
	}
	raw, err := readBytes(r, int64(n))
	if err != nil {
		return h, err
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&h); err != nil {
		return h, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	switch {
	case h.Version != 1:
		return h, fmt.Errorf("%w: version %d: want 1", ErrFormat, h.Version)
	case h.Kind != kindBytes && h.Kind != kindFloats:
		return h, fmt.Errorf("%w: kind %q: want %q or %q", ErrFormat, h.Kind, kindBytes, kindFloats)
	case h.Samples < 1 || h.Samples > math.MaxInt32:
		return h, fmt.Errorf("%w: %d samples: want 1 to %d", ErrFormat, h.Samples, math.MaxInt32)
	}
	if err := model.Shape(h.Shape).Check(); err != nil {
		return h, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return h, nil
}

func (s *Set) readCanonicalBody(r io.Reader, h canonicalHeader, limit, held int64) error {
	values := int64(h.Samples) * int64(s.Shape.Elements())
	var err error
	if h.Kind == kindBytes {
		if err = withinLimit(values, limit); err != nil {
			return err
		}
		s.Images, err = readBytes(r, values, held)
	} else {
		if err = withinLimit(4*values, limit); err != nil {
			return err
		}
		s.Features, err = readWords(r, values, math.Float32frombits, held)
	}
	if err != nil {
		return fmt.Errorf("samples: %w", err)
	}
	toInt := func(v uint32) int32 { return int32(v) }
	if s.Labels, err = readWords(r, int64(h.Samples), toInt); err != nil {
		return fmt.Errorf("labels: %w", err)
	}
	if h.Grouped {
		if s.Groups, err = readWords(r, int64(h.Samples), toInt); err != nil {
			return fmt.Errorf("groups: %w", err)
		}
	}
	return nil
}

// readWords reads n little-endian words, converting each. Memory grows with what
// was really read, as in readBytes.
func readWords[T any](r io.Reader, n int64, convert func(uint32) T, held ...int64) ([]T, error) {
	if int64(int(n)) != n {
		return nil, fmt.Errorf("%w: %d values", ErrTooLarge, n)
	}
	out := make([]T, 0, min(n, max(firstRead, slices.Max(append(held, 0)))/4))
	chunk := make([]byte, 1<<14)
	for left := n; left > 0; {
		b := chunk[:min(int64(len(chunk)), 4*left)]
		if k, err := io.ReadFull(r, b); err != nil {
			return nil, fmt.Errorf("%d bytes of %d: %w", 4*(n-left)+int64(k), 4*n, corrupt(err))
		}
		if len(out)+len(b)/4 > cap(out) {
			grown := make([]T, len(out), min(n, 2*int64(cap(out))))
			copy(grown, out)
			out = grown
		}
		for ; len(b) > 0; b = b[4:] {
			out = append(out, convert(binary.LittleEndian.Uint32(b)))
			left--
		}
	}
	return out, nil
}
