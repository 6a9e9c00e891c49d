package job

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// sizeUnits, longest suffix first. KB is 1000 bytes.
var sizeUnits = []struct {
	suffix string
	bytes  float64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30},
	{"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"kB", 1e3}, {"B", 1}, {"", 1},
}

// ParseSize reads a positive number of bytes such as 200KB, 1.5MB or 65536.
func ParseSize(s string) (int64, error) {
	for _, u := range sizeUnits {
		number, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		bytes := math.Round(v * u.bytes)
		if err != nil || !(bytes >= 1) || bytes > 1<<60 {
			break
		}
		return int64(bytes), nil
	}
	return 0, fmt.Errorf("%w: size %q: want a size above 0 with its unit, such as 200KB or 1.5MB", ErrField, s)
}

// FormatSize writes bytes with a decimal unit and three digits.
func FormatSize(n int64) string {
	v := float64(n)
	switch {
	case v >= 999.5e6:
		return fmt.Sprintf("%.3g GB", v/1e9)
	case v >= 999.5e3:
		return fmt.Sprintf("%.3g MB", v/1e6)
	case v >= 1e3:
		return fmt.Sprintf("%.3g KB", v/1e3)
	}
	return fmt.Sprintf("%d B", n)
}

// ParseDuration reads a positive time such as 5ms, 90s or 2h.
func ParseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%w: time %q: want a time above 0 with its unit, such as 5ms or 2h", ErrField, s)
	}
	return d, nil
}
