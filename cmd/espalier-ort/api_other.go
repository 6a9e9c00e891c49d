//go:build !((linux || darwin) && (amd64 || arm64))

package main

import (
	"fmt"
	"runtime"
)

const libraryVariable = "ESPALIER_ORT_LIBRARY"

type ort struct{ version string }

type session struct{ input, output []float32 }

func open(string) (*ort, error) {
	return nil, fmt.Errorf("load ONNX Runtime: no support on %s/%s: want Linux or macOS on amd64 or arm64", runtime.GOOS, runtime.GOARCH)
}

func (r *ort) session(string, int, int) (*session, error) { return nil, fmt.Errorf("no ONNX Runtime") }

func (s *session) run() error { return fmt.Errorf("no ONNX Runtime") }

func (s *session) close() {}
