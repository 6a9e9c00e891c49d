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
	var buf []byte
	_ = params(g, func(_, _ string, t *model.Tensor) error {
		buf = appendTensor(buf[:0], t.Data)
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
	err = params(g, func(_, _ string, t *model.Tensor) error {
		n += 2 + measure(t.Data).best().bytes
		return nil
	})
	return n, err
}

// encodeHeader gives everything before the tensors: the structure is deflated where
// that is shorter.
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
	b := append([]byte(Magic), version, kind)
	b = binary.AppendUvarint(b, uint64(len(structure)))
	b = binary.AppendUvarint(b, uint64(len(stored)))
	return append(b, stored...), nil
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

func measure(data []float32) sizes {
	s := sizes{dense: 4 * int64(len(data))}
	last := -1
	for i, v := range data {
		if !isZero(v) {
			s.nonZeros++
			s.delta += uvarintLen(uint64(i - last - 1))
			last = i
		}
	}
	values := 4 * int64(s.nonZeros)
	s.bitmap = int64((len(data)+7)/8) + values
	s.delta += uvarintLen(uint64(s.nonZeros)) + values
	return s
}

func uvarintLen(v uint64) int64 { return int64(bits.Len64(v|1)+6) / 7 }

func appendTensor(b []byte, data []float32) []byte {
	s := measure(data)
	c := s.best()
	b = append(b, typeFloat32, c.encoding)
	switch c.encoding {
	case encBitmap:
		at := len(b)
		b = append(b, make([]byte, (len(data)+7)/8)...)
		for i, v := range data {
			if !isZero(v) {
				b[at+i/8] |= 1 << (i % 8)
			}
		}
	case encDelta:
		b = binary.AppendUvarint(b, uint64(s.nonZeros))
		last := -1
		for i, v := range data {
			if !isZero(v) {
				b = binary.AppendUvarint(b, uint64(i-last-1))
				last = i
			}
		}
	}
	for _, v := range data {
		if c.encoding == encDense || !isZero(v) {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
		}
	}
	return b
}
