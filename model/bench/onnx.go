package bench

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// ErrRuntime says that the other runtime cannot be used: the helper or the library is
// missing, or it refused the file.
var ErrRuntime = errors.New("runtime failed")

// ONNXRuntimeName names the runtime in reports.
const ONNXRuntimeName = "onnxruntime"

// HelperVariable names the environment variable with the path of the helper.
const HelperVariable = "ESPALIER_ORT_HELPER"

// External is the latency of a file on another runtime, as its helper prints
// it. The latency is that of the whole batch.
type External struct {
	Latency
	Runtime string `json:"runtime"`
	Version string `json:"version"`
	Batch   int    `json:"batch"`
	Threads int    `json:"threads"`
}

// ONNXRuntime runs ONNX files by the helper espalier-ort.
type ONNXRuntime struct {
	// Helper is the program. Empty: what HelperVariable says, or espalier-ort
	// beside this program, or on the path.
	Helper string
	// Library is the shared library for it; empty leaves the choice to it.
	Library string
}

// Measure measures file, with the given number of examples in a run where the
// file leaves it open.
func (r ONNXRuntime) Measure(ctx context.Context, file string, batch, threads int, o Options) (External, error) {
	o, err := o.withDefaults()
	if err != nil {
		return External{}, err
	}
	args := r.flags(batch, threads)
	for _, d := range []struct {
		name string
		v    time.Duration
	}{{"warm-up", o.WarmUp}, {"round", o.Round}, {"max", o.Max}} {
		args = append(args, "--"+d.name, d.v.String())
	}
	args = append(args, "--rounds", strconv.Itoa(o.Rounds), "--samples", strconv.Itoa(o.Samples), file)
	out, err := r.call(ctx, nil, "measure", args...)
	if err != nil {
		return External{}, err
	}
	var e External
	if err := json.Unmarshal(out, &e); err != nil {
		return External{}, fmt.Errorf("%w: read what the helper printed: %w", ErrRuntime, err)
	}
	return e, nil
}

// Run evaluates batches of examples, in the layout of the file's input.
func (r ONNXRuntime) Run(ctx context.Context, file string, batch int, x []float32) ([]float32, error) {
	var in bytes.Buffer
	if err := binary.Write(&in, binary.LittleEndian, x); err != nil {
		return nil, err
	}
	out, err := r.call(ctx, &in, "run", append(r.flags(batch, 1), file)...)
	if err != nil {
		return nil, err
	}
	y := make([]float32, len(out)/4)
	return y, binary.Read(bytes.NewReader(out), binary.LittleEndian, y)
}

// Version asks for the version of the library: whether it can be used at all.
func (r ONNXRuntime) Version(ctx context.Context) (string, error) {
	var args []string
	if r.Library != "" {
		args = []string{"--library", r.Library}
	}
	out, err := r.call(ctx, nil, "version", args...)
	return strings.TrimSpace(string(out)), err
}

func (r ONNXRuntime) flags(batch, threads int) []string {
	args := []string{"--batch", strconv.Itoa(batch), "--threads", strconv.Itoa(threads)}
	if r.Library != "" {
		args = append(args, "--library", r.Library)
	}
	return args
}

// helper finds the program.
func (r ONNXRuntime) helper() (string, error) {
	const name = "espalier-ort"
	if r.Helper != "" {
		return r.Helper, nil
	}
	if p := os.Getenv(HelperVariable); p != "" {
		if !isFile(p) {
			return "", fmt.Errorf("%w: %s is %q: want the path of the program %s, as \"go build ./cmd/%s\" makes it", ErrRuntime, HelperVariable, p, name, name)
		}
		return p, nil
	}
	if self, err := os.Executable(); err == nil {
		if p := filepath.Join(filepath.Dir(self), name); isFile(p) {
			return p, nil
		}
	}
	p, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%w: no %s beside this program or on the path: build it with \"go build ./cmd/espalier-ort\", or say where it is with %s: %w",
			ErrRuntime, name, HelperVariable, err)
	}
	return p, nil
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

func (r ONNXRuntime) call(ctx context.Context, in *bytes.Buffer, command string, args ...string) ([]byte, error) {
	helper, err := r.helper()
	if err != nil {
		return nil, err
	}
	c := exec.CommandContext(ctx, helper, append([]string{command}, args...)...)
	if in != nil {
		c.Stdin = in
	}
	var errText bytes.Buffer
	c.Stderr = &errText
	out, err := c.Output()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s %s: %w: %s", ErrRuntime, filepath.Base(helper), command, err, strings.TrimSpace(errText.String()))
	}
	return out, nil
}
