package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/espalier-ml/espalier/job"
	"github.com/espalier-ml/espalier/model/bench"
	"github.com/espalier-ml/espalier/model/esp"
	"github.com/espalier-ml/espalier/model/infer"
	"github.com/espalier-ml/espalier/model/kernel"
	"github.com/espalier-ml/espalier/model/onnx"
)

// runtimeNative names the runtime of model/infer.
const runtimeNative = "native"

// benchFlags are the flags of model bench.
type benchFlags struct {
	batch, threads int
	runtime        string
	kernels        bool
	json           bool
}

func newBench() *cobra.Command {
	var f benchFlags
	cmd := &cobra.Command{
		Use:   "bench FILE",
		Short: "Measure how long a model file takes to run on this machine",
		Long: `Measures how long a model file takes to run on this machine, in about a second.

The native runtime times the kernels of every layer first and takes the fastest.
ONNX Runtime is run by the program espalier-ort; docs/bench.md says what it needs.`,
		Example: "  espalier model bench model.esp --kernels\n  espalier model bench model.onnx --runtime onnxruntime --threads 2 --json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			facts, err := f.measure(cmd.Context(), args[0], bench.Options{})
			if err != nil {
				return err
			}
			if f.json {
				return printJSON(cmd.OutOrStdout(), facts)
			}
			return facts.show(cmd.OutOrStdout())
		},
	}
	cmd.Flags().IntVar(&f.batch, "batch", 1, "examples of one run")
	cmd.Flags().IntVar(&f.threads, "threads", 1, "threads of one run")
	cmd.Flags().StringVar(&f.runtime, "runtime", runtimeNative, "what runs the file: "+runtimeNative+" or "+bench.ONNXRuntimeName)
	cmd.Flags().BoolVar(&f.kernels, "kernels", false, "tell by layer the kernel and its time (native runtime)")
	jsonFlag(cmd, &f.json)
	return cmd
}

// benchFacts is the latency of a file, as JSON. The times are of a whole batch,
// in nanoseconds.
type benchFacts struct {
	File      string `json:"file"`
	Format    string `json:"format"`
	SizeBytes int64  `json:"size_bytes"`
	Int8      bool   `json:"int8,omitempty"`      // some layers are computed on bytes (native runtime)
	Converted bool   `json:"converted,omitempty"` // to ONNX, for ONNX Runtime
	Runtime   string `json:"runtime"`
	Version   string `json:"version,omitempty"` // of ONNX Runtime
	CPU       string `json:"cpu,omitempty"`     // and the native runtime's kernel variant
	Batch     int    `json:"batch"`
	Threads   int    `json:"threads"`
	bench.Latency
	Layers []benchLayer `json:"layers,omitempty"`
}

// benchLayer is one step of the native runtime.
type benchLayer struct {
	Name   string   `json:"name"`
	Op     string   `json:"op"`
	Fused  []string `json:"fused,omitempty"` // layers computed with it
	Kernel string   `json:"kernel"`
	Output []int    `json:"output"`
	TimeNS int64    `json:"time_ns,omitempty"` // of one example on one thread, where kernels were compared
}

func (f benchFlags) check() error {
	switch {
	case f.batch < 1 || f.batch > 1<<16:
		return usagef("--batch %d: want 1 to %d", f.batch, 1<<16)
	case f.threads < 1 || f.threads > 1024:
		return usagef("--threads %d: want 1 to 1024", f.threads)
	case f.runtime != runtimeNative && f.runtime != bench.ONNXRuntimeName:
		return usagef("--runtime %q: want %s or %s", f.runtime, runtimeNative, bench.ONNXRuntimeName)
	case f.kernels && f.runtime != runtimeNative:
		return usagef("--kernels: want it with --runtime %s, which alone tells its kernels", runtimeNative)
	}
	return nil
}

func (f benchFlags) measure(ctx context.Context, path string, o bench.Options) (*benchFacts, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	facts := &benchFacts{File: path, Runtime: f.runtime, Batch: f.batch, Threads: f.threads}
	if f.runtime == runtimeNative {
		return facts, f.native(ctx, facts, o)
	}
	return facts, f.onnxRuntime(ctx, facts, o)
}

