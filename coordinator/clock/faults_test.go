//go:build faults

package clock

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestAFileMovesTheClock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "clock")
	t.Setenv(offsetEnv, path)
	now := time.Now()
	for _, c := range []struct {
		text string
		want int64
	}{{"3600000\n", 3_600_000}, {"-2000", -2000}, {"nonsense", -2000}, {"0", 0}} {
		if err := os.WriteFile(path, []byte(c.text), 0o644); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * lookEvery)
		if got := Milli(now) - now.UnixMilli(); got != c.want {
			t.Errorf("%q moves the clock by %d ms, want %d", c.text, got, c.want)
		}
	}
}
