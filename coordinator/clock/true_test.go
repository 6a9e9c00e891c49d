//go:build !faults

package clock

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestNothingMovesTheClock: only a build with the tag faults heeds the file.
func TestNothingMovesTheClock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "clock")
	if err := os.WriteFile(path, []byte("3600000"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("ESPALIER_FAULTS_CLOCK", path)
	now := time.Now()
	if got := Milli(now); got != now.UnixMilli() {
		t.Errorf("the clock is off by %d ms", got-now.UnixMilli())
	}
}
