package data

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Options says how a data set is read and split. The zero value will do.
type Options struct {
	Name     string // of the set; empty means the name of the folder or file
	Split    SplitOptions
	MaxBytes int64 // limit on the bytes of samples; 0 means DefaultMaxBytes
}

func (o Options) withDefaults(path string) (Options, error) {
	if o.MaxBytes < 0 {
		return o, fmt.Errorf("%w: limit of %d bytes: want more than 0", ErrOption, o.MaxBytes)
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	if o.Name == "" {
		abs, err := filepath.Abs(path)
		if err != nil {
			return o, err
		}
		o.Name = strings.TrimSuffix(filepath.Base(abs), filepath.Ext(abs))
	}
	return o, nil
}

// folderFormat is a kind of data that Open recognises in a folder.
type folderFormat struct {
	name string // and what it is recognised by
	has  func(dir string) bool
	open func(dir string, o Options) (*Set, error)
}

var folderFormats = []folderFormat{
	{"IDX (train-images-idx3-ubyte and train-labels-idx1-ubyte, plain or .gz)", hasIDX, openIDX},
	{"CIFAR-10 binary (data_batch_*.bin)", hasCIFAR, openCIFAR},
}

// Open reads the data set at path, recognising its format, and splits it. The
// folder may name its classes, one a line, in classes.txt.
func Open(path string, o Options) (*Set, error) {
	o, err := o.withDefaults(path)
	if err != nil {
		return nil, err
	}
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoData, err)
	}
	if !st.IsDir() {
		return nil, fmt.Errorf("%s: %w: not a folder", path, ErrNoData)
	}
	s, err := openFolder(path, o)
	if err != nil {
		return nil, err
	}
	s.Name = o.Name
	if err := s.Split(o.Split); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

func openFolder(dir string, o Options) (*Set, error) {
	for _, f := range folderFormats {
		if !f.has(dir) {
			continue
		}
		s, err := f.open(dir, o)
		if err != nil {
			return nil, err
		}
		return s, s.nameClasses(dir)
	}
	looked := make([]string, len(folderFormats))
	for i, f := range folderFormats {
		looked[i] = f.name
	}
	return nil, fmt.Errorf("%s: %w: looked for %s", dir, ErrNoData, strings.Join(looked, "; "))
}

// nameClasses takes the names from classes.txt, if there is one, else numbers up
// to the highest label of the training files.
func (s *Set) nameClasses(dir string) error {
	path := filepath.Join(dir, "classes.txt")
	names, err := readNames(path)
	switch {
	case err == nil:
		s.Classes = names
	case !errors.Is(err, os.ErrNotExist):
		return err
	case s.Classes == nil && s.TestFrom > 0:
		if top := slices.Max(s.Labels[:s.TestFrom]); top < MaxClasses {
			s.Classes = numbered(int(top) + 1)
		}
	}
	return nil
}
