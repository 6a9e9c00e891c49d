package e2e

import (
	"os"

	"golang.org/x/sys/unix"
)

// mountTiny gives dir a small file system, which ends with the test's cleanup.
func mountTiny(dir, size string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size)
}

func unmountTiny(dir string) error { return unix.Unmount(dir, unix.MNT_DETACH) }
