package safetensors

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/espalier-ml/espalier/model"
)

// Read reads a whole file. It allocates in proportion to the bytes that are really
// there, whatever the header claims. As the format asks, tensors must cover the data
// without holes or overlaps, and nothing may follow. Errors wrap ErrCorrupt,
// ErrTooLarge, ErrType, model.ErrShape or the reader's error.
func Read(r io.Reader, limits Limits) (*File, error) {
	limits = limits.withDefaults()
	header, err := readHeader(r, limits)
	if err != nil {
		return nil, err
	}
	f := &File{Tensors: map[string]*model.Tensor{}}
	entries, err := f.parseHeader(header, limits)
	if err != nil {
		return nil, err
	}
	buf := make([]byte, 1<<16)
	for _, e := range entries {
		t, err := readTensor(r, e.entry, buf)
		if err != nil {
			return nil, fmt.Errorf("tensor %q: %w", e.name, err)
		}
		f.Tensors[e.name] = t
	}
	switch _, err := io.ReadFull(r, buf[:1]); {
	case err == nil:
		return nil, fmt.Errorf("%w: data after the last tensor", ErrCorrupt)
	case !errors.Is(err, io.EOF):
		return nil, fmt.Errorf("read safetensors: %w", err)
	}
	return f, nil
}

func readHeader(r io.Reader, limits Limits) ([]byte, error) {
	var n [8]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return nil, cut("header length", err)
	}
	size := binary.LittleEndian.Uint64(n[:])
	if size > uint64(limits.HeaderBytes) {
		return nil, fmt.Errorf("%w: header of %d bytes: want at most %d", ErrTooLarge, size, limits.HeaderBytes)
	}
	var b bytes.Buffer
	if _, err := io.CopyN(&b, r, int64(size)); err != nil {
		return nil, cut("header", err)
	}
	return b.Bytes(), nil
}

// cut turns an end in the middle into ErrCorrupt.
func cut(what string, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: ends within the %s", ErrCorrupt, what)
	}
	return fmt.Errorf("read safetensors: %s: %w", what, err)
}

type named struct {
	name string
	entry
}

// parseHeader fills f.Meta and returns the entries in the order of their data.
func (f *File) parseHeader(header []byte, limits Limits) ([]named, error) {
	var out []named
	seen := map[string]bool{}
	err := object(header, func(key string, d *json.Decoder) error {
		if seen[key] {
			return fmt.Errorf("%q is there twice", key)
		}
		seen[key] = true
		if key == metaKey {
			return d.Decode(&f.Meta)
		}
		e := named{name: key}
		if err := d.Decode(&e.entry); err != nil {
			return err
		}
		if len(out) >= limits.Tensors {
			return fmt.Errorf("%w: more than %d tensors", ErrTooLarge, limits.Tensors)
		}
		out = append(out, e)
		return nil
	})
	if err != nil {
		if errors.Is(err, ErrTooLarge) {
			return nil, err
		}
		return nil, fmt.Errorf("%w: header: %w", ErrCorrupt, err)
	}
	slices.SortFunc(out, func(a, b named) int {
		if a.Offsets[0] != b.Offsets[0] {
			return int(max(min(a.Offsets[0]-b.Offsets[0], 1), -1))
		}
		return int(max(min(a.Offsets[1]-b.Offsets[1], 1), -1))
	})
	return out, checkEntries(out, limits)
}

func checkEntries(entries []named, limits Limits) error {
	at := int64(0)
	for _, e := range entries {
		width, ok := widths[e.DType]
		if !ok {
			return fmt.Errorf("%w: tensor %q: %q: want F32, F16 or BF16", ErrType, e.name, e.DType)
		}
		if err := model.Shape(e.Shape).Check(); err != nil {
			return fmt.Errorf("tensor %q: %w", e.name, err)
		}
		want := int64(model.Shape(e.Shape).Elements()) * int64(width)
		if e.Offsets[0] != at || e.Offsets[1]-at != want {
			return fmt.Errorf("%w: tensor %q: data_offsets %v: want [%d %d]", ErrCorrupt, e.name, e.Offsets, at, at+want)
		}
		if at = e.Offsets[1]; at > limits.DataBytes {
			return fmt.Errorf("%w: tensor %q ends at byte %d of the data: want at most %d", ErrTooLarge, e.name, at, limits.DataBytes)
		}
	}
	return nil
}

// object walks the members of one JSON object, with nothing after it but white space.
func object(b []byte, member func(key string, d *json.Decoder) error) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return errors.New("want a JSON object")
	}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return err
		}
		key, ok := t.(string)
		if !ok {
			return fmt.Errorf("key %v: want a string", t)
		}
		if err := member(key, d); err != nil {
			return fmt.Errorf("%q: %w", key, err)
		}
	}
	if _, err := d.Token(); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("data after the object")
	}
	return nil
}

var widths = map[string]int{"F32": 4, "F16": 2, "BF16": 2}

// readTensor reads in pieces, so that a false size costs no memory.
func readTensor(r io.Reader, e entry, buf []byte) (*model.Tensor, error) {
	width := widths[e.DType]
	n := model.Shape(e.Shape).Elements()
	t := &model.Tensor{Shape: e.Shape, Data: make([]float32, 0, min(n, 1<<20))}
	for len(t.Data) < n {
		b := buf[:min(len(buf)/width, n-len(t.Data))*width]
		if _, err := io.ReadFull(r, b); err != nil {
			return nil, cut("data", err)
		}
		for i := 0; i < len(b); i += width {
			t.Data = append(t.Data, value(e.DType, b[i:]))
		}
	}
	return t, nil
}

func value(dtype string, b []byte) float32 {
	switch dtype {
	case "F16":
		return half(binary.LittleEndian.Uint16(b))
	case "BF16":
		return math.Float32frombits(uint32(binary.LittleEndian.Uint16(b)) << 16)
	}
	return math.Float32frombits(binary.LittleEndian.Uint32(b))
}

// half widens an IEEE 754 binary16.
func half(h uint16) float32 {
	sign, exponent, fraction := uint32(h>>15)<<31, uint32(h>>10)&31, uint32(h)&1023
	switch exponent {
	case 31:
		return math.Float32frombits(sign | 0x7f800000 | fraction<<13)
	case 0: // zero or subnormal: fraction · 2⁻²⁴
		v := float32(fraction) * (1.0 / (1 << 24))
		return math.Float32frombits(sign | math.Float32bits(v))
	}
	return math.Float32frombits(sign | (exponent+112)<<23 | fraction<<13)
}
