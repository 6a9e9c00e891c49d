package main

import (
	"os"
	"syscall"
)

// dataSync is what the store does after each write.
func dataSync(f *os.File) error { return syscall.Fdatasync(int(f.Fd())) }
