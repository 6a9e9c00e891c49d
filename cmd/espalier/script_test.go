package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/esp"
	"github.com/espalier-ml/espalier/model/onnx"
	"github.com/espalier-ml/espalier/model/zoo"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"espalier": main})
}

// TestScripts runs the scenarios in testdata on the command line.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Condition: func(cond string) (bool, error) {
			if cond == "short" {
				return testing.Short(), nil
			}
			return false, errors.New("unknown condition")
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "zoo": zooFile},
	})
}

// exits CODE COMMAND ARGS… runs a command that must end with that code.
// Its output is in the files stdout.txt and stderr.txt.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND ARGS…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	out, err := os.Create(ts.MkAbs("stdout.txt"))
	ts.Check(err)
	defer out.Close()
	errOut, err := os.Create(ts.MkAbs("stderr.txt"))
	ts.Check(err)
	defer errOut.Close()
	path, err := exec.LookPath(args[1])
	ts.Check(err)
	cmd := exec.Command(path, args[2:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = ts.Getenv("WORK"), out, errOut
	cmd.Env = append(os.Environ(), "HOME="+ts.Getenv("WORK"))
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		ts.Fatalf("%v", err)
	}
	if got := cmd.ProcessState.ExitCode(); got != want {
		ts.Fatalf("exit code %d, want %d:\n%s", got, want, ts.ReadFile("stderr.txt"))
	}
}

// zoo NETWORK FILE [SIDE] writes a network of the zoo for 20×20×1 images, or others
// of one channel, by the file's ending as esp or onnx.
func zooFile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: zoo NETWORK FILE [SIDE]")
	}
	side := 20
	if len(args) == 3 {
		var err error
		side, err = strconv.Atoi(args[2])
		ts.Check(err)
	}
	g, err := zoo.Build(args[0], model.Shape{side, side, 1}, 10, 1)
	ts.Check(err)
	var b bytes.Buffer
	if filepath.Ext(args[1]) == ".onnx" {
		ts.Check(onnx.Write(&b, g, onnx.Options{ProducerVersion: version}))
	} else {
		ts.Check(esp.Write(&b, g))
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), b.Bytes(), 0o600))
}
