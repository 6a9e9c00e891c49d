package safetensors

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"unicode/utf8"
)

// Write writes f; equal files give equal bytes, tensors in the order of their names.
// Errors wrap ErrName, model.ErrShape or the writer's error.
func Write(w io.Writer, f *File) error {
	names := slices.Sorted(maps.Keys(f.Tensors))
	header, err := f.header(names)
	if err != nil {
		return err
	}
	b := bufio.NewWriterSize(w, 1<<16)
	var n [8]byte
	binary.LittleEndian.PutUint64(n[:], uint64(len(header)))
	b.Write(n[:]) // bufio keeps the first error for Flush
	b.Write(header)
	for _, name := range names {
		for _, v := range f.Tensors[name].Data {
			binary.LittleEndian.PutUint32(n[:4], math.Float32bits(v))
			b.Write(n[:4])
		}
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("write safetensors: %w", err)
	}
	return nil
}

func (f *File) header(names []string) ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	if len(f.Meta) > 0 {
		for k, v := range f.Meta {
			if !utf8.ValidString(k) || !utf8.ValidString(v) {
				return nil, fmt.Errorf("%w: metadata %q: want UTF-8", ErrName, k)
			}
		}
		if err := member(&b, metaKey, f.Meta); err != nil {
			return nil, err
		}
	}
	at := int64(0)
	for _, name := range names {
		t := f.Tensors[name]
		if name == "" || name == metaKey || !utf8.ValidString(name) {
			return nil, fmt.Errorf("%w: %q: want UTF-8, not empty and not %s", ErrName, name, metaKey)
		}
		if t == nil {
			return nil, fmt.Errorf("%w: %q: no tensor", ErrName, name)
		}
		if err := t.Check(); err != nil {
			return nil, fmt.Errorf("tensor %q: %w", name, err)
		}
		end := at + 4*int64(len(t.Data))
		shape := append([]int{}, t.Shape...)
		if err := member(&b, name, entry{DType: "F32", Shape: shape, Offsets: [2]int64{at, end}}); err != nil {
			return nil, err
		}
		at = end
	}
	b.WriteByte('}')
	for b.Len()%align != 0 {
		b.WriteByte(' ')
	}
	return b.Bytes(), nil
}

// member appends "key":value to an object that is being written.
func member(b *bytes.Buffer, key string, value any) error {
	k, err := json.Marshal(key)
	if err != nil {
		return err
	}
	v, err := json.Marshal(value)
	if err != nil {
		return err
	}
	if b.Len() > 1 {
		b.WriteByte(',')
	}
	b.Write(k)
	b.WriteByte(':')
	b.Write(v)
	return nil
}
