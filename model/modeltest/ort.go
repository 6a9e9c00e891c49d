package modeltest

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// ORTCase asks ONNX Runtime to run the model file at a path on inputs of the
// shape Dims, batch first.
type ORTCase struct {
	Model  string    `json:"model"`
	Dims   []int     `json:"dims"`
	Inputs []float32 `json:"inputs"`
}

// ORTResult is the answer to one case; Error says why there are no outputs.
type ORTResult struct {
	Dims    []int     `json:"dims"`
	Outputs []float32 `json:"outputs"`
	Error   string    `json:"error"`
}

// RunORT runs the cases with ONNX Runtime, from scripts/ort below root, or skips
// the test, loudly, where it is not installed.
func RunORT(t *testing.T, root string, cases []ORTCase) []ORTResult {
	t.Helper()
	dir := filepath.Join(root, "scripts", "ort")
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "onnxruntime-node")); err != nil {
		t.Skipf("SKIPPED, NOT TESTED: ONNX Runtime is absent (npm ci --ignore-scripts in scripts/ort): %v", err)
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skipf("SKIPPED, NOT TESTED: node is absent: %v", err)
	}
	in, err := json.Marshal(cases)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(node, "run.mjs")
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(in)
	var out, text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &text
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, text.String())
	}
	var results []ORTResult
	if err := json.Unmarshal(out.Bytes(), &results); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	if len(results) != len(cases) {
		t.Fatalf("%d results of %d", len(results), len(cases))
	}
	return results
}
