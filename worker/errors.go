package worker

import "errors"

// Errors of this package.
var (
	// ErrConfig says that a field of Config is wrong.
	ErrConfig = errors.New("worker configuration")
	// ErrHostLock says that another worker of this host measures already.
	ErrHostLock = errors.New("another worker measures on this host")
	// ErrRefused says that the leader will not give this worker tasks: its device
	// is recorded with another fingerprint, or another process has its name.
	ErrRefused = errors.New("worker refused")
)

// Why work is cancelled.
var (
	errLost  = errors.New("lease lost")
	errDrain = errors.New("worker is draining")
)
