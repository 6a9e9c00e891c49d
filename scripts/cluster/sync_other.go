//go:build !linux

package main

import "os"

// dataSync is what the store does after each write.
func dataSync(f *os.File) error { return f.Sync() }
