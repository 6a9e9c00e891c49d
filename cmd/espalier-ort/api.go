//go:build (linux || darwin) && (amd64 || arm64)

package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"unsafe"

	"github.com/ebitengine/purego"
)

// The functions of OrtApi that are used, by their place in the table. Places
// never change: new functions are added at the end (onnxruntime_c_api.h).
const (
	getErrorMessage                  = 2
	createEnv                        = 3
	createSession                    = 7
	runSession                       = 9
	createSessionOptions             = 10
	setSessionGraphOptimizationLevel = 23
	setIntraOpNumThreads             = 24
	setInterOpNumThreads             = 25
	sessionGetInputCount             = 30
	sessionGetOutputCount            = 31
	sessionGetInputTypeInfo          = 33
	sessionGetOutputTypeInfo         = 34
	sessionGetInputName              = 36
	sessionGetOutputName             = 37
	createTensorWithDataAsOrtValue   = 49
	castTypeInfoToTensorInfo         = 55
	getTensorElementType             = 60
	getDimensionsCount               = 61
	getDimensions                    = 62
	createCPUMemoryInfo              = 69
	getAllocatorWithDefaultOptions   = 78
	releaseStatus                    = 93
	releaseMemoryInfo                = 94
	releaseSession                   = 95
	releaseValue                     = 96
	releaseTypeInfo                  = 98
	releaseSessionOptions            = 100
	tableLength                      = 101
	apiVersion                       = 17 // of ONNX Runtime 1.17 and later
	levelWarning, optimizeAll, float = 2, 99, 1
)

// ort is the loaded library. Everything that C writes to or keeps lies on the
// heap, which Go does not move.
type ort struct {
	table   *[tableLength]uintptr
	version string
	env     *uintptr
}

const libraryVariable = "ESPALIER_ORT_LIBRARY"

func libraryNames() []string {
	if runtime.GOOS == "darwin" {
		return []string{"libonnxruntime.dylib", "libonnxruntime.1.dylib"}
	}
	return []string{"libonnxruntime.so.1", "libonnxruntime.so"}
}

