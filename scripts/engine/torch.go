package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

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
