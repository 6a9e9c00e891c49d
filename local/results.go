package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/report"
)

// folderFront is front.json of a results folder: the stable front and, besides,
// the device's budget and the files of each model in every format.
type folderFront struct {
	report.Front
	Budget Budget                     `json:"budget"`
	Files  map[string]map[string]File `json:"files"` // by trial, then format
}

// Budget is a device's limits in a results folder. Zero means no limit.
type Budget struct {
	LatencyNs int64   `json:"latency_ns,omitempty"`
	SizeBytes int64   `json:"size_bytes,omitempty"`
	Accuracy  float64 `json:"accuracy,omitempty"`
}

// File is one file of a model in a results folder.
type File struct {
	Path      string `json:"path"` // relative to the folder
	SizeBytes int64  `json:"size_bytes"`
	SHA256    string `json:"sha256"`
}

// Downloader brings a file by hash; client.Client is one.
type Downloader interface {
	Download(ctx context.Context, ref *espalierv1.FileRef, path string) error
}

// Write writes the folder's results: models first, then the pages that name
// them, each whole or not at all.
func (f *Folder) Write(ctx context.Context, from Downloader, front *espalierv1.Front, summary report.Summary) (report.Front, error) {
	out := folderFront{Front: report.FromProto(front), Files: map[string]map[string]File{}}
	if b := front.Budget; b != nil {
		out.Budget = Budget{b.LatencyNs, b.SizeBytes, b.Accuracy}
	}
	if err := os.MkdirAll(filepath.Join(f.Dir, modelsDir), 0o755); err != nil {
		return report.Front{}, err
	}
	keep := map[string]bool{}
	models := append([]*espalierv1.FrontMember{}, front.Members...)
	if front.Baseline != nil {
		models = append(models, front.Baseline)
	}
	for _, m := range models {
		files, err := f.fetch(ctx, from, m)
		if err != nil {
			return report.Front{}, err
		}
		out.Files[fmt.Sprint(m.Trial)] = files
		for _, file := range files {
			keep[filepath.Base(file.Path)] = true
		}
	}
	for i := range out.Members {
		out.Members[i].Model = out.Files[fmt.Sprint(out.Members[i].Trial)][out.Members[i].Format].Path
	}
	if b := out.Baseline; b != nil {
		b.Model = out.Files["0"][b.Format].Path
	}
	if err := f.writePages(out, summary); err != nil {
		return report.Front{}, err
	}
	return out.Front, f.removeStale(keep)
}

// fetch brings a model's files into the folder.
func (f *Folder) fetch(ctx context.Context, from Downloader, m *espalierv1.FrontMember) (map[string]File, error) {
	files := map[string]File{}
	for _, ref := range m.Artifacts {
		name := fmt.Sprintf("trial-%04d-%.12s.%s", m.Trial, ref.Hash, ref.Format)
		if m.Trial == 0 {
			name = fmt.Sprintf("dense-%.12s.%s", ref.Hash, ref.Format)
		}
		path := filepath.Join(f.Dir, modelsDir, name)
		if info, err := os.Stat(path); err != nil || info.Size() != ref.SizeBytes {
			if err := from.Download(ctx, ref, path); err != nil {
				return nil, fmt.Errorf("bring model of trial %d: %w", m.Trial, err)
			}
		}
		files[ref.Format] = File{Path: filepath.Join(modelsDir, name), SizeBytes: ref.SizeBytes, SHA256: ref.Hash}
	}
	return files, nil
}

func (f *Folder) writePages(out folderFront, summary report.Summary) error {
	var csv, svg, page bytes.Buffer
	err := errors.Join(
		report.WriteCSV(&csv, out.Front),
		report.WriteImage(&svg, out.Front, "svg"),
		report.WritePage(&page, summary, []report.Front{out.Front}),
	)
	if err != nil {
		return err
	}
	for name, b := range map[string][]byte{frontCSV: csv.Bytes(), frontSVG: svg.Bytes(), reportHTML: page.Bytes()} {
		if err := WriteFile(filepath.Join(f.Dir, name), b); err != nil {
			return err
		}
	}
	return writeJSON(filepath.Join(f.Dir, frontJSON), out)
}

// removeStale removes models that left the front.
func (f *Folder) removeStale(keep map[string]bool) error {
	entries, err := os.ReadDir(filepath.Join(f.Dir, modelsDir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !keep[e.Name()] {
			if err := os.Remove(filepath.Join(f.Dir, modelsDir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// ReadFront reads the front of a results folder, also while a search runs.
func ReadFront(dir string) (*folderFront, error) {
	b, err := os.ReadFile(filepath.Join(dir, frontJSON))
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(filepath.Join(dir, stateDir)); err != nil {
			return nil, fmt.Errorf("%w: %s: want the --out folder of `espalier run` or `espalier demo`", ErrNotResults, dir)
		}
		return nil, fmt.Errorf("%w: %s: run the search in it first", ErrNoFront, dir)
	}
	if err != nil {
		return nil, err
	}
	out := &folderFront{}
	if err := json.Unmarshal(b, out); err != nil {
		return nil, fmt.Errorf("%w: read %s: %w", ErrNotResults, frontJSON, err)
	}
	return out, nil
}
