package local

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/espalier-ml/espalier/report"
	"github.com/espalier-ml/espalier/search/pareto"
)

// Pulled says which model was pulled, as JSON.
type Pulled struct {
	report.Member
	Device   string `json:"device"`
	File     string `json:"file"`      // where it was written
	SHA256   string `json:"sha256"`    // of that file
	Bytes    int64  `json:"bytes"`     // of that file
	Measured bool   `json:"measured"`  // false: the latency is that of another format
	FileType string `json:"file_type"` // format of that file
}

// Select returns the member of the front that fits the budget best. Limits that
// are zero fall back to the folder's. pareto.ErrNoFit says that none does.
func (f *folderFront) Select(limits Budget) (report.Member, error) {
	b := pareto.Budget{
		Latency:   time.Duration(cmp.Or(limits.LatencyNs, f.Budget.LatencyNs)),
		SizeBytes: cmp.Or(limits.SizeBytes, f.Budget.SizeBytes),
		Accuracy:  cmp.Or(limits.Accuracy, f.Budget.Accuracy),
	}
	members := make([]pareto.Member, len(f.Members))
	for i, m := range f.Members {
		members[i] = pareto.Member{
			Number: m.Trial, Accuracy: m.Accuracy, SizeBytes: m.SizeBytes,
			LatencyP50: micros(m.LatencyP50), LatencyP95: micros(m.LatencyP95),
		}
	}
	best, err := pareto.Fit(members, b)
	if err != nil {
		return report.Member{}, err
	}
	i := slices.IndexFunc(f.Members, func(m report.Member) bool { return m.Trial == best.Number })
	return f.Members[i], nil
}

func micros(us float64) time.Duration { return time.Duration(us*1e3 + 0.5) }

// Pull copies the file of member in format to path, verifying its hash. An
// empty format is the device's own.
func (f *folderFront) Pull(dir string, m report.Member, format, path string) (Pulled, error) {
	files := f.Files[fmt.Sprint(m.Trial)]
	format = cmp.Or(format, m.Format)
	file, ok := files[format]
	if !ok {
		var have []string
		for name := range files {
			have = append(have, name)
		}
		slices.Sort(have)
		return Pulled{}, fmt.Errorf("format %q: trial %d has %s", format, m.Trial, strings.Join(have, ", "))
	}
	if path == "" {
		path = fmt.Sprintf("%s-trial-%d.%s", cmp.Or(f.Name, "model"), m.Trial, format)
	}
	if err := copyChecked(filepath.Join(dir, file.Path), path, file.SHA256); err != nil {
		return Pulled{}, err
	}
	return Pulled{
		Member: m, Device: f.Device, File: path, SHA256: file.SHA256, Bytes: file.SizeBytes,
		Measured: format == m.Format, FileType: format,
	}, nil
}

// copyChecked copies from to to, whole or not at all, if its hash is the one wanted.
func copyChecked(from, to, hash string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	b, err := io.ReadAll(in)
	in.Close()
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != hash {
		return fmt.Errorf("%s was changed: its SHA-256 is %x, the front has %s; run the search again in the folder to restore it", from, sum, hash)
	}
	return WriteFile(to, b)
}
