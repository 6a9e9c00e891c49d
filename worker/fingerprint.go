package worker

import (
	"runtime"

	"github.com/espalier-ml/espalier/model/kernel"
	espalierv1 "github.com/espalier-ml/espalier/proto/espalier/v1"
)

// RuntimeVersion names the generation of the native runtime: it changes when the
// same file may take another time than before.
const RuntimeVersion = "native/1"

// Fingerprint tells this machine's class of hardware from another: processor,
// kernel variant, system and runtime.
func Fingerprint() *espalierv1.Fingerprint {
	return &espalierv1.Fingerprint{
		Cpu:            kernel.CPU(),
		Variant:        string(kernel.Active()),
		Os:             runtime.GOOS + "/" + runtime.GOARCH,
		RuntimeVersion: RuntimeVersion,
	}
}
