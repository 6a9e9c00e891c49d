package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"

	"github.com/espalier-ml/espalier/model/bench"
	"github.com/espalier-ml/espalier/model/data"
	"github.com/espalier-ml/espalier/model/kernel"
	"github.com/espalier-ml/espalier/model/train"
)

const batchSize = 64

// same gives one batch again and again.
type same struct{ b *data.Batch }

func (s same) Steps() int { return 1 << 20 }

func (s same) Epoch(int) iter.Seq[*data.Batch] {
	return func(yield func(*data.Batch) bool) {
		for yield(s.b) {
		}
	}
}

var errEnough = errors.New("enough")

// train adds the rows of training steps.
func (s *settings) train(ctx context.Context) error {
	for _, n := range networks {
		if !s.wants("train", n.name) {
			continue
		}
		for _, k := range s.kernels {
			for _, threads := range []int{1, 2} {
				others := map[string]func() (float64, error){}
				if s.torch != nil {
					for _, layout := range []string{"nchw", "nhwc"} {
						if !n.flat || layout == "nchw" {
							others["torch "+layout] = func() (float64, error) { return s.torch.step(n.name, threads, layout, s.turn, s.cpu) }
						}
					}
				}
				r := row{What: "training step, batch 64", Network: n.name, Threads: threads, Kernel: string(k)}
				if err := s.contest(r, func() (float64, error) { return s.step(ctx, n, threads, k) }, others); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// step trains for a turn and gives the median time of a step.
func (s *settings) step(ctx context.Context, n network, threads int, k kernel.Variant) (float64, error) {
	restore, err := kernel.Force(k)
	if err != nil {
		return 0, err
	}
	defer restore()
	g, err := n.build()
	if err != nil {
		return 0, err
	}
	b := &data.Batch{Inputs: bench.Input(batchSize * g.Input.Elements())}
	for i := range batchSize {
		b.Labels = append(b.Labels, int32(i%10))
	}
	var times []float64
	var start, last time.Time
	var cpu time.Duration
	_, err = train.Train(ctx, g, same{b}, train.Options{Steps: 1 << 20, Threads: threads,
		OnProgress: func(p train.Progress) {
			now := time.Now()
			if p.Step > 3 {
				times = append(times, float64(now.Sub(last).Nanoseconds())/1e3)
			} else {
				start, cpu = now, processTime()
			}
			last = time.Now()
		},
		Gate: func(context.Context) error {
			if len(times) > 0 && time.Since(start) > s.turn {
				return errEnough
			}
			return nil
		}})
	if !errors.Is(err, errEnough) {
		return 0, fmt.Errorf("train %s: %w", n.name, err)
	}
	if s.cpu {
		return float64((processTime() - cpu).Nanoseconds()) / 1e3 / float64(len(times)), nil
	}
	return median(times), nil
}

// processTime is the processor time of this process so far.
func processTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// torch is the process that times PyTorch.
type torch struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func startTorch(ctx context.Context, script string) (*torch, error) {
	python := os.Getenv("PYTHON")
	if python == "" {
		python = "/usr/bin/python3"
	}
	c := exec.CommandContext(ctx, python, script)
	in, err := c.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.Start(); err != nil {
		return nil, err
	}
	t := &torch{c, in, bufio.NewScanner(out)}
	var v struct{ Version string }
	if err := t.answer(&v); err != nil {
		t.stop()
		return nil, fmt.Errorf("start %s %s: %w", python, script, err)
	}
	fmt.Fprintln(os.Stderr, "engine: PyTorch", v.Version)
	return t, nil
}

func (t *torch) answer(v any) error {
	if !t.out.Scan() {
		return fmt.Errorf("no answer: %w", errors.Join(t.out.Err(), io.ErrUnexpectedEOF))
	}
	return json.Unmarshal(t.out.Bytes(), v)
}

func (t *torch) step(net string, threads int, layout string, turn time.Duration, cpu bool) (float64, error) {
	q := map[string]any{"net": net, "threads": threads, "layout": layout, "seconds": turn.Seconds(), "cpu": cpu}
	if err := json.NewEncoder(t.in).Encode(q); err != nil {
		return 0, err
	}
	var a struct{ Ms float64 }
	err := t.answer(&a)
	return a.Ms * 1e3, err
}

func (t *torch) stop() {
	t.in.Close()
	_ = t.cmd.Wait()
}
