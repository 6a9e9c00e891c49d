package data

import (
	"compress/gzip"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/espalier-ml/espalier/model"
)

// harCSV writes WISDM's ARFF file, features of accelerometer recordings of 36
// users with missing values, as CSV.
func harCSV(t *testing.T) string {
	t.Helper()
	f, err := os.Open(realData(t, "har", "WISDM_ar_v1.1_transformed.arff.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	var columns, rows []string
	inData := false
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		switch {
		case len(words) == 0:
		case inData:
			rows = append(rows, strings.TrimSpace(line))
		case strings.EqualFold(words[0], "@attribute"):
			columns = append(columns, strings.Trim(words[1], `"`))
		case strings.EqualFold(words[0], "@data"):
			inData = true
		}
	}
	path := filepath.Join(t.TempDir(), "har.csv")
	if err := os.WriteFile(path, []byte(strings.Join(columns, ",")+"\n"+strings.Join(rows, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRealHARSplitByUser(t *testing.T) {
	s, err := Open(harCSV(t), Options{Label: "class", Group: "user", Drop: []string{"UNIQUE_ID"}})
	if err != nil {
		t.Fatal(err)
	}
	if s.Len() != 5418 || !s.Shape.Equal(model.Shape{43}) || len(s.Classes) != 6 || slices.Max(s.Groups) != 35 {
		t.Errorf("%d samples of %v, classes %v, %d groups", s.Len(), s.Shape, s.Classes, slices.Max(s.Groups)+1)
	}
	where := map[int32]int{}
	for part, list := range [][]int32{s.Train, s.Validation, s.Test} {
		for _, i := range list {
			if was, ok := where[s.Groups[i]]; ok && was != part {
				t.Fatalf("user %d is in parts %d and %d", s.Groups[i], was, part)
			}
			where[s.Groups[i]] = part
		}
	}
	if n := len(s.Test); n < 5418/20 || n > 5418/5 {
		t.Errorf("%d samples for test: want about %d", n, 5418/10)
	}
	x, labels := make([]float32, 43*s.Len()), make([]int32, s.Len())
	s.Batch(x, labels, sequence(0, s.Len()))
	for i, v := range x {
		if !(math.Abs(float64(v)) < 200) {
			t.Fatalf("value %d of sample %d is %v after normalisation", i%43, i/43, v)
		}
	}
}
