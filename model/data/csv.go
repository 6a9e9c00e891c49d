package data

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/espalier-ml/espalier/model"
)

// labelColumns are the names looked for, in this order, when no label column is
// named.
var labelColumns = []string{"label", "class", "target", "y"}

// maxLine bounds a line of a CSV file.
const maxLine = 16 << 20

// lineGuard fails on lines longer than maxLine, which would have to be held in
// memory whole.
type lineGuard struct {
	r    io.Reader
	line int
}

func (g *lineGuard) Read(b []byte) (int, error) {
	n, err := g.r.Read(b)
	for _, c := range b[:n] {
		if g.line++; c == '\n' {
			g.line = 0
		}
		if g.line > maxLine {
			return 0, fmt.Errorf("%w: line of more than %d bytes", ErrTooLarge, maxLine)
		}
	}
	return n, err
}

// csvReader collects the rows of one or more files with the same columns.
type csvReader struct {
	opt      Options
	columns  []string
	label    int
	group    int // -1: none
	drop     []bool
	features []float32
	labels   []string
	groups   []string
}

// read appends the rows of r. The first line names the columns.
func (c *csvReader) read(r io.Reader) error {
	rows := csv.NewReader(&lineGuard{r: r})
	rows.ReuseRecord, rows.TrimLeadingSpace = true, true
	head, err := rows.Read()
	if err != nil {
		return csvError(err)
	}
	if c.columns == nil {
		if err := c.header(head); err != nil {
			return err
		}
	} else if !slices.Equal(c.columns, trimmed(head)) {
		return fmt.Errorf("%w: columns %.200q: want those of the training file, %.200q", ErrFormat, head, c.columns)
	}
	for {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return csvError(err)
		}
		line, _ := rows.FieldPos(0)
		if err := c.row(row, line); err != nil {
			return err
		}
	}
}

func csvError(err error) error {
	switch {
	case errors.Is(err, ErrTooLarge):
		return err
	case errors.Is(err, io.EOF):
		return fmt.Errorf("%w: no line that names the columns", ErrTruncated)
	}
	return fmt.Errorf("%w: %w", ErrFormat, err)
}

func trimmed(fields []string) []string {
	out := make([]string, len(fields))
	for i, f := range fields {
		out[i] = strings.TrimSpace(strings.TrimPrefix(f, "\ufeff"))
	}
	return out
}

// header finds the columns that are no features.
func (c *csvReader) header(head []string) error {
	c.columns = trimmed(head)
	find := func(field, name string) (int, error) {
		if i := slices.Index(c.columns, name); i >= 0 {
			return i, nil
		}
		return -1, fmt.Errorf("%w: %s column %q: want one of %.500q", ErrOption, field, name, c.columns)
	}
	var err error
	if c.opt.Label != "" {
		if c.label, err = find("label", c.opt.Label); err != nil {
			return err
		}
	} else {
		c.label = slices.IndexFunc(labelColumns, func(n string) bool { return slices.Contains(c.columns, n) })
		if c.label < 0 {
			return fmt.Errorf("%w: no label column: want one called %q, or the option that names it; there are %.500q", ErrFormat, labelColumns, c.columns)
		}
		c.label = slices.Index(c.columns, labelColumns[c.label])
	}
	c.group = -1
	c.drop = make([]bool, len(c.columns))
	if c.opt.Group != "" {
		if c.group, err = find("group", c.opt.Group); err != nil {
			return err
		}
		c.drop[c.group] = true
	}
	for _, name := range c.opt.Drop {
		i, err := find("dropped", name)
		if err != nil {
			return err
		}
		c.drop[i] = true
	}
	c.drop[c.label] = true
	if !slices.Contains(c.drop, false) {
		return fmt.Errorf("%w: columns %.200q: want a feature among them", ErrFormat, c.columns)
	}
	return nil
}

