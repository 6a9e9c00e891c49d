//go:build faults

package clock

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// offsetEnv names a file with the milliseconds that the wall clock is wrong by. The file may change at any time.
const offsetEnv = "ESPALIER_FAULTS_CLOCK"

// lookEvery is how long a value that was read holds.
const lookEvery = 20 * time.Millisecond

var (
	begun = time.Now()
	read  atomic.Int64 // when, since begun
	value atomic.Int64
)

// offset is how wrong the wall clock is made to be.
func offset() int64 {
	path := os.Getenv(offsetEnv)
	now := int64(time.Since(begun)) + 1
	if last := read.Load(); path == "" || last > 0 && now-last < int64(lookEvery) {
		return value.Load()
	}
	if b, err := os.ReadFile(path); err == nil {
		if ms, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil {
			value.Store(ms)
		}
	}
	read.Store(now)
	return value.Load()
}