func (f benchFlags) native(ctx context.Context, facts *benchFacts, o bench.Options) error {
	g, format, size, err := readModel(facts.File)
	if err != nil {
		return err
	}
	facts.Format, facts.SizeBytes, facts.Int8 = format, size, g.Quant != nil
	m, err := bench.MeasureGraph(ctx, g, infer.Options{Batch: f.batch, Threads: f.threads}, o)
	if err != nil {
		return fmt.Errorf("measure %s: %w", facts.File, err)
	}
	facts.Latency, facts.CPU = m.Latency, kernel.CPU()
	if f.kernels {
		for _, l := range m.Layers {
			facts.Layers = append(facts.Layers, benchLayer{l.Name, l.Kind, l.Fused, l.Kernel, l.Output, l.Time.Nanoseconds()})
		}
	}
	return nil
}

// onnxRuntime measures an ONNX file as it is, and an esp file as the ONNX file
// that it becomes.
func (f benchFlags) onnxRuntime(ctx context.Context, facts *benchFacts, o bench.Options) error {
	head, size, err := headOf(facts.File)
	if err != nil {
		return err
	}
	file := facts.File
	facts.Format, facts.SizeBytes = "onnx", size
	if bytes.Equal(head, []byte(esp.Magic)) {
		dir, err := os.MkdirTemp("", "espalier-bench")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		if file, err = convertToONNX(facts.File, dir); err != nil {
			return err
		}
		facts.Format, facts.Converted = "esp", true
	}
	e, err := bench.ONNXRuntime{}.Measure(ctx, file, f.batch, f.threads, o)
	if err != nil {
		return fmt.Errorf("measure %s: %w", facts.File, err)
	}
	facts.Latency, facts.Version = e.Latency, e.Version
	return nil
}

// headOf gives the first bytes of a model file, and its size.
func headOf(path string) ([]byte, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, usagef("%s: want a model file", path)
	}
	head := make([]byte, len(esp.Magic))
	n, err := io.ReadFull(f, head)
	if err != nil && n == 0 {
		return nil, 0, fmt.Errorf("read %s: %w", path, err)
	}
	return head[:n], info.Size(), nil
}

// convertToONNX writes the model of an esp file to dir as ONNX.
func convertToONNX(path, dir string) (string, error) {
	g, _, _, err := readModel(path)
	if err != nil {
		return "", err
	}
	b, err := onnx.Marshal(g, onnx.Options{ProducerVersion: version})
	if err != nil {
		return "", fmt.Errorf("convert %s to onnx: %w", path, err)
	}
	file := filepath.Join(dir, "model.onnx")
	return file, os.WriteFile(file, b, 0o600)
}

func (f *benchFacts) show(w io.Writer) error {
	fmt.Fprintf(w, "%s: %s, %s\n", f.File, formatText(f.Format, f.Int8), job.FormatSize(f.SizeBytes))
	if f.Converted {
		fmt.Fprintln(w, "measured as the onnx file that it was converted to")
	}
	fmt.Fprintf(w, "%s, batch %d, threads %d\n", strings.Join(nonEmpty(f.Runtime, f.Version, f.CPU), ", "), f.Batch, f.Threads)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "p50\t%s\n", f.P50)
	fmt.Fprintf(t, "p95\t%s\n", f.P95)
	fmt.Fprintf(t, "spread\t%.1f %%\n", 100*f.Spread)
	fmt.Fprintf(t, "drift\t%.1f %%\n", 100*f.Drift)
	fmt.Fprintf(t, "runs\t%d in %d rounds\n", f.Runs, f.Rounds)
	if err := t.Flush(); err != nil || len(f.Layers) == 0 {
		return err
	}
	t = tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nlayer\top\toutput\tkernel\ttime of an example\twith it")
	for _, l := range f.Layers {
		took := "–"
		if l.TimeNS > 0 {
			took = time.Duration(l.TimeNS).String()
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", l.Name, l.Op, shapeText(l.Output), l.Kernel, took, strings.Join(l.Fused, ", "))
	}
	return t.Flush()
}

func nonEmpty(all ...string) []string {
	return slices.DeleteFunc(all, func(s string) bool { return s == "" })
}
