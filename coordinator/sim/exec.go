package sim

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"time"

	"github.com/espalier-ml/espalier/search"
)

// maxLine bounds a line of an external program.
const maxLine = 1 << 20

// Exec is a problem that an external program evaluates, one JSON object per line.
//
// Its first line describes the problem: {"params": [...], "reference": [11, 11]}, where params is a list of
// {"name", "kind": "float"|"int"|"choice", "min", "max", "log", "choices", "ordered", "when": {"param", "values"}}. Then
// each line that it reads holds a configuration's active parameters by name, {"x1": 0.5, "kind": "a"}, and it answers
// {"objectives": [1.5, 0.2]}, lower is better, or {"error": "why"}, which fails the trial.
type Exec struct {
	cmd       *exec.Cmd
	in        io.WriteCloser
	out       *bufio.Scanner
	space     search.Space
	reference []float64
}

// StartExec starts the program by the shell and reads its description. Its stderr goes to this process's.
func StartExec(ctx context.Context, command string) (*Exec, error) {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	cmd.Stderr = os.Stderr
	cmd.WaitDelay = 2 * time.Second
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%w: start %q: %w", ErrProblem, command, err)
	}
	e := &Exec{cmd: cmd, in: in, out: bufio.NewScanner(out)}
	e.out.Buffer(nil, maxLine)
	if err := e.describe(); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

func (e *Exec) describe() error {
	var d struct {
		Params    []search.Param `json:"params"`
		Reference []float64      `json:"reference"`
	}
	if err := e.read(&d); err != nil {
		return fmt.Errorf("%w: first line: %w", ErrProblem, err)
	}
	e.space, e.reference = search.Space{Params: d.Params}, d.Reference
	if err := e.space.Validate(); err != nil {
		return fmt.Errorf("%w: first line: %w", ErrProblem, err)
	}
	if n := len(d.Reference); n < 1 || n > 3 {
		return fmt.Errorf("%w: first line: reference has %d numbers, it must have one for each of 1 to 3 objectives", ErrProblem, n)
	}
	return nil
}

func (e *Exec) read(v any) error {
	if !e.out.Scan() {
		if err := e.out.Err(); err != nil {
			return err
		}
		return io.ErrUnexpectedEOF
	}
	return json.Unmarshal(e.out.Bytes(), v)
}

// Space implements Problem.
func (e *Exec) Space() search.Space { return e.space }

// Reference implements Problem.
func (e *Exec) Reference() []float64 { return e.reference }

// Evaluate implements Problem.
func (e *Exec) Evaluate(c search.Config) ([]float64, error) {
	params, err := e.space.Decode(c)
	if err != nil {
		return nil, err
	}
	line, err := json.Marshal(params)
	if err != nil {
		return nil, err
	}
	if _, err := e.in.Write(append(line, '\n')); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProblem, err)
	}
	var answer struct {
		Objectives []float64 `json:"objectives"`
		Error      string    `json:"error"`
	}
	if err := e.read(&answer); err != nil {
		return nil, fmt.Errorf("%w: answer to %s: %w", ErrProblem, line, err)
	}
	if answer.Error != "" {
		return nil, fmt.Errorf("%w: %s", ErrTrial, answer.Error)
	}
	for _, v := range answer.Objectives {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, fmt.Errorf("%w: answer to %s: objectives %v must be finite", ErrProblem, line, answer.Objectives)
		}
	}
	return answer.Objectives, nil
}

// Close ends the program: its input is closed, and it is killed if it does not end by itself.
func (e *Exec) Close() error {
	err := e.in.Close()
	timer := time.AfterFunc(2*time.Second, func() { _ = e.cmd.Process.Kill() })
	defer timer.Stop()
	for e.out.Scan() { // a program that still writes must not block
	}
	if wait := e.cmd.Wait(); wait != nil {
		err = fmt.Errorf("%w: %w", ErrProblem, wait)
	}
	return err
}
