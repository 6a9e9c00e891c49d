package main

import (
	"errors"
	"strings"
	"testing"
)

func TestWrongUse(t *testing.T) {
	for _, args := range [][]string{nil, {"bench"}, {"run"}, {"measure", "a", "b"}, {"version", "x"}, {"run", "--batch", "0", "a"}, {"run", "--rounds", "3", "a"}, {"measure", "--threads", "x", "a"}} {
		if err := command(t.Context(), args, strings.NewReader(""), &strings.Builder{}); !errors.Is(err, errUsage) {
			t.Errorf("%q: %v: want %v", args, err, errUsage)
		}
	}
}

func TestLibraryIsMissing(t *testing.T) {
	err := command(t.Context(), []string{"version", "--library", t.TempDir() + "/none.so"}, strings.NewReader(""), &strings.Builder{})
	if err == nil || errors.Is(err, errUsage) || !strings.Contains(err.Error(), "load ONNX Runtime") {
		t.Errorf("%v: want a message about the library", err)
	}
}
