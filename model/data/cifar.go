package data

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/espalier-ml/espalier/model"
)

// CIFAR-10's binary version: records of a label and three planes of 32×32.
const (
	cifarSide   = 32
	cifarPlane  = cifarSide * cifarSide
	cifarRecord = 1 + 3*cifarPlane
)

// readCIFAR appends the records of r, with labels below classes.
func (s *Set) readCIFAR(r io.Reader, classes int, limit int64) error {
	record := make([]byte, cifarRecord)
	for n := 0; ; n++ {
		switch k, err := io.ReadFull(r, record); {
		case errors.Is(err, io.ErrUnexpectedEOF):
			return fmt.Errorf("%w: record %d has %d bytes: want %d", ErrTruncated, n, k, cifarRecord)
		case errors.Is(err, io.EOF) && n == 0:
			return fmt.Errorf("%w: empty file", ErrTruncated)
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return corrupt(err)
		}
		if int(record[0]) >= classes {
			return fmt.Errorf("%w: label %d of record %d: want 0 to %d", ErrFormat, record[0], n, classes-1)
		}
		if err := withinLimit(int64(len(s.Images)+3*cifarPlane), limit); err != nil {
			return err
		}
		s.Labels = append(s.Labels, int32(record[0]))
		at := len(s.Images)
		s.Images = append(s.Images, record[1:]...)
		interleave(s.Images[at:], record[1:], 3)
	}
}

// interleave turns planes into channels last.
func interleave(dst, planes []byte, channels int) {
	n := len(planes) / channels
	for c := range channels {
		for p, v := range planes[c*n : (c+1)*n] {
			dst[p*channels+c] = v
		}
	}
}

// cifarBatches lists the training files, in the order of their names.
func cifarBatches(dir string) []string {
	entries, _ := os.ReadDir(dir) // a folder that cannot be read holds none
	var found []string
	for _, e := range entries {
		if n := e.Name(); strings.HasPrefix(n, "data_batch_") && strings.HasSuffix(n, ".bin") {
			found = append(found, filepath.Join(dir, n))
		}
	}
	return found
}

func hasCIFAR(dir string) bool { return len(cifarBatches(dir)) > 0 }

// openCIFAR reads a folder with data_batch_*.bin and, where there are any,
// test_batch.bin and batches.meta.txt.
func openCIFAR(dir string, o Options) (*Set, error) {
	s := &Set{Shape: model.Shape{cifarSide, cifarSide, 3}}
	classes := 10
	names, err := readNames(filepath.Join(dir, "batches.meta.txt"))
	switch {
	case err == nil && (len(names) < 2 || len(names) > 256):
		return nil, fmt.Errorf("%s: %w: %d names: want 2 to 256", filepath.Join(dir, "batches.meta.txt"), ErrFormat, len(names))
	case err == nil:
		s.Classes, classes = names, len(names)
	case !errors.Is(err, os.ErrNotExist):
		return nil, err
	}
	files := cifarBatches(dir)
	test := filepath.Join(dir, "test_batch.bin")
	total := int64(0)
	for _, f := range append(slices.Clone(files), test) {
		if st, err := os.Stat(f); err == nil {
			total += st.Size()
		}
	}
	if err := withinLimit(total, o.MaxBytes); err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	s.Images = make([]byte, 0, total)
	for _, f := range files {
		if err := withFile(f, func(r io.Reader) error { return s.readCIFAR(r, classes, o.MaxBytes) }); err != nil {
			return nil, err
		}
	}
	s.TestFrom = s.Len()
	if _, err := os.Stat(test); err == nil {
		if err := withFile(test, func(r io.Reader) error { return s.readCIFAR(r, classes, o.MaxBytes) }); err != nil {
			return nil, err
		}
	}
	if s.Classes == nil {
		s.Classes = numbered(classes)
	}
	return s, nil
}
