//go:build purego || !(amd64 || arm64)

package kernel

import "runtime"

func platformImpls() []*impl {
	cpuBrand = runtime.GOARCH
	return nil
}
