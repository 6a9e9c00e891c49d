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
	v := d.byte()
	if v != version && v != versionInt8 {
		return nil, fmt.Errorf("%w: %d: want %d or %d", ErrVersion, v, version, versionInt8)
	}
	g, err := d.header()
	if err != nil {
		return nil, err
	}
	if v == versionInt8 {
		if err := d.affines(g); err != nil {
			return nil, err
		}
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
			data, scale, err := d.tensor(s, g.Quant != nil && name == model.Weight)
			if err != nil {
				return fmt.Errorf("layer %q: %s: %w", l.Name, name, err)
			}
			l.Params[name] = &model.Tensor{Shape: s, Data: data}
			if scale != nil {
				g.Quant.Weights[l.Name] = scale
			}
		}
	}
	return nil
}

// tensor reads a tensor, which may be of bytes with scales where ints says so.
func (d *decoder) tensor(shape model.Shape, ints bool) (data, scale []float32, err error) {
	n := shape.Elements()
	switch kind := d.byte(); {
	case d.cut:
		return nil, nil, fmt.Errorf("%w: ends before the tensor", ErrCorrupt)
	case kind == typeInt8 && ints:
		return d.int8Tensor(n, shape[len(shape)-1])
	case kind != typeFloat32:
		return nil, nil, fmt.Errorf("%w: tensor of type %d: want 0, or 1 of weights of int8 networks", ErrVersion, kind)
	}
	data, err = values(d, d.byte(), n, 4, func(b []byte) float32 { return math.Float32frombits(binary.LittleEndian.Uint32(b)) })
	return data, nil, err
}

// values reads n values of the given width in bytes in an encoding.
func values[T any](d *decoder, encoding byte, n int, width int64, get func([]byte) T) ([]T, error) {
	var at []int // where the values go that are not zero; nil: everywhere
	count, err := int64(n), error(nil)
	switch encoding {
	case encDense:
	case encBitmap:
		at, err = d.bitmap(n, width)
		count = int64(len(at))
	case encDelta:
		at, err = d.delta(n, width)
		count = int64(len(at))
	default:
		err = fmt.Errorf("%w: encoding %d: want 0 to 2", ErrVersion, encoding)
	}
	if d.cut && err == nil {
		err = fmt.Errorf("%w: ends before the tensor", ErrCorrupt)
	}
	if err != nil {
		return nil, err
	}
	raw := d.take(width * count)
	if d.cut {
		return nil, fmt.Errorf("%w: ends within the values", ErrCorrupt)
	}
	out := make([]T, n)
	for k := range int(count) {
		i := k
		if encoding != encDense {
			i = at[k]
		}
		out[i] = get(raw[int64(k)*width:])
	}
	return out, nil
}

// bitmap reads which of n values of the given width are not zero.
func (d *decoder) bitmap(n int, width int64) ([]int, error) {
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
	if int64(nonZeros)*width > int64(len(d.b)) {
		return nil, fmt.Errorf("%w: ends within the values", ErrCorrupt)
	}
	at := make([]int, 0, nonZeros)
	for i, b := range set {
		for ; b != 0; b &= b - 1 {
			at = append(at, 8*i+bits.TrailingZeros8(b))
		}
	}
	return at, nil
}

// delta reads which of n values of the given width are not zero.
func (d *decoder) delta(n int, width int64) ([]int, error) {
	nonZeros := d.uvarint()
	if nonZeros > int64(n) {
		return nil, fmt.Errorf("%w: %d values that are not zero of %d", ErrCorrupt, nonZeros, n)
	}
	// A gap takes a byte at least.
	if d.cut || nonZeros*(1+width) > int64(len(d.b)) {
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
	return at, nil
}
