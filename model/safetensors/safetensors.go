// Package safetensors reads and writes the safetensors format: eight bytes with the
// header's length, little-endian; a JSON header that gives every tensor's type, shape
// and place, and string metadata; then the values. Checkpoints are such files, with the
// graph's structure in the metadata (WriteGraph, ReadGraph).
//
// The format is described at https://huggingface.co/docs/safetensors.
package safetensors

import (
	"errors"

	"github.com/espalier-ml/espalier/model"
)

// Sentinels of this package. Each wrapped error names the tensor or the field.
var (
	// ErrCorrupt: the bytes are not a safetensors file, or not a checkpoint.
	ErrCorrupt = errors.New("corrupt safetensors file")
	// ErrTooLarge: the file exceeds a limit.
	ErrTooLarge = errors.New("safetensors file too large")
	// ErrType: a tensor's type is not one that this package reads.
	ErrType = errors.New("unsupported tensor type")
	// ErrName: a name or metadata key cannot be written.
	ErrName = errors.New("invalid tensor name")
)

// File is the content of a safetensors file. On disk the values are F32; F16 and BF16
// are read too, widened to float32, which loses nothing.
type File struct {
	Tensors map[string]*model.Tensor
	Meta    map[string]string
}

// Limits bound what Read accepts. A zero field means its default.
type Limits struct {
	HeaderBytes int64 // of the JSON header; default 64 MiB
	DataBytes   int64 // of all tensors together; default 4 GiB
	Tensors     int   // number of tensors; default 1,048,576
}

func (l Limits) withDefaults() Limits {
	if l.HeaderBytes == 0 {
		l.HeaderBytes = 64 << 20
	}
	if l.DataBytes == 0 {
		l.DataBytes = 4 << 30
	}
	if l.Tensors == 0 {
		l.Tensors = 1 << 20
	}
	return l
}

const (
	metaKey = "__metadata__"
	align   = 8 // the header is padded with spaces so that the data starts aligned
)

// entry is a tensor's place as the header gives it.
type entry struct {
	DType   string   `json:"dtype"`
	Shape   []int    `json:"shape"`
	Offsets [2]int64 `json:"data_offsets"`
}
