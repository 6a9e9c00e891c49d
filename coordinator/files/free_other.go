//go:build !unix

package files

func freeBytes(string) int64 { return -1 }
