//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// disk is a small file system of one process, in an image file.
type disk struct {
	dir     string
	balloon string
}

// newDisk makes and mounts a file system of so many megabytes.
func newDisk(image, dir string, megabytes int64) (*disk, error) {
	f, err := os.Create(image)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Truncate(megabytes<<20), f.Close()); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if err := command("mkfs.ext4", "-q", "-F", "-m", "0", image); err != nil {
		return nil, err
	}
	if err := command("mount", "-o", "loop", image, dir); err != nil {
		return nil, err
	}
	return &disk{dir: dir, balloon: filepath.Join(dir, "balloon")}, nil
}

// fill takes all space but a few blocks.
func (d *disk) fill() error {
	f, err := os.OpenFile(d.balloon, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	size := int64(0)
	// The last allocations fail when the rest is in small pieces: take smaller ones.
	for step := int64(64 << 20); step >= 4<<10; {
		switch err := unix.Fallocate(int(f.Fd()), 0, size, step); {
		case err == nil:
			size += step
		case errors.Is(err, unix.ENOSPC):
			step /= 4
		default:
			return fmt.Errorf("fill %s: %w", d.dir, err)
		}
	}
	return nil
}

// free gives the space back.
func (d *disk) free() error {
	if err := os.Remove(d.balloon); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
