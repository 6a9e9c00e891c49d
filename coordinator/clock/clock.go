// Package clock reads the wall clock for what replicas record. Times that are only compared with each other on one machine,
// as those of leases, use Go's monotonic readings instead and never come here.
package clock

import "time"

// Milli is a time in milliseconds since 1970, as this machine's wall clock has it.
func Milli(t time.Time) int64 { return t.UnixMilli() + offset() }
