package onnx

import (
	"archive/tar"
	"errors"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/espalier-ml/espalier/model"
	"github.com/espalier-ml/espalier/model/modeltest"
	"github.com/espalier-ml/espalier/model/onnx/onnxpb"
)

// realData is a file or folder of the real data, or skips the test.
func realData(t testing.TB, elem ...string) string {
	t.Helper()
	root := os.Getenv("ESPALIER_TEST_DATA")
	if root == "" {
		root = "../../../shared/data"
	}
	path := filepath.Join(append([]string{root}, elem...)...)
	if _, err := os.Stat(path); err != nil {
		t.Skipf("SKIPPED, NOT TESTED: real data is absent (set ESPALIER_TEST_DATA): %v", err)
	}
	return path
}

// backendCases unpacks ONNX's conformance cases: name → file → bytes.
func backendCases(t *testing.T) map[string]map[string][]byte {
	t.Helper()
	path := realData(t, "onnx-backend-tests.tar.xz")
	if _, err := exec.LookPath("xz"); err != nil {
		t.Skipf("SKIPPED, NOT TESTED: the cases are packed with xz: %v", err)
	}
	cmd := exec.Command("xz", "-dc", path)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]map[string][]byte{}
	for r := tar.NewReader(out); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if parts := strings.SplitN(h.Name, "/", 4); len(parts) == 4 && len(b) > 0 {
			if cases[parts[2]] == nil {
				cases[parts[2]] = map[string][]byte{}
			}
			cases[parts[2]][parts[3]] = b
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	return cases
}

func unmarshal[T proto.Message](t testing.TB, b []byte, m T) T {
	t.Helper()
	if err := proto.Unmarshal(b, m); err != nil {
		t.Fatal(err)
	}
	return m
}

// withConstants moves every input but the first into the initializers, so that
// weights are constants as in a trained network.
func withConstants(t testing.TB, files map[string][]byte) []byte {
	t.Helper()
	m := unmarshal(t, files["model.onnx"], &onnxpb.ModelProto{})
	for k, in := range m.Graph.Input[min(1, len(m.Graph.Input)):] {
		b := files["test_data_set_0/input_"+string(rune('1'+k))+".pb"]
		c := unmarshal(t, b, &onnxpb.TensorProto{})
		c.Name = in.Name
		m.Graph.Initializer = append(m.Graph.Initializer, c)
	}
	out, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// channelsLastOf reorders values of {C, H, W} to {H, W, C} if dims are three.
func channelsLastOf(v []float32, dims []int) []float32 {
	if len(dims) != 3 {
		return v
	}
	out := make([]float32, len(v))
	for i, j := range imagePermAlways(dims[1], dims[2], dims[0]) {
		out[j] = v[i]
	}
	return out
}

func imagePermAlways(h, w, c int) []int32 {
	if p := imagePerm(h, w, c); p != nil {
		return p
	}
	p := make([]int32, h*w*c)
	for i := range p {
		p[i] = int32(i)
	}
	return p
}

// compare runs g on every example of the case and compares with what is expected.
func compare(t *testing.T, g *model.Graph, files map[string][]byte) {
	t.Helper()
	in, err := newConstant(unmarshal(t, files["test_data_set_0/input_0.pb"], &onnxpb.TensorProto{}))
	if err != nil {
		t.Fatal(err)
	}
	want, err := newConstant(unmarshal(t, files["test_data_set_0/output_0.pb"], &onnxpb.TensorProto{}))
	if err != nil {
		t.Fatal(err)
	}
	batch := 1
	inDims, outDims := in.dims, want.dims
	if len(in.dims) > 1 {
		batch, inDims, outDims = in.dims[0], in.dims[1:], want.dims[1:]
	}
	n, m := elements(inDims), elements(outDims)
	shapes, err := g.Shapes()
	if err != nil {
		t.Fatal(err)
	}
	out := shapes[len(shapes)-1]
	for k := range batch {
		x := in.floats[k*n : (k+1)*n]
		if len(inDims) == 3 && slices.Equal(g.Input, []int{inDims[1], inDims[2], inDims[0]}) {
			x = channelsLastOf(x, inDims)
		}
		got, err := modeltest.Output(g, x)
		if err != nil {
			t.Fatal(err)
		}
		y := want.floats[k*m : (k+1)*m]
		if len(out) == 3 && (!slices.Equal(out, outDims) || elements(outDims) == outDims[0]*outDims[0]*outDims[0]) {
			y = channelsLastOf(y, outDims)
		}
		closeTo(t, got, y, 1e-4)
	}
}

// closeTo compares within tolerance, relative to the largest magnitude.
func closeTo(t *testing.T, got, want []float32, tolerance float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d values: want %d", len(got), len(want))
	}
	top := 1e-6
	for _, v := range want {
		top = max(top, math.Abs(float64(v)))
	}
	for i := range got {
		if d := math.Abs(float64(got[i]) - float64(want[i])); !(d <= tolerance*top) {
			t.Fatalf("value %d is %v: want %v (within %g of %g)", i, got[i], want[i], tolerance, top)
		}
	}
}

func TestBackendCases(t *testing.T) {
	matched := map[string]bool{}
	for name, files := range backendCases(t) {
		for kind, b := range map[string][]byte{"as it is": files["model.onnx"], "with constants": withConstants(t, files)} {
			g, err := Read(b, Limits{})
			if errors.Is(err, ErrUnsupported) {
				t.Logf("%s, %s: %v", name, kind, err)
				continue
			}
			if err != nil {
				t.Errorf("%s, %s: %v", name, kind, err)
				continue
			}
			matched[name] = true
			t.Run(name, func(t *testing.T) { compare(t, g, files) })
		}
	}
	t.Logf("%d cases imported and compared", len(matched))
	for _, name := range inScope {
		if !matched[name] {
			t.Errorf("%s was refused: want it imported", name)
		}
	}
	if want := 57; len(matched) < want {
		t.Errorf("%d cases imported: want at least %d", len(matched), want)
	}
}

// inScope are cases that stand for an operator each.
var inScope = []string{
	"test_AvgPool2d_stride", "test_BatchNorm2d_eval", "test_Conv2d_depthwise_with_multiplier", "test_Conv2d_dilated",
	"test_Conv2d_groups", "test_Conv2d_padding", "test_LeakyReLU_with_negval", "test_Linear_no_bias", "test_add_bcast",
	"test_averagepool_2d_pads", "test_averagepool_2d_pads_count_include_pad", "test_averagepool_2d_same_lower",
	"test_batchnorm_epsilon", "test_conv_with_autopad_same", "test_dropout_default_ratio", "test_gemm_beta",
	"test_gemm_transposeB", "test_globalaveragepool_precomputed", "test_globalmaxpool_precomputed", "test_hardswish",
	"test_hardswish_expanded", "test_maxpool_2d_ceil", "test_maxpool_2d_same_upper", "test_mul_bcast",
	"test_reshape_zero_dim", "test_sigmoid", "test_softmax_default_axis", "test_tanh", "test_unsqueeze_two_axes",
}
