package local

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
	"github.com/espalier-ml/espalier/report"
	"github.com/espalier-ml/espalier/search/pareto"
)

func spec(trials int32) *espalierv1.JobSpec {
	return &espalierv1.JobSpec{Name: "a", Stop: &espalierv1.StopSpec{Trials: trials}}
}

func open(t *testing.T, dir string) *Folder {
	t.Helper()
	f, err := OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestFolderBelongsToOneJob(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "out")
	f := open(t, dir)
	if err := f.Bind(spec(3)); err != nil || f.Resumed {
		t.Fatalf("a new folder: resumed %v, %v", f.Resumed, err)
	}
	request := f.Request()
	if _, err := OpenFolder(dir); !errors.Is(err, ErrInUse) {
		t.Errorf("a folder in use: got %v, want ErrInUse", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	f = open(t, dir)
	if err := f.Bind(spec(4)); !errors.Is(err, ErrOtherJob) || !strings.Contains(err.Error(), "differs in stop") {
		t.Errorf("another job: got %v, want ErrOtherJob that names the field", err)
	}
	if err := f.Bind(spec(3)); err != nil || !f.Resumed || f.Request() != request {
		t.Errorf("the same job: resumed %v, request %q, %v", f.Resumed, f.Request(), err)
	}
}

func TestFolderIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	letter := filepath.Join(dir, "letter.txt")
	if err := os.WriteFile(letter, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"other files": dir, "a file": letter} {
		if _, err := OpenFolder(path); !errors.Is(err, ErrNotResults) {
			t.Errorf("%s: got %v, want ErrNotResults", name, err)
		}
	}
	fresh := filepath.Join(dir, "fresh")
	if err := open(t, fresh).Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(fresh); err == nil {
		t.Error("a folder that was never bound to a job is still there")
	}
	damaged := filepath.Join(dir, "damaged")
	if err := open(t, damaged).Bind(spec(1)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(damaged, stateDir, stateFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := &Folder{Dir: damaged}
	if err := f.Bind(spec(1)); !errors.Is(err, ErrNotResults) {
		t.Errorf("damaged state: got %v, want ErrNotResults", err)
	}
}

// store is a Downloader over files in memory.
type store map[string][]byte

func (s store) Download(_ context.Context, ref *espalierv1.FileRef, path string) error {
	b, ok := s[ref.Hash]
	if !ok {
		return errors.New("no such file")
	}
	return os.WriteFile(path, b, 0o600)
}

func (s store) member(trial int32, accuracy float64, p95 int64, text string) *espalierv1.FrontMember {
	sum := sha256.Sum256([]byte(text))
	ref := &espalierv1.FileRef{Hash: hex.EncodeToString(sum[:]), SizeBytes: int64(len(text)), Format: "esp"}
	s[ref.Hash] = []byte(text)
	return &espalierv1.FrontMember{
		Trial: trial, Accuracy: accuracy, SizeBytes: ref.SizeBytes, LatencyP50Ns: p95 / 2, LatencyP95Ns: p95,
		Format: "esp", Artifact: ref.Hash, Artifacts: []*espalierv1.FileRef{ref},
	}
}

func TestWriteReadSelectPull(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	f, s := open(t, dir), store{}
	if _, err := ReadFront(dir); !errors.Is(err, ErrNoFront) {
		t.Errorf("before the first result: got %v, want ErrNoFront", err)
	}
	if err := f.Bind(spec(1)); err != nil {
		t.Fatal(err)
	}
	front := &espalierv1.Front{
		Job: "j", Name: "a", Device: "local", Baseline: s.member(0, 0.99, 9000, "the dense model"),
		Members: []*espalierv1.FrontMember{s.member(1, 0.9, 4000, "large one"), s.member(2, 0.8, 2000, "small")},
		Budget:  &espalierv1.Budget{LatencyNs: 3000},
	}
	for range 2 { // the second time nothing is missing
		if _, err := f.Write(t.Context(), s, front, report.Summary{}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := ReadFront(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		limits Budget
		want   int
	}{{Budget{}, 2}, {Budget{LatencyNs: 4000}, 1}, {Budget{LatencyNs: 3999}, 2}, {Budget{LatencyNs: 9000, SizeBytes: 5}, 2}} {
		if m, err := got.Select(tc.limits); err != nil || m.Trial != tc.want {
			t.Errorf("%+v: got trial %d, %v; want %d", tc.limits, m.Trial, err, tc.want)
		}
	}
	if _, err := got.Select(Budget{Accuracy: 0.85}); !errors.Is(err, pareto.ErrNoFit) {
		t.Errorf("out of reach: got %v, want ErrNoFit", err)
	}
	m, _ := got.Select(Budget{})
	to := filepath.Join(dir, "pulled")
	if p, err := got.Pull(dir, m, "", to); err != nil || !p.Measured || p.Bytes != 5 {
		t.Errorf("pull: %+v, %v", p, err)
	}
	if _, err := got.Pull(dir, m, "tflite", to); err == nil {
		t.Error("a format that is not there was pulled")
	}

	// A file that was changed is not handed out.
	path := filepath.Join(dir, got.Files["2"]["esp"].Path)
	if err := os.WriteFile(path, []byte("smaLl"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := got.Pull(dir, m, "", filepath.Join(dir, "bad")); err == nil {
		t.Error("a changed file was pulled")
	}
	if _, err := os.Stat(filepath.Join(dir, "bad")); err == nil {
		t.Error("a refused pull left a file")
	}

	// What left the front leaves the folder.
	front.Members = front.Members[:1]
	if _, err := f.Write(t.Context(), s, front, report.Summary{}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the model of a former member is still there")
	}
	delete(s, front.Members[0].Artifact)
	if err := os.RemoveAll(filepath.Join(dir, modelsDir)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(t.Context(), s, front, report.Summary{}); err == nil {
		t.Error("a front without its models was written")
	}
}
