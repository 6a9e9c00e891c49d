package store

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// forgetCached drops the kernel's copy of a file, so that the next reads come from disk.
func forgetCached(f *os.File) error {
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return fmt.Errorf("drop cached pages: %w", err)
	}
	return nil
}
