package local

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/espalier-ml/espalier/job"
	"github.com/espalier-ml/espalier/model/data"
	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// OpenData reads the data set that a job names, split by its seed.
func OpenData(from job.Data, spec *espalierv1.DataSpec) (*data.Set, error) {
	split := data.SplitOptions{Seed: spec.Seed}
	switch {
	case from.Path != "":
		return data.Open(from.Path, data.Options{Split: split})
	case from.Builtin != "":
		return data.Builtin(from.Builtin, data.Options{Split: split})
	}
	return nil, fmt.Errorf("%w: data.name %q: a run of its own has no uploaded data: want path or builtin", job.ErrField, from.Name)
}

// SaveData writes the canonical form of a job's data set to path and names it
// in spec.
func SaveData(from job.Data, spec *espalierv1.DataSpec, path string) (*espalierv1.FileRef, error) {
	set, err := OpenData(from, spec)
	if err != nil {
		return nil, fmt.Errorf("read data: %w", err)
	}
	return SaveSet(set, spec, path)
}

// SaveSet writes the canonical form of a data set to path and names it in spec.
func SaveSet(set *data.Set, spec *espalierv1.DataSpec, path string) (*espalierv1.FileRef, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	sum := sha256.New()
	buffered := bufio.NewWriterSize(f, 1<<20)
	counter := &countingWriter{w: io.MultiWriter(buffered, sum)}
	err = data.WriteCanonical(counter, set)
	if err == nil {
		err = buffered.Flush()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("write data set: %w", errors.Join(err, os.Remove(path)))
	}
	spec.Hash = hex.EncodeToString(sum.Sum(nil))
	return &espalierv1.FileRef{Hash: spec.Hash, SizeBytes: counter.n, Format: "data"}, nil
}

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}
