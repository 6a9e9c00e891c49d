package esp

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"math"
	"math/bits"
	"slices"

	"github.com/espalier-ml/espalier/model"
)

// Read reads a whole file, to its end. The checksum is checked before anything else is
// believed: any changed byte gives ErrCorrupt. Errors wrap ErrCorrupt, ErrVersion,
// ErrTooLarge or the reader's error.
func Read(r io.Reader, limits Limits) (*model.Graph, error) {
	limits = limits.withDefaults()
	b, err := io.ReadAll(io.LimitReader(r, limits.Bytes+1))
	if err != nil {
		return nil, fmt.Errorf("read esp: %w", err)
	}
	if int64(len(b)) > limits.Bytes {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, limits.Bytes)
	}
	if len(b) < len(Magic)+1+checksumBytes || string(b[:len(Magic)]) != Magic {
		return nil, fmt.Errorf("%w: does not begin as an esp file does", ErrCorrupt)
	}
	end := len(b) - checksumBytes
	if got, want := crc32.Checksum(b[:end], castagnoli), binary.LittleEndian.Uint32(b[end:]); got != want {
		return nil, fmt.Errorf("%w: checksum %08x: want %08x", ErrCorrupt, got, want)
	}
	d := &decoder{b: b[len(Magic):end]}
	if v := d.byte(); v != version {
		return nil, fmt.Errorf("%w: %d: want %d", ErrVersion, v, version)
	}
	g, err := d.header()
	if err != nil {
		return nil, err
	}
	if err := d.params(g, limits.Params); err != nil {
		return nil, err
	}
	if len(d.b) > 0 {
		return nil, fmt.Errorf("%w: %d bytes after the last tensor", ErrCorrupt, len(d.b))
	}
	if err := g.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return g, nil
}

// decoder takes bytes from the front. Past the end it gives zeros and sets cut, which
// whoever reads checks before using what was read.
type decoder struct {
	b   []byte
	cut bool
}

func (d *decoder) take(n int64) []byte {
	if n < 0 || n > int64(len(d.b)) {
		d.cut, d.b = true, nil
		return nil
	}
	out := d.b[:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) byte() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

// uvarint gives a value that fits an int64.
func (d *decoder) uvarint() int64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || v > math.MaxInt64 {
		d.cut, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return int64(v)
}

func (d *decoder) header() (*model.Graph, error) {
	kind, size, storedSize := d.byte(), d.uvarint(), d.uvarint()
	if size > model.MaxStructureBytes {
		return nil, fmt.Errorf("%w: structure of %d bytes: want at most %d", ErrTooLarge, size, model.MaxStructureBytes)
	}
	structure := d.take(storedSize)
	if d.cut {
		return nil, fmt.Errorf("%w: ends within the header", ErrCorrupt)
	}
	switch kind {
	case headerPlain:
	case headerDeflate:
		f := flate.NewReader(bytes.NewReader(structure))
		b, err := io.ReadAll(io.LimitReader(f, size+1))
		if err != nil {
			return nil, fmt.Errorf("%w: header: %w", ErrCorrupt, err)
		}
		structure = b
	default:
		return nil, fmt.Errorf("%w: header of kind %d: want 0 or 1", ErrVersion, kind)
	}
	if int64(len(structure)) != size {
		return nil, fmt.Errorf("%w: structure is not of the %d bytes that the header says", ErrCorrupt, size)
	}
	g, err := model.UnmarshalStructure(structure)
	if err != nil {
		return nil, fmt.Errorf("%w: header: %w", ErrCorrupt, err)
	}
	return g, nil
}

// params reads the tensors, whose shapes follow from the structure.
func (d *decoder) params(g *model.Graph, limit int64) error {
	shapes, err := g.Shapes()
	if err != nil {
		return err
	}
	for i := range g.Layers {
		l := &g.Layers[i]
		l.Params = map[string]*model.Tensor{}
		want := model.ParamShapes(l.Op, g.InputShapes(i, shapes)[0])
		for _, name := range slices.Sorted(maps.Keys(want)) {
			s := want[name]
			if err := s.Check(); err != nil {
				return fmt.Errorf("%w: layer %q: %s: %w", ErrCorrupt, l.Name, name, err)
			}
			if limit -= int64(s.Elements()); limit < 0 {
				return fmt.Errorf("%w: layer %q: %s %v exceeds the limit of parameters", ErrTooLarge, l.Name, name, []int(s))
			}
			data, err := d.tensor(s.Elements())
			if err != nil {
				return fmt.Errorf("layer %q: %s: %w", l.Name, name, err)
			}
			l.Params[name] = &model.Tensor{Shape: s, Data: data}
		}
	}
	return nil
}

func (d *decoder) tensor(n int) ([]float32, error) {
	kind, encoding := d.byte(), d.byte()
	if d.cut {
		return nil, fmt.Errorf("%w: ends before the tensor", ErrCorrupt)
	}
	if kind != typeFloat32 || encoding > encDelta {
		return nil, fmt.Errorf("%w: tensor of type %d in encoding %d: want type 0 in encoding 0 to 2", ErrVersion, kind, encoding)
	}
	switch encoding {
	case encBitmap:
		return d.bitmap(n)
	case encDelta:
		return d.delta(n)
	}
	values := d.take(4 * int64(n))
	if d.cut {
		return nil, fmt.Errorf("%w: ends within the values", ErrCorrupt)
	}
	out := make([]float32, n)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(values[4*i:]))
	}
	return out, nil
}

func (d *decoder) bitmap(n int) ([]float32, error) {
	set := d.take(int64((n + 7) / 8))
	if d.cut {
		return nil, fmt.Errorf("%w: ends within the bitmap", ErrCorrupt)
	}
	if n%8 != 0 && set[len(set)-1]>>(n%8) != 0 {
		return nil, fmt.Errorf("%w: bits set past the %d values of the bitmap", ErrCorrupt, n)
	}
	nonZeros := 0
	for _, b := range set {
		nonZeros += bits.OnesCount8(b)
	}
	values := d.take(4 * int64(nonZeros))
	if d.cut {
		return nil, fmt.Errorf("%w: ends within the values", ErrCorrupt)
	}
	out := make([]float32, n)
	for i := range out {
		if set[i/8]>>(i%8)&1 != 0 {
			out[i] = math.Float32frombits(binary.LittleEndian.Uint32(values))
			values = values[4:]
		}
	}
	return out, nil
}

func (d *decoder) delta(n int) ([]float32, error) {
	nonZeros := d.uvarint()
	if nonZeros > int64(n) {
		return nil, fmt.Errorf("%w: %d values that are not zero of %d", ErrCorrupt, nonZeros, n)
	}
	// A gap and a value take five bytes at least.
	if d.cut || nonZeros*5 > int64(len(d.b)) {
		return nil, fmt.Errorf("%w: ends within the indices", ErrCorrupt)
	}
	at, last := make([]int, nonZeros), int64(-1)
	for k := range at {
		gap := d.uvarint()
		if d.cut || gap >= int64(n)-last-1 {
			return nil, fmt.Errorf("%w: value %d of %d lies outside the tensor", ErrCorrupt, k, nonZeros)
		}
		last += gap + 1
		at[k] = int(last)
	}
	values := d.take(4 * nonZeros)
	if d.cut {
		return nil, fmt.Errorf("%w: ends within the values", ErrCorrupt)
	}
	out := make([]float32, n)
	for k, i := range at {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(values[4*k:]))
	}
	return out, nil
}
