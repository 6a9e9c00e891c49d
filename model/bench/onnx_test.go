package bench

import (
	"errors"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/infer"
	"github.com/espalier-ml/espalier/model/modeltest"
	"github.com/espalier-ml/espalier/model/onnx"
	"github.com/espalier-ml/espalier/model/zoo"
)

// ortRuntime builds the helper and finds the library, or skips.
func ortRuntime(t testing.TB) ONNXRuntime {
	t.Helper()
	lib := os.Getenv("ESPALIER_ORT_LIBRARY")
	if lib == "" {
		arch := strings.Replace(runtime.GOARCH, "amd64", "x64", 1)
		lib, _ = filepath.Abs("../../scripts/ort/node_modules/onnxruntime-node/bin/napi-v6/linux/" + arch + "/libonnxruntime.so.1")
	}
	if _, err := os.Stat(lib); err != nil {
		t.Skipf("SKIPPED, NOT TESTED: no ONNX Runtime library: npm ci --ignore-scripts in scripts/ort, or set ESPALIER_ORT_LIBRARY: %v", err)
	}
	helper := filepath.Join(t.TempDir(), "espalier-ort")
	if out, err := exec.Command("go", "build", "-o", helper, "../../cmd/espalier-ort").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return ONNXRuntime{Helper: helper, Library: lib}
}

func writeONNX(t testing.TB, g *model.Graph) string {
	t.Helper()
	b, err := onnx.Marshal(g, onnx.Options{})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "net.onnx")
	if err := os.WriteFile(file, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// channelsFirst reorders images.
func channelsFirst(x []float32, s model.Shape) []float32 {
	if len(s) != 3 {
		return x
	}
	y, pixels := make([]float32, len(x)), s[0]*s[1]
	for i, v := range x {
		n, p, c := i/s.Elements(), i/s[2]%pixels, i%s[2]
		y[n*s.Elements()+c*pixels+p] = v
	}
	return y
}

// The files that we write give on ONNX Runtime what the graph gives here.
func TestONNXRuntimeAgrees(t *testing.T) {
	r := ortRuntime(t)
	graphs := []*model.Graph{modeltest.Graph(3), modeltest.Graph(8), modeltest.Graph(21)}
	for _, name := range []string{"seed-cnn", "resnet-8", "ds-cnn"} {
		g, err := zoo.Build(name, model.Shape{20, 20, 3}, 10, 1)
		if err != nil {
			t.Fatal(err)
		}
		graphs = append(graphs, g)
	}
	for _, g := range graphs {
		const n = 3
		plan, err := infer.Compile(g, infer.Options{Batch: n})
		if err != nil {
			t.Fatal(err)
		}
		x, want := Input(n*plan.InputSize()), make([]float32, n*plan.OutputSize())
		if err := plan.Run(x, want); err != nil {
			t.Fatal(err)
		}
		got, err := r.Run(t.Context(), writeONNX(t, g), n, channelsFirst(x, g.Input))
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(want) {
			t.Fatalf("%s: %d outputs: want %d", g.Name, len(got), len(want))
		}
		for i, v := range want {
			if math.Abs(float64(v-got[i])) > 1e-4*(1+math.Abs(float64(v))) {
				t.Errorf("%s: output %d is %v on ONNX Runtime: want %v", g.Name, i, got[i], v)
			}
		}
	}
}

// noise is examples of random numbers.
type noise int

func (n noise) Batch(x []float32, labels []int32, _ []int32) {
	copy(x, Input(int(n)*len(labels)))
	clear(labels)
}

// With its kernels for bytes too, ONNX Runtime gives for an int8 file nearly what
// the plan on bytes gives.
func TestONNXRuntimeAgreesOnBytes(t *testing.T) {
	r := ortRuntime(t)
	for _, name := range []string{"seed-cnn", "mlp-784-128-10", "resnet-8", "ds-cnn"} {
		g, err := zoo.Build(name, model.Shape{28, 28, 1}, 10, 1)
		if err != nil {
			t.Fatal(err)
		}
		const n = 8
		q, err := infer.Quantize(t.Context(), g, noise(g.Input.Elements()), make([]int32, n))
		if err != nil {
			t.Fatal(err)
		}
		b, err := onnx.Marshal(q, onnx.Options{})
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "net.onnx")
		if err := os.WriteFile(file, b, 0o644); err != nil {
			t.Fatal(err)
		}
		plan, err := infer.Compile(q, infer.Options{Batch: n})
		if err != nil {
			t.Fatal(err)
		}
		x, want := Input(n*plan.InputSize()), make([]float32, n*plan.OutputSize())
		if err := plan.Run(x, want); err != nil {
			t.Fatal(err)
		}
		got, err := r.Run(t.Context(), file, n, channelsFirst(x, g.Input))
		if err != nil {
			t.Fatal(err)
		}
		var diff, size float64
		for i, v := range want {
			diff += math.Pow(float64(v-got[i]), 2)
			size += math.Pow(float64(v), 2)
		}
		if d := math.Sqrt(diff / size); !(d < 0.02) {
			t.Errorf("%s: outputs are %.3f of their size away on ONNX Runtime", name, d)
		} else {
			t.Logf("%s: %.4f", name, d)
		}
	}
}

func TestONNXRuntimeMeasures(t *testing.T) {
	r := ortRuntime(t)
	g, err := zoo.Build("lenet-5", model.Shape{28, 28, 1}, 10, 1)
	if err != nil {
		t.Fatal(err)
	}
	e, err := r.Measure(t.Context(), writeONNX(t, g), 2, 1, quick)
	if err != nil {
		t.Fatal(err)
	}
	if e.P50 <= 0 || e.P95 < e.P50 || e.Batch != 2 || e.Threads != 1 || e.Runtime != ONNXRuntimeName || !strings.HasPrefix(e.Version, "1.") || e.Rounds != 3 {
		t.Errorf("%+v: want a latency of batch 2 on one thread in 3 rounds", e)
	}
	if v, err := r.Version(t.Context()); err != nil || v != e.Version {
		t.Errorf("version %q, %v: want %q", v, err, e.Version)
	}
	bad := filepath.Join(t.TempDir(), "bad.onnx")
	if err := os.WriteFile(bad, []byte("not a model"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{bad, bad + ".gone"} {
		if _, err := r.Measure(t.Context(), file, 1, 1, quick); !errors.Is(err, ErrRuntime) {
			t.Errorf("%s: %v: want %v", file, err, ErrRuntime)
		}
	}
}

func TestONNXRuntimeIsMissing(t *testing.T) {
	t.Setenv(HelperVariable, "")
	t.Setenv("PATH", t.TempDir())
	if _, err := (ONNXRuntime{}).Version(t.Context()); !errors.Is(err, ErrRuntime) || !strings.Contains(err.Error(), "go build ./cmd/espalier-ort") {
		t.Errorf("%v: want %v and what to do", err, ErrRuntime)
	}
}
