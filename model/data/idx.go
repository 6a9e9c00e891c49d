package data

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/espalier-ml/espalier/model"
)

// readIDX reads one file of LeCun's IDX format holding unsigned bytes: two zero
// bytes, the type, the number of dimensions, the dimensions as big-endian uint32,
// the values.
func readIDX(r io.Reader, limit int64) (dims []int, values []byte, err error) {
	head, err := readBytes(r, 4)
	if err != nil {
		return nil, nil, err
	}
	if head[0] != 0 || head[1] != 0 || head[2] != 8 || head[3] < 1 || head[3] > 4 {
		return nil, nil, fmt.Errorf("%w: magic number %x: want 00000801 to 00000804 (IDX of unsigned bytes)", ErrFormat, head)
	}
	raw, err := readBytes(r, 4*int64(head[3]))
	if err != nil {
		return nil, nil, err
	}
	size := int64(1)
	for ; len(raw) > 0; raw = raw[4:] {
		d := int64(binary.BigEndian.Uint32(raw))
		if d < 1 || d > model.MaxElements {
			return nil, nil, fmt.Errorf("%w: dimension %d: want 1 to %d", ErrFormat, d, model.MaxElements)
		}
		if size > limit/d {
			return nil, nil, withinLimit(limit+1, limit)
		}
		size *= d
		dims = append(dims, int(d))
	}
	if values, err = readBytes(r, size); err != nil {
		return nil, nil, err
	}
	return dims, values, atEnd(r)
}

// idxNames are the names of a part's images and labels, without .gz.
var idxNames = map[string][2][]string{
	"train": {
		{"train-images-idx3-ubyte", "train-images.idx3-ubyte", "train-images-idx4-ubyte"},
		{"train-labels-idx1-ubyte", "train-labels.idx1-ubyte"},
	},
	"test": {
		{"t10k-images-idx3-ubyte", "t10k-images.idx3-ubyte", "test-images-idx3-ubyte", "t10k-images-idx4-ubyte", "test-images-idx4-ubyte"},
		{"t10k-labels-idx1-ubyte", "t10k-labels.idx1-ubyte", "test-labels-idx1-ubyte"},
	},
}

// findAny finds the first of names in dir, plain or with .gz.
func findAny(dir string, names []string) string {
	for _, n := range names {
		for _, path := range []string{filepath.Join(dir, n), filepath.Join(dir, n+".gz")} {
			if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() {
				return path
			}
		}
	}
	return ""
}

func hasIDX(dir string) bool { return findAny(dir, idxNames["train"][0]) != "" }

// openIDX reads a folder with the files of MNIST and of those that took its form.
func openIDX(dir string, o Options) (*Set, error) {
	s := &Set{}
	for _, part := range []string{"train", "test"} {
		images, labels := findAny(dir, idxNames[part][0]), findAny(dir, idxNames[part][1])
		if images == "" && labels == "" && part == "test" {
			break
		}
		if images == "" || labels == "" {
			return nil, fmt.Errorf("%s: %w: %s images without labels, or labels without images: want one of %v and one of %v",
				dir, ErrNoData, part, idxNames[part][0], idxNames[part][1])
		}
		if err := s.appendIDX(images, labels, o.MaxBytes); err != nil {
			return nil, err
		}
		if part == "train" {
			s.TestFrom = s.Len()
		}
	}
	return s, nil
}

func (s *Set) appendIDX(images, labels string, limit int64) error {
	var dims, count []int
	var pixels, classes []byte
	err := withFile(images, func(r io.Reader) (err error) {
		dims, pixels, err = readIDX(r, limit-int64(len(s.Images)))
		return err
	})
	if err != nil {
		return err
	}
	if err := withFile(labels, func(r io.Reader) (err error) {
		count, classes, err = readIDX(r, model.MaxElements)
		return err
	}); err != nil {
		return err
	}
	shape := model.Shape(dims[1:])
	switch len(shape) {
	case 2:
		shape = append(slices.Clone(shape), 1)
	case 1, 3:
	default:
		return fmt.Errorf("%s: %w: dimensions %v: want {N, height, width}", images, ErrFormat, dims)
	}
	if s.Shape == nil {
		s.Shape = shape
	}
	if !s.Shape.Equal(shape) {
		return fmt.Errorf("%s: %w: images of %v after images of %v", images, ErrFormat, []int(shape), []int(s.Shape))
	}
	if len(count) != 1 || count[0] != dims[0] {
		return fmt.Errorf("%s: %w: %v labels for %d images", labels, ErrFormat, count, dims[0])
	}
	if s.Images == nil {
		s.Images = pixels
	} else {
		s.Images = append(s.Images, pixels...)
	}
	for _, c := range classes {
		s.Labels = append(s.Labels, int32(c))
	}
	return nil
}
