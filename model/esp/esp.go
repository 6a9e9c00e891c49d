// Package esp reads and writes Espalier's compact model file, the native runtime's
// format: the graph's structure, then each tensor in the smallest of three encodings,
// so that sparsity shows in bytes, then a checksum. Weights of int8 networks are stored
// as bytes. docs/esp.md gives the layout byte
// by byte.
package esp

import (
	"errors"
	"hash/crc32"

	"github.com/espalier-ml/espalier/model"
)

// Sentinels of this package. Each wrapped error names what is wrong where.
var (
	// ErrCorrupt: the bytes are not an esp file, or were changed.
	ErrCorrupt = errors.New("corrupt esp file")
	// ErrVersion: the file is intact, but of a version that this build cannot read.
	ErrVersion = errors.New("unknown esp version")
	// ErrTooLarge: the file exceeds a limit.
	ErrTooLarge = errors.New("esp file too large")
)

// Limits bound what Read accepts. A zero field means its default.
type Limits struct {
	Bytes  int64 // of the file; default 1 GiB
	Params int64 // parameters after decoding, zeros included; default 67,108,864
}

func (l Limits) withDefaults() Limits {
	if l.Bytes == 0 {
		l.Bytes = 1 << 30
	}
	if l.Params == 0 {
		l.Params = 1 << 26
	}
	return l
}

// Magic is what every esp file begins with.
const Magic = "\x89ESP"

const (
	version     = 1
	versionInt8 = 2 // of int8 networks, so that builds that do not know them say so

	headerPlain   = 0
	headerDeflate = 1

	typeFloat32 = 0
	typeInt8    = 1 // with a scale for each index of the last dimension

	encDense  = 0 // every value
	encBitmap = 1 // a bit per value, then those that are not zero
	encDelta  = 2 // the gaps between values that are not zero, then these

	checksumBytes = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// params lists a graph's parameters in the file's order: by layer, then by name.
func params(g *model.Graph, visit func(layer, name string, t *model.Tensor) error) error {
	for i := range g.Layers {
		l := &g.Layers[i]
		for _, name := range l.ParamNames() {
			if err := visit(l.Name, name, l.Params[name]); err != nil {
				return err
			}
		}
	}
	return nil
}
