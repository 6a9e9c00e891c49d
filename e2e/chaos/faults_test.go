//go:build linux

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestOnlyTheTagHasFaults holds that a binary for users has nothing in it that breaks things.
func TestOnlyTheTagHasFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: builds the binary twice")
	}
	for tags, want := range map[string]bool{"": false, "faults": true} {
		path := filepath.Join(t.TempDir(), "espalier")
		cmd := exec.Command("go", "build", "-tags", tags, "-o", path, "../../cmd/espalier")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build: %v: %s", err, out)
		}
		binary, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := bytes.Contains(binary, []byte("ESPALIER_FAULTS")); got != want {
			t.Errorf("tags %q: the binary knows of faults: %v, want %v", tags, got, want)
		}
	}
}
