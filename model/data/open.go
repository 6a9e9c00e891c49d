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
	Name     string // of the set; empty means the file's own, or the name of the folder or file
	Split    SplitOptions
	MaxBytes int64 // limit on the bytes of samples; 0 means DefaultMaxBytes

	// Columns of CSV files.
	Label string   // that holds the class; empty means label, class, target or y
	Group string   // whose equal values never span splits; empty means none
	Drop  []string // that are no features
}

func (o Options) withDefaults() (Options, error) {
	if o.MaxBytes < 0 {
		return o, fmt.Errorf("%w: limit of %d bytes: want more than 0", ErrOption, o.MaxBytes)
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	return o, nil
}

// noColumns refuses options for columns where the data has none.
func (o Options) noColumns() error {
	if o.Label != "" || o.Group != "" || len(o.Drop) > 0 {
		return fmt.Errorf("%w: label %q, group %q, drop %q: only CSV files have columns", ErrOption, o.Label, o.Group, o.Drop)
	}
	return nil
}

// nameOf is the name of the folder or file without its ending.
func nameOf(path string) (string, error) {
	abs, err := filepath.Abs(path)
	base := strings.TrimSuffix(filepath.Base(abs), ".gz")
	return strings.TrimSuffix(base, filepath.Ext(base)), err
}

// folderFormat is a kind of data that Open recognises in a folder.
type folderFormat struct {
	name string // and what it is recognised by
	csv  bool   // has columns
	has  func(dir string) bool
	open func(dir string, o Options) (*Set, error)
}

var folderFormats = []folderFormat{
	{"IDX (train-images-idx3-ubyte and train-labels-idx1-ubyte, plain or .gz)", false, hasIDX, openIDX},
	{"CIFAR-10 binary (data_batch_*.bin)", false, hasCIFAR, openCIFAR},
	{"NPZ (one .npz with x_train, y_train, …)", false, hasNPZ, openNPZFolder},
	{"NPY (x_train.npy and y_train.npy, or x.npy and y.npy)", false, hasNPY, openNPY},
	{"CSV (train.csv and test.csv, or one .csv, plain or .gz)", true, hasCSV, openCSV},
	{"image folders (a subfolder per class with .png or .jpg, in train and test or at the top)", false, hasPictures, openPictures},
}

// Open reads the data set at path, recognising its format, and splits it. A
// folder may hold IDX, CIFAR-10, NPY, NPZ or CSV files or images in subfolders,
// and may name its classes, one a line, in classes.txt; a file may be CSV, NPZ or
// in the canonical form.
func Open(path string, o Options) (*Set, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoData, err)
	}
	var s *Set
	if st.IsDir() {
		s, err = openFolder(path, o)
	} else {
		s, err = openFile(path, o)
	}
	if err != nil {
		return nil, err
	}
	if o.Name != "" {
		s.Name = o.Name
	} else if s.Name == "" {
		if s.Name, err = nameOf(path); err != nil {
			return nil, err
		}
	}
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
		if !f.csv {
			if err := o.noColumns(); err != nil {
				return nil, fmt.Errorf("%s: %w", dir, err)
			}
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

func openFile(path string, o Options) (*Set, error) {
	name := strings.ToLower(path)
	if strings.HasSuffix(strings.TrimSuffix(name, ".gz"), ".csv") {
		return openCSVFiles(path, "", o)
	}
	if err := o.noColumns(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if strings.HasSuffix(name, ".npz") {
		s, err := openNPZ(path, o)
		if err != nil {
			return nil, err
		}
		s.numberClasses()
		return s, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s, err := ReadCanonical(f, o)
	if err != nil {
		return nil, fmt.Errorf("%s: not .csv, not .npz, so the canonical form was looked for: %w", path, err)
	}
	return s, nil
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
	case s.Classes == nil:
		s.numberClasses()
	}
	return nil
}

// numberClasses names the classes by number, up to the highest training label.
func (s *Set) numberClasses() {
	if s.TestFrom > 0 {
		s.Classes = numbered(int(slices.Max(s.Labels[:s.TestFrom])) + 1)
	}
}
