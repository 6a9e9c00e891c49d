package local

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// Names within a results folder.
const (
	stateDir   = ".espalier" // the coordinator's and the worker's own files
	stateFile  = "job.json"  // in stateDir: which job the folder belongs to
	lockFile   = "lock"      // in stateDir
	modelsDir  = "models"
	frontJSON  = "front.json"
	frontCSV   = "front.csv"
	frontSVG   = "front.svg"
	reportHTML = "report.html"
)

// errVersion: the state was written by another version.
var errVersion = errors.New("want version 1")

// state is what a folder remembers of its job.
type state struct {
	Version int             `json:"version"`
	Request string          `json:"request"` // id of the submit: the same job again
	Digest  string          `json:"digest"`  // of the spec
	Spec    json.RawMessage `json:"spec"`
}

// Folder is a results folder that this process holds.
type Folder struct {
	Dir     string
	Resumed bool // it has a job already
	state   state
	lock    *os.File
}

// OpenFolder creates or takes a results folder. It refuses one that is in use
// or that holds files of somebody else's. Bind ties it to a job.
func OpenFolder(dir string) (*Folder, error) {
	if err := checkOurs(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(dir, stateDir), 0o755); err != nil {
		return nil, fmt.Errorf("make results folder: %w", err)
	}
	lock, err := takeLock(filepath.Join(dir, stateDir, lockFile))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return &Folder{Dir: dir, lock: lock}, nil
}

// Close gives the folder back. One that was never bound to a job is removed, as
// far as it holds nothing but our own state.
func (f *Folder) Close() error {
	var err error
	if f.state.Version == 0 {
		if _, missing := os.Stat(f.path(stateFile)); missing != nil {
			err = os.RemoveAll(filepath.Join(f.Dir, stateDir))
			_ = os.Remove(f.Dir) // refused, rightly, if it is not empty
		}
	}
	return errors.Join(err, f.lock.Close())
}

// Request is the id under which the folder's job is submitted, always the same.
func (f *Folder) Request() string { return f.state.Request }

// path is a file of ours in the state folder.
func (f *Folder) path(name string) string { return filepath.Join(f.Dir, stateDir, name) }

// checkOurs refuses a folder with files in it that has no state of ours.
func checkOurs(dir string) error {
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%w: %s is a file: want a new or empty folder", ErrNotResults, dir)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == stateDir {
			return nil
		}
	}
	if len(entries) > 0 {
		return fmt.Errorf("%w: %s holds other files, such as %q: want a new or empty folder", ErrNotResults, dir, entries[0].Name())
	}
	return nil
}

func takeLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: another espalier works there; wait for it or use another folder", ErrInUse), f.Close())
	}
	return f, nil
}

// Bind ties the folder to spec, or checks that it is tied to it.
func (f *Folder) Bind(spec *espalierv1.JobSpec) error {
	digest, text, err := digestOf(spec)
	if err != nil {
		return err
	}
	b, err := os.ReadFile(f.path(stateFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f.state = state{Version: 1, Request: "folder-" + digest[:16], Digest: digest, Spec: text}
		return writeJSON(f.path(stateFile), f.state)
	case err != nil:
		return err
	}
	if err := json.Unmarshal(b, &f.state); err != nil || f.state.Version != 1 {
		return fmt.Errorf("%w: %s cannot be read: use another folder: %w", ErrNotResults, f.path(stateFile), errors.Join(err, errVersion))
	}
	if f.state.Digest != digest {
		return fmt.Errorf("%w: %s: it differs in %s; use another --out folder", ErrOtherJob, f.Dir, differences(f.state.Spec, text))
	}
	f.Resumed = true
	return nil
}

func digestOf(spec *espalierv1.JobSpec) (string, json.RawMessage, error) {
	wire, err := proto.MarshalOptions{Deterministic: true}.Marshal(spec)
	if err != nil {
		return "", nil, err
	}
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(spec)
	sum := sha256.Sum256(wire)
	return hex.EncodeToString(sum[:]), text, err
}

// differences names the top-level fields in which two specs differ.
func differences(a, b json.RawMessage) string {
	var x, y map[string]any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return "its settings"
	}
	var names []string
	for _, k := range []string{"name", "model", "data", "train", "space", "devices", "budgets", "search", "stop"} {
		p, _ := json.Marshal(x[k])
		q, _ := json.Marshal(y[k])
		if string(p) != string(q) {
			names = append(names, k)
		}
	}
	if len(names) == 0 {
		return "its settings"
	}
	return strings.Join(names, ", ")
}

func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return WriteFile(path, append(b, '\n'))
}

// WriteFile replaces path with b, whole or not at all.
func WriteFile(path string, b []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".part-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = tmp.Write(b)
	if err == nil {
		err = tmp.Chmod(0o644)
	}
	if err == nil {
		err = tmp.Sync()
	}
	err = errors.Join(err, tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, errors.Join(err, os.Remove(tmp.Name())))
	}
	return nil
}