func (c *csvReader) row(row []string, line int) error {
	for i, field := range row {
		if c.drop[i] {
			continue
		}
		v, ok := number(strings.TrimSpace(field))
		if !ok {
			return fmt.Errorf("%w: line %d, column %q: %.40q: want a number, or leave the column out", ErrFormat, line, c.columns[i], field)
		}
		c.features = append(c.features, v)
	}
	if err := withinLimit(4*int64(len(c.features)), c.opt.MaxBytes); err != nil {
		return err
	}
	label := strings.Clone(strings.TrimSpace(row[c.label]))
	if label == "" {
		return fmt.Errorf("%w: line %d: empty label", ErrFormat, line)
	}
	c.labels = append(c.labels, label)
	if c.group >= 0 {
		c.groups = append(c.groups, strings.Clone(row[c.group]))
	}
	return nil
}

// number parses a field; what usually stands for a missing value is NaN.
func number(s string) (float32, bool) {
	switch s {
	case "", "?", "NA", "N/A", "NaN", "nan", "null":
		return float32(math.NaN()), true
	}
	v, err := strconv.ParseFloat(s, 32)
	return float32(v), err == nil && !math.IsInf(v, 0) && v == v
}

// set turns the rows into a set whose first train rows are not test.
func (c *csvReader) set(train int) (*Set, error) {
	if train == 0 {
		return nil, fmt.Errorf("%w: no rows", ErrNoData)
	}
	s := &Set{Features: c.features, TestFrom: train, Shape: model.Shape{len(c.features) / len(c.labels)}}
	s.Classes = slices.Compact(sortNames(slices.Clone(c.labels[:train])))
	if len(s.Classes) > MaxClasses {
		return nil, fmt.Errorf("%w: %d different labels: want at most %d", ErrFormat, len(s.Classes), MaxClasses)
	}
	index := map[string]int32{}
	for i, n := range s.Classes {
		index[n] = int32(i)
	}
	for i, n := range c.labels {
		k, ok := index[n]
		if !ok {
			return nil, fmt.Errorf("%w: test row %d has label %.40q, which no training row has", ErrFormat, i-train+1, n)
		}
		s.Labels = append(s.Labels, k)
	}
	numbers := map[string]int32{}
	for _, g := range c.groups {
		if _, ok := numbers[g]; !ok {
			numbers[g] = int32(len(numbers))
		}
		s.Groups = append(s.Groups, numbers[g])
	}
	return s, nil
}

// sortNames sorts by value where all names are whole numbers, else as text.
func sortNames(names []string) []string {
	values := map[string]int{}
	for _, n := range names {
		v, err := strconv.Atoi(n)
		if err != nil {
			slices.Sort(names)
			return names
		}
		values[n] = v
	}
	slices.SortFunc(names, func(a, b string) int {
		if d := values[a] - values[b]; d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	return names
}

// csvFiles finds train.csv and test.csv, or the only file of that kind.
func csvFiles(dir string) (train, test string) {
	if train = findAny(dir, []string{"train.csv"}); train != "" {
		return train, findAny(dir, []string{"test.csv"})
	}
	entries, _ := os.ReadDir(dir) // a folder that cannot be read holds none
	for _, e := range entries {
		if n := e.Name(); strings.HasSuffix(strings.TrimSuffix(n, ".gz"), ".csv") {
			if train != "" {
				return "", ""
			}
			train = filepath.Join(dir, n)
		}
	}
	return train, ""
}

func hasCSV(dir string) bool { train, _ := csvFiles(dir); return train != "" }

func openCSV(dir string, o Options) (*Set, error) {
	train, test := csvFiles(dir)
	return openCSVFiles(train, test, o)
}

func openCSVFiles(train, test string, o Options) (*Set, error) {
	c := &csvReader{opt: o}
	if err := withFile(train, c.read); err != nil {
		return nil, err
	}
	rows := len(c.labels)
	if test != "" {
		if err := withFile(test, c.read); err != nil {
			return nil, err
		}
	}
	s, err := c.set(rows)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", train, err)
	}
	return s, nil
}
