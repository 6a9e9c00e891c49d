package esp

import (
	"bufio"
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"math/bits"

	"github.com/espalier-ml/espalier/model"
)

// Write writes g with its Meta. Equal graphs give equal bytes. Folding batch
// normalisation first (model.FoldBatchNorm) makes the file smaller. Errors wrap the
// graph's sentinels or the writer's error.
func Write(w io.Writer, g *model.Graph) error {
	if err := g.Validate(); err != nil {
		return err
	}
	header, err := encodeHeader(g)
	if err != nil {
		return err
	}
	sum := crc32.New(castagnoli)
	b := bufio.NewWriterSize(io.MultiWriter(w, sum), 1<<15)
	b.Write(header) // bufio keeps the first error for Flush
	ints := int8Weights(g)
	var buf []byte
	_ = params(g, func(layer, name string, t *model.Tensor) error {
		if w, ok := ints[layer]; ok && name == model.Weight {
			buf = appendInt8(buf[:0], w)
		} else {
			buf = appendTensor(buf[:0], t.Data)
		}
		_, err := b.Write(buf)
		return err
	})
	if err := b.Flush(); err != nil {
		return fmt.Errorf("write esp: %w", err)
	}
	if _, err := w.Write(binary.LittleEndian.AppendUint32(nil, sum.Sum32())); err != nil {
		return fmt.Errorf("write esp: %w", err)
	}
	return nil
}

// Size is exactly the number of bytes that Write writes.
func Size(g *model.Graph) (int64, error) {
	if err := g.Validate(); err != nil {
		return 0, err
	}
	header, err := encodeHeader(g)
	if err != nil {
		return 0, err
	}
	n := int64(len(header)) + checksumBytes
	ints := int8Weights(g)
	err = params(g, func(layer, name string, t *model.Tensor) error {
		if w, ok := ints[layer]; ok && name == model.Weight {
			n += 2 + 4*int64(len(w.scale)) + measure(w.q, zeroByte, 1).best().bytes
		} else {
			n += 2 + measure(t.Data, isZero, 4).best().bytes
		}
		return nil
	})
	return n, err
}

// encodeHeader gives everything before the tensors: the structure is deflated where
// that is shorter, and in int8 networks how activations are bytes follows it.
func encodeHeader(g *model.Graph) ([]byte, error) {
	structure, err := model.MarshalStructure(g)
	if err != nil {
		return nil, err
	}
	var deflated bytes.Buffer
	f, err := flate.NewWriter(&deflated, flate.BestCompression)
	if err != nil {
		return nil, err
	}
	f.Write(structure) // a bytes.Buffer does not fail
	if err := f.Close(); err != nil {
		return nil, err
	}
	kind, stored := byte(headerDeflate), deflated.Bytes()
	if len(stored) >= len(structure) {
		kind, stored = headerPlain, structure
	}
	v := byte(version)
	if g.Quant != nil {
		v = versionInt8
	}
	b := append([]byte(Magic), v, kind)
	b = binary.AppendUvarint(b, uint64(len(structure)))
	b = binary.AppendUvarint(b, uint64(len(stored)))
	b = append(b, stored...)
	if g.Quant != nil {
		b = appendAffines(b, g)
	}
	return b, nil
}

// sizes are the payload bytes of each encoding of a tensor.
type sizes struct {
	nonZeros             int
	dense, bitmap, delta int64
}

type choice struct {
	encoding byte
	bytes    int64
}

// best is the smallest encoding, the lowest code among equals.
func (s sizes) best() choice {
	c := choice{encDense, s.dense}
	if s.bitmap < c.bytes {
		c = choice{encBitmap, s.bitmap}
	}
	if s.delta < c.bytes {
		c = choice{encDelta, s.delta}
	}
	return c
}

// isZero holds for +0 only, so that every value comes back bit for bit.
func isZero(v float32) bool { return math.Float32bits(v) == 0 }

func zeroByte(v int8) bool { return v == 0 }

// measure gives the sizes of values of the given width in bytes.
func measure[T any](data []T, zero func(T) bool, width int64) sizes {
	s := sizes{dense: width * int64(len(data))}
	last := -1
	for i, v := range data {
		if !zero(v) {
			s.nonZeros++
			s.delta += uvarintLen(uint64(i - last - 1))
			last = i
		}
	}
	values := width * int64(s.nonZeros)
	s.bitmap = int64((len(data)+7)/8) + values
	s.delta += uvarintLen(uint64(s.nonZeros)) + values
	return s
}

func uvarintLen(v uint64) int64 { return int64(bits.Len64(v|1)+6) / 7 }

func appendTensor(b []byte, data []float32) []byte {
	return appendValues(append(b, typeFloat32), data, isZero, 4, func(b []byte, v float32) []byte {
		return binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	})
}

func appendInt8(b []byte, w int8Tensor) []byte {
	b = append(b, typeInt8)
	for _, s := range w.scale {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(s))
	}
	return appendValues(b, w.q, zeroByte, 1, func(b []byte, v int8) []byte { return append(b, byte(v)) })
}

// appendValues writes the code of the smallest encoding, and the values in it.
func appendValues[T any](b []byte, data []T, zero func(T) bool, width int64, add func([]byte, T) []byte) []byte {
	s := measure(data, zero, width)
	c := s.best()
	b = append(b, c.encoding)
	switch c.encoding {
	case encBitmap:
		at := len(b)
		b = append(b, make([]byte, (len(data)+7)/8)...)
		for i, v := range data {
			if !zero(v) {
				b[at+i/8] |= 1 << (i % 8)
			}
		}
	case encDelta:
		b = binary.AppendUvarint(b, uint64(s.nonZeros))
		last := -1
		for i, v := range data {
			if !zero(v) {
				b = binary.AppendUvarint(b, uint64(i-last-1))
				last = i
			}
		}
	}
	for _, v := range data {
		if c.encoding == encDense || !zero(v) {
			b = add(b, v)
		}
	}
	return b
}