// open loads the library from path, or from where libraryVariable says, or from
// where the system looks.
func open(path string) (*ort, error) {
	names := libraryNames()
	if path == "" {
		path = os.Getenv(libraryVariable)
	}
	if path != "" {
		names = []string{path}
	}
	var lib uintptr
	var err error
	for _, n := range names {
		if lib, err = purego.Dlopen(n, purego.RTLD_NOW|purego.RTLD_GLOBAL); err == nil {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("load ONNX Runtime: %w: set --library or %s to its shared library, which the npm package onnxruntime-node has as bin/napi-v6/%s/%s/%s",
			err, libraryVariable, runtime.GOOS, strings.Replace(runtime.GOARCH, "amd64", "x64", 1), libraryNames()[0])
	}
	symbol, err := purego.Dlsym(lib, "OrtGetApiBase")
	if err != nil {
		return nil, fmt.Errorf("load ONNX Runtime: %w: is it really its shared library?", err)
	}
	base, _, _ := purego.SyscallN(symbol)
	functions := *(**[2]uintptr)(unsafe.Pointer(&base))
	version, _, _ := purego.SyscallN(functions[1])
	table, _, _ := purego.SyscallN(functions[0], apiVersion)
	r := &ort{version: text(version), env: new(uintptr)}
	if table == 0 {
		return nil, fmt.Errorf("load ONNX Runtime: version %s: want 1.17 or later", r.version)
	}
	r.table = *(**[tableLength]uintptr)(unsafe.Pointer(&table))
	name := cString("espalier")
	return r, r.call(createEnv, levelWarning, address(&name[0]), address(r.env))
}

// call calls a function that returns a status, and turns that into an error.
func (r *ort) call(place int, args ...uintptr) error {
	status, _, _ := purego.SyscallN(r.table[place], args...)
	if status == 0 {
		return nil
	}
	message, _, _ := purego.SyscallN(r.table[getErrorMessage], status)
	err := fmt.Errorf("ONNX Runtime: %s", text(message))
	purego.SyscallN(r.table[releaseStatus], status)
	return err
}

func (r *ort) release(place int, handle uintptr) {
	if handle != 0 {
		purego.SyscallN(r.table[place], handle)
	}
}

// session is a loaded file with its input and output, on the heap.
type session struct {
	r             *ort
	input, output []float32

	handles [8]uintptr // options, session, memory, input, output; the others for results of calls
	shapes  [2][]int64
	names   [2]uintptr // C strings of the library's allocator
}

const (
	hOptions = iota
	hSession
	hMemory
	hInput
	hOutput
	hResult
	hInfo
	hCount
)

// session loads a file with one float32 input and one float32 output. Open
// dimensions become batch.
func (r *ort) session(file string, batch, threads int) (_ *session, err error) {
	s := &session{r: r}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if _, err := os.Stat(file); err != nil {
		return nil, fmt.Errorf("open model: %w", err)
	}
	path := cString(file)
	h := &s.handles
	for _, c := range []struct {
		place int
		args  []uintptr
	}{
		{createSessionOptions, []uintptr{address(&h[hOptions])}},
		{setIntraOpNumThreads, []uintptr{0, uintptr(threads)}},
		{setInterOpNumThreads, []uintptr{0, 1}},
		{setSessionGraphOptimizationLevel, []uintptr{0, optimizeAll}},
		{createSession, []uintptr{*r.env, address(&path[0]), 0, address(&h[hSession])}},
		{createCPUMemoryInfo, []uintptr{0, 0, address(&h[hMemory])}},
	} {
		switch c.place { // the options exist only after the first call
		case setIntraOpNumThreads, setInterOpNumThreads, setSessionGraphOptimizationLevel:
			c.args[0] = h[hOptions]
		case createSession:
			c.args[2] = h[hOptions]
		}
		if err := r.call(c.place, c.args...); err != nil {
			return nil, err
		}
	}
	runtime.KeepAlive(path)
	if s.input, err = s.bind(0, batch); err != nil {
		return nil, fmt.Errorf("input: %w", err)
	}
	if s.output, err = s.bind(1, batch); err != nil {
		return nil, fmt.Errorf("output: %w", err)
	}
	return s, nil
}

// bind makes a tensor for the input (0) or the output (1).
func (s *session) bind(k, batch int) ([]float32, error) {
	h := &s.handles
	count := [2]int{sessionGetInputCount, sessionGetOutputCount}[k]
	if err := s.r.call(count, h[hSession], address(&h[hCount])); err != nil {
		return nil, err
	}
	if h[hCount] != 1 {
		return nil, fmt.Errorf("the model has %d: want one", h[hCount])
	}
	if err := s.r.call(getAllocatorWithDefaultOptions, address(&h[hResult])); err != nil {
		return nil, err
	}
	name := [2]int{sessionGetInputName, sessionGetOutputName}[k]
	if err := s.r.call(name, h[hSession], 0, h[hResult], address(&s.names[k])); err != nil {
		return nil, err
	}
	if err := s.shape(k, batch); err != nil {
		return nil, err
	}
	n := int64(1)
	for _, d := range s.shapes[k] {
		if d < 1 || n > 1<<28/d {
			return nil, fmt.Errorf("shape %v: want dimensions of 1 or more and at most %d values", s.shapes[k], 1<<28)
		}
		n *= d
	}
	data := make([]float32, n)
	return data, s.r.call(createTensorWithDataAsOrtValue, h[hMemory], address(&data[0]), uintptr(4*n), address(&s.shapes[k][0]),
		uintptr(len(s.shapes[k])), float, address(&h[hInput+k]))
}

// shape asks for the dimensions of the input or the output.
func (s *session) shape(k, batch int) error {
	h := &s.handles
	info := [2]int{sessionGetInputTypeInfo, sessionGetOutputTypeInfo}[k]
	if err := s.r.call(info, h[hSession], 0, address(&h[hInfo])); err != nil {
		return err
	}
	defer func() { s.r.release(releaseTypeInfo, h[hInfo]) }()
	if err := s.r.call(castTypeInfoToTensorInfo, h[hInfo], address(&h[hResult])); err != nil {
		return err
	}
	if h[hResult] == 0 {
		return fmt.Errorf("not a tensor")
	}
	kind := new(int32)
	if err := s.r.call(getTensorElementType, h[hResult], address(kind)); err != nil {
		return err
	}
	if *kind != float {
		return fmt.Errorf("element type %d: want float32", *kind)
	}
	if err := s.r.call(getDimensionsCount, h[hResult], address(&h[hCount])); err != nil {
		return err
	}
	if h[hCount] < 1 || h[hCount] > 16 {
		return fmt.Errorf("%d dimensions: want 1 to 16", h[hCount])
	}
	s.shapes[k] = make([]int64, h[hCount])
	if err := s.r.call(getDimensions, h[hResult], address(&s.shapes[k][0]), h[hCount]); err != nil {
		return err
	}
	for i, d := range s.shapes[k] {
		if d < 0 {
			s.shapes[k][i] = int64(batch)
		}
	}
	if i := slices.Index(s.shapes[k], 0); i >= 0 {
		return fmt.Errorf("shape %v: dimension %d is 0", s.shapes[k], i)
	}
	return nil
}

// run evaluates input into output.
func (s *session) run() error {
	h := &s.handles
	err := s.r.call(runSession, h[hSession], 0, address(&s.names[0]), address(&h[hInput]), 1, address(&s.names[1]), 1, address(&h[hOutput]))
	runtime.KeepAlive(s)
	return err
}

func (s *session) close() {
	h := &s.handles
	s.r.release(releaseValue, h[hInput])
	s.r.release(releaseValue, h[hOutput])
	s.r.release(releaseMemoryInfo, h[hMemory])
	s.r.release(releaseSession, h[hSession])
	s.r.release(releaseSessionOptions, h[hOptions])
}

// address is that of a value on the heap.
func address[T any](p *T) uintptr { return uintptr(unsafe.Pointer(p)) }

// cString is text with the zero that C wants, on the heap.
func cString(s string) []byte { return append([]byte(s), 0) }

// text copies a C string.
func text(p uintptr) string {
	if p == 0 {
		return ""
	}
	b := *(**byte)(unsafe.Pointer(&p))
	n := 0
	for *(*byte)(unsafe.Add(unsafe.Pointer(b), n)) != 0 {
		n++
	}
	return string(unsafe.Slice(b, n))
}
