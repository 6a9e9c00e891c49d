// Command espalier-ort runs ONNX files on ONNX Runtime for espalier: it is a
// program of its own because it loads a shared library, which the espalier
// binary, being static, cannot.
//
//	espalier-ort version
//	espalier-ort measure [flags] FILE.onnx    prints the latency as JSON
//	espalier-ort run [flags] FILE.onnx        float32, little endian: inputs on stdin, outputs on stdout
//
// Exit codes: 0 done, 1 failed, 2 wrong use.
package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"

	"github.com/espalier-ml/espalier/model/bench"
)

var errUsage = errors.New("wrong use")

const usage = "usage: espalier-ort version | measure [flags] FILE.onnx | run [flags] FILE.onnx"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := command(ctx, os.Args[1:], os.Stdin, os.Stdout)
	stop()
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, "espalier-ort:", err)
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "espalier-ort:", err)
		os.Exit(1)
	}
}

func command(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	if len(args) == 0 || !slices.Contains([]string{"version", "measure", "run"}, args[0]) {
		return fmt.Errorf("%w: %s", errUsage, usage)
	}
	var o bench.Options
	f := flag.NewFlagSet("espalier-ort "+args[0], flag.ContinueOnError)
	library := f.String("library", "", "the ONNX Runtime shared library; else that of "+libraryVariable+", or where the system finds it")
	batch := f.Int("batch", 1, "examples of one run, where the file leaves it open")
	threads := f.Int("threads", 1, "threads of one run")
	if args[0] == "measure" {
		f.DurationVar(&o.WarmUp, "warm-up", 0, "time spent running first")
		f.IntVar(&o.Rounds, "rounds", 0, "rounds of measurement")
		f.DurationVar(&o.Round, "round", 0, "time of a round")
		f.IntVar(&o.Samples, "samples", 0, "fewest samples of a round")
		f.DurationVar(&o.Max, "max", 0, "time of all rounds")
	}
	if err := f.Parse(args[1:]); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if *batch < 1 || *batch > 1<<16 || *threads < 1 || *threads > 1024 {
		return fmt.Errorf("%w: batch %d, threads %d: want 1 to 65536 and 1 to 1024", errUsage, *batch, *threads)
	}
	if want := 1; args[0] == "version" && f.NArg() != 0 || args[0] != "version" && f.NArg() != want {
		return fmt.Errorf("%w: %s", errUsage, usage)
	}
	r, err := open(*library)
	if err != nil {
		return err
	}
	if args[0] == "version" {
		_, err := fmt.Fprintln(out, r.version)
		return err
	}
	s, err := r.session(f.Arg(0), *batch, *threads)
	if err != nil {
		return err
	}
	defer s.close()
	if args[0] == "run" {
		return pipe(s, in, out)
	}
	copy(s.input, bench.Input(len(s.input)))
	l, err := bench.Measure(ctx, s.run, o)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(bench.External{Latency: l, Runtime: bench.ONNXRuntimeName, Version: r.version, Batch: *batch, Threads: *threads})
}

// pipe runs the inputs that it reads, batch after batch, and writes the
// outputs.
func pipe(s *session, in io.Reader, out io.Writer) error {
	for {
		err := binary.Read(in, binary.LittleEndian, s.input)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read input: want batches of %d float32: %w", len(s.input), err)
		}
		if err := s.run(); err != nil {
			return err
		}
		if err := binary.Write(out, binary.LittleEndian, s.output); err != nil {
			return fmt.Errorf("write output: %w", err)
		}
	}
}
